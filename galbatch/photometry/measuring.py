"""Photometry of the cutouts of a block: one aperture an object, laid out in a stack of its bands, and measured in each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import sep

from galbatch.config import PhotometryConfig
from galbatch.core.columns import (
    PHOT_AXIS_RATIO,
    PHOT_N_OTHERS,
    PHOT_RADIUS,
    photometry_band_columns,
    photometry_columns,
)
from galbatch.core.sky_noise import MIN_SKY_PIXELS, SIGMA_OF_MAD, clipped_sky, in_frame, thinned
from galbatch.core.types import CutoutBlock, Grid
from galbatch.photometry.apertures import Aperture
from galbatch.photometry.detection import detect, stacked

__all__ = ["PHOTOMETRY_VERSION", "measure_photometry"]

PHOTOMETRY_VERSION = 2
"""Raised when the numbers of the photometry change."""

Values = dict[str, npt.NDArray[Any]]

MEDIAN_ERROR = math.sqrt(math.pi / 2)
"""The error of a median of normal values over that of their mean."""

SKY_APERTURES = 1.5
"""The sky is measured farther out than this many radii of the aperture, where 1 to 3 percent of a galaxy's light are left."""

WINGS_PX = 3
"""Pixels about a segment that are not taken for sky: a source's faint light goes on beyond its last pixel above the threshold."""

HALF_LIGHT_SHARES = (0.45, 0.5, 0.55)
"""Shares of the flux whose radii give the half-light radius, and by their distance how its error follows from the flux's."""

CORE_FWHM = 1.25
"""PSF widths within which a core is measured. Of simulated stars among their neighbors 95 percent are then below what 97 percent of galaxies
are above; with 1.5 widths, which take more of the neighbors' light, below what 94.5 percent are above."""

FLAT_SHARE = 0.01
FLAT_SIGMA = 2.0
FLAT_MOST = 0.1
FLAT_MIN_SNR = 3.0
"""A pixel is as bright as the peak within this share, or this many sigma but at most the third share; of a fainter peak than the fourth the
noise decides. Of simulated galaxies 95 percent have a share below 0.2, and cut off at 0.4 of their peaks above 0.35."""

SIDES_MIN_SNR = 10.0
"""Below this signal-to-noise ratio the two sides of an object differ by their noise."""


def measure_photometry(cutouts: CutoutBlock, settings: PhotometryConfig) -> Values:
    """Return the photometry columns of a block of cutouts, each (object,) in its dtype, by name.

    Parameters
    ----------
    cutouts : CutoutBlock
        Image, coverage, PSF width and noise correlation are read, and no other plane: a store has the image always, and what is measured
        must not depend on what else it has.
    settings : PhotometryConfig

    Notes
    -----
    Kron (1980) apertures as in SExtractor (Bertin & Arnouts 1996), by SEP (Barbary 2016): `KRON_FACTOR` Kron radii of the detection
    image. Each object is measured from its own pixels alone.
    """
    columns = photometry_columns(cutouts.bands)
    values = {column.name: column.empty(len(cutouts)) for column in columns}
    frame = _Frame.of(cutouts.grid.size_px)
    flat = cutouts.image.reshape(*cutouts.image.shape[:2], -1)
    edges = flat[:, :, frame.index]  # (object, band, pixel)
    edges[~np.isfinite(edges)] = np.nan
    sky, noise = clipped_sky(edges)  # (object, band)
    usable = np.isfinite(sky) & (noise > 0)
    for row in np.flatnonzero(usable.any(axis=1)):
        one = _Cutout(cutouts, int(row), bands=np.flatnonzero(usable[row]), frame=frame, grid=cutouts.grid)
        for name, value in one.measure(sky[row], noise[row], settings).items():
            values[name][row] = value
    return values


@dataclass(frozen=True)
class _Frame:
    """The pixels along a cutout's edges in which its sky is measured.

    Attributes
    ----------
    index, y, x : (pixel,) intp, place in the flat image, row and column
    near : (5, pixel) intp, places of each pixel and of those `WINGS_PX` beside, above and below it
    """

    index: npt.NDArray[np.intp]
    y: npt.NDArray[np.intp]
    x: npt.NDArray[np.intp]
    near: npt.NDArray[np.intp]

    @classmethod
    def of(cls, size_px: int) -> _Frame:
        """Return the frame of cutouts of `size_px`."""
        index = thinned(in_frame(size_px))
        y, x = np.divmod(index, size_px)
        steps = ((0, 0), (-WINGS_PX, 0), (WINGS_PX, 0), (0, -WINGS_PX), (0, WINGS_PX))
        clipped = ((np.clip(y + dy, 0, size_px - 1), np.clip(x + dx, 0, size_px - 1)) for dy, dx in steps)
        return cls(index, y, x, np.stack([rows * size_px + columns for rows, columns in clipped]))


class _Cutout:
    """The cutout of one object: the planes (band, y, x) of the bands that have a sky, and what is known of them."""

    def __init__(
        self,
        cutouts: CutoutBlock,
        row: int,
        *,
        bands: npt.NDArray[np.intp],
        frame: _Frame,
        grid: Grid,
    ) -> None:
        self.grid = grid
        self.bands = [cutouts.bands[index] for index in bands]
        self.index = bands
        planes = cutouts.image[row]
        self.planes = planes if len(bands) == len(planes) else planes[bands]
        # A sum over many pixels scatters more than sky_sigma says where they were resampled.
        correlation = cutouts.noise_correlation[row, bands]
        self.correlation = np.where(np.isfinite(correlation), correlation, np.float32(1))
        self.psf_fwhm_arcsec = cutouts.psf_fwhm_arcsec[row, bands]
        self.frame = frame
        self.bad: npt.NDArray[np.bool_] | None = None
        if not (cutouts.coverage[row, bands] == 1).all():
            # A pixel that one band lacks is measured in none: an aperture has the same pixels in all bands, so colors stay right.
            self.bad = ~np.isfinite(self.planes).all(axis=0)
            self.planes = np.where(self.bad, np.float32(0), self.planes)

    def measure(
        self, sky: npt.NDArray[np.float32], noise: npt.NDArray[np.float32], settings: PhotometryConfig
    ) -> dict[str, float]:
        """Return the object's values by column; sky and noise (band of the block,) are first estimates."""
        sky, noise = sky[self.index], noise[self.index]
        chosen = [n for n, band in enumerate(self.bands) if band == settings.detect_in] or slice(None)
        image, scatter = stacked(self.planes[chosen], sky[chosen], noise[chosen])
        detected = detect(image, scatter, bad=self.bad, threshold_sigma=settings.threshold_sigma)
        scale = self.grid.pixel_scale_arcsec
        aperture = Aperture.of(detected, center_px=self.grid.center_px, pixel_scale_arcsec=scale)
        found: dict[str, float] = {
            PHOT_RADIUS.name: aperture.a * scale,
            PHOT_AXIS_RATIO.name: aperture.b / aperture.a,
            PHOT_N_OTHERS.name: np.unique(aperture.others[aperture.others > 0]).size,
        }
        level, error, noise = self._sky(aperture, noise)
        is_known = np.isfinite(level)
        subtracted, sky_error = (
            np.where(is_known, level, np.float32(0)),
            np.where(is_known, error, np.float32(0)),
        )
        for number, band in enumerate(self.bands):
            plane = self.planes[number] - subtracted[number]
            measured = {
                "sky": level[number],
                "sky_err": error[number],
                "noise": noise[number],
                **_in_band(
                    plane,
                    aperture,
                    noise=float(noise[number]),
                    correlation=float(self.correlation[number]),
                    sky_error=float(sky_error[number]),
                ),
                "core_ratio": _core_ratio(
                    plane, aperture, fwhm_px=float(self.psf_fwhm_arcsec[number]) / scale
                ),
            }
            for what, column in photometry_band_columns(band).items():
                value = measured[what]
                found[column.name] = value * scale if column.unit == "arcsec" else value
        return found

    def _sky(
        self, aperture: Aperture, noise: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return level, its error and noise of the sky (band,), of the pixels of the frame that no source has; `noise` where they are few."""
        frame, segments = self.frame, aperture.detected.segments.reshape(-1)
        free = ~(segments[frame.near] > 0).any(axis=0)
        free &= aperture.squared_radius(frame.y, frame.x) > SKY_APERTURES**2
        if self.bad is not None:
            free &= ~self.bad.reshape(-1)[frame.index]
        n_free = int(free.sum())
        if n_free < MIN_SKY_PIXELS:
            unknown = np.full(len(self.bands), np.nan, np.float32)
            return unknown, unknown, noise
        values = self.planes.reshape(len(self.bands), -1)[:, frame.index[free]]  # (band, pixel)
        level = np.median(values, axis=1)
        scatter = np.float32(SIGMA_OF_MAD) * np.median(np.abs(values - level[:, None]), axis=1)
        # A constant sky has no scatter: the first estimate, which is above 0, stays.
        scatter = np.where(scatter > 0, scatter, noise)
        error = np.float32(MEDIAN_ERROR / math.sqrt(n_free)) * scatter * self.correlation
        return level, error, scatter


def _in_band(
    plane: npt.NDArray[np.float32], aperture: Aperture, *, noise: float, correlation: float, sky_error: float
) -> dict[str, float]:
    """Return what is measured in the plane (y, x) of a band without sky; radii in pixels."""
    x, y, known = [aperture.x], [aperture.y], aperture.sep_arguments
    a, b, theta = [aperture.a], [aperture.b], [aperture.theta]
    total, _, _ = sep.sum_ellipse(plane, x, y, a, b, theta, subpix=5, **known)
    area = math.pi * aperture.a * aperture.b
    flux, flux_error = float(total[0]), math.hypot(noise * correlation * math.sqrt(area), sky_error * area)
    pixels, own = plane[aperture.box], aperture.own
    peak = float(pixels[own].max()) if own.any() else math.nan
    radius, radius_error = math.nan, math.nan
    if flux > 0:
        # Whole pixels tell how far out the finer sum has to go: of 28 px it takes four times as long as of 5 px.
        rough, _ = sep.flux_radius(plane, x, y, a, HALF_LIGHT_SHARES, normflux=[flux], subpix=1, **known)
        reach = [min(aperture.a, 1.2 * float(rough[0, -1]) + 2.0)]
        radii, _ = sep.flux_radius(plane, x, y, reach, HALF_LIGHT_SHARES, normflux=[flux], subpix=5, **known)
        low, radius, high = (float(value) for value in radii[0])
        # The noise of F(<r) - F / 2 is half that of F, and dF/dr is a tenth of F over the distance of the two radii.
        radius_error = 0.5 * flux_error * (high - low) / (0.1 * flux)
    return {
        "flux": flux,
        "flux_err": flux_error,
        "half_light_radius": radius,
        "half_light_radius_err": radius_error,
        "peak": peak,
        "others_share": _others_share(pixels, aperture),
        "flat_share": _flat_share(pixels, aperture, peak=peak, noise=noise, radius_px=radius),
        "asymmetric_share": _asymmetric_share(plane, aperture, noise=noise)
        if flux > SIDES_MIN_SNR * flux_error
        else math.nan,
    }


def _core_ratio(plane: npt.NDArray[np.float32], aperture: Aperture, *, fwhm_px: float) -> float:
    """Return the half-light radius of the light within `CORE_FWHM` PSF widths of the center, in PSF widths; NaN if unknown."""
    if not fwhm_px > 0:
        return math.nan
    x, y, known = [aperture.x], [aperture.y], aperture.sep_arguments
    reach = [CORE_FWHM * fwhm_px]
    light, _, _ = sep.sum_circle(plane, x, y, reach, subpix=5, **known)
    if not light[0] > 0:
        return math.nan
    radius, _ = sep.flux_radius(plane, x, y, reach, 0.5, normflux=light, subpix=5, **known)
    return float(radius[0]) / fwhm_px


def _others_share(pixels: npt.NDArray[np.float32], aperture: Aperture) -> float:
    """Return the share of the light within the aperture that lies in pixels of other sources, 0 to 1."""
    is_other = aperture.others > 0
    if not is_other.any():
        return 0.0
    others = max(0.0, float(pixels[is_other].sum(dtype=np.float64)))
    whole = float(pixels[aperture.inside].sum(dtype=np.float64))
    return min(1.0, others / whole) if whole > 0 else 1.0


def _flat_share(
    pixels: npt.NDArray[np.float32], aperture: Aperture, *, peak: float, noise: float, radius_px: float
) -> float:
    """Return the share of a core's pixels that are as bright as the peak; NaN of faint objects.

    The core are the pixels above half the peak within the half-light radius.
    """
    if not (peak > FLAT_MIN_SNR * noise and radius_px > 0):
        return math.nan
    inner = pixels[aperture.half_light_circle(radius_px)]
    # Where a brighter source has most of the circle, too few pixels are left to tell.
    if inner.size < 0.5 * math.pi * radius_px**2:
        return math.nan
    core = inner[inner > 0.5 * peak]
    # The peak may lie outside of a circle of half a pixel.
    if not core.size:
        return math.nan
    return float(np.mean(core >= peak - max(FLAT_SHARE * peak, min(FLAT_SIGMA * noise, FLAT_MOST * peak))))


def _asymmetric_share(plane: npt.NDArray[np.float32], aperture: Aperture, *, noise: float) -> float:
    """Return the share of the object's light that the opposite side of its center lacks; NaN if there is none.

    Half of sum |I - I180| over sum I, with I180 turned by half a circle about the nearest half pixel (Conselice 2000), less what noise adds:
    sigma / sqrt(pi) a pixel. Pixels of other sources, without data or beyond the edge count on neither side.
    """
    here, there = (plane.reshape(-1)[places] for places in aperture.sides)
    light = float(here.sum(dtype=np.float64))
    if not light > 0:
        return math.nan
    apart = 0.5 * float(np.abs(here - there).sum(dtype=np.float64))
    return (apart - here.size * noise / math.sqrt(math.pi)) / light
