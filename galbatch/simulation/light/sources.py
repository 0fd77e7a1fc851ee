"""Drawing of many sources: those of a field, or the neighbors of a galaxy in a stamp.

Each source is drawn in a square box around its nearest pixel, large enough that its light is negligible outside
(EDGE_NJY). The Fourier transforms of boxes of the same size are computed together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft

from galbatch.simulation.light.camera import BANDS, PIXEL_SCALE_ARCSEC
from galbatch.simulation.light.fourier import (
    TABLE_POINTS,
    Psf,
    moffat_intensity,
    sersic_table,
    sersic_transform,
)
from galbatch.simulation.light.fourier import moffat_transform as moffat
from galbatch.simulation.light.sersic import intensity

__all__ = ["Profiles", "paint", "profiles_of"]

Floats = npt.NDArray[np.float64]

BOX_SIZES_PX = (32, 64, 128, 256, 512)
EDGE_NJY = 0.1
"""Largest light in a pixel at the edge of a source's box (except in boxes of 512 px): a twentieth of the sky noise."""

WIDEST_PSF_ARCSEC = 1.1
POINTS_AT_ONCE = 2**18  # Points of all Fourier planes together: 2 MB, which stays in the processor's cache.


@dataclass(frozen=True, slots=True)
class Profiles:
    """Sersic profiles, and point sources as profiles with a radius of 0. All arrays are float64.

    Attributes
    ----------
    position_px : (row, 2)
        Position x, y. The center of the first pixel is (0, 0).
    n, re_arcsec, axis_ratio, angle_deg : (row,)
    flux_njy : (row, band)
    brightest_njy : (row,)
        Largest flux in any of BANDS. It sets the size of the box, which therefore does not depend on the bands drawn.
    """

    position_px: Floats
    n: Floats
    re_arcsec: Floats
    axis_ratio: Floats
    angle_deg: Floats
    flux_njy: Floats
    brightest_njy: Floats

    def __len__(self) -> int:
        return len(self.n)

    def where(self, rows: npt.NDArray[Any]) -> Profiles:
        """Return the rows selected by a mask or by indices."""
        return Profiles(*(getattr(self, name)[rows] for name in self.__slots__))


def profiles_of(
    columns: Mapping[str, Floats],
    position_px: Floats,
    fluxes_njy: Mapping[tuple[str, str], Floats],
    *,
    bands: Sequence[str],
) -> tuple[Profiles, npt.NDArray[np.int64]]:
    """Return the components of galaxies as profiles, and the index of the galaxy of each.

    Parameters
    ----------
    columns
        ``disk_n`` and the other shape columns, (object,) float64, NaN where the component is absent.
    position_px
        (object, 2).
    fluxes_njy
        (object,) float64 for each (component, band), for all of BANDS.
    bands
        Order of the band axis.
    """
    parts, owners = [], []
    for part in ("disk", "bulge"):
        here = np.flatnonzero(np.isfinite(columns[f"{part}_n"]))
        shape = [columns[f"{part}_{name}"][here] for name in ("n", "re_arcsec", "axis_ratio", "angle_deg")]
        flux = {band: fluxes_njy[part, band][here] for band in BANDS}
        brightest = np.max(list(flux.values()), axis=0)
        chosen = np.stack([flux[band] for band in bands], axis=1)
        parts.append([position_px[here], *shape, chosen, brightest])
        owners.append(here)
    together = [np.concatenate(pair) for pair in zip(*parts, strict=True)]
    return Profiles(*together), np.concatenate(owners)


def paint(
    canvas: Floats,
    profiles: Profiles,
    psfs: Sequence[Sequence[Psf]],
    *,
    corner_px: tuple[int, int] = (0, 0),
    pixel_scale_arcsec: float = PIXEL_SCALE_ARCSEC,
) -> None:
    """Add the light of sources to an image, in place.

    Parameters
    ----------
    canvas
        (band, y, x) float64, nJy per pixel; changed in place.
    profiles
        Positions have the same origin as `corner_px`.
    psfs
        For each row a sequence of one PSF per band, or one such sequence for all rows.
    corner_px
        (x, y) of the first pixel of the canvas.
    pixel_scale_arcsec
        Side of the square pixels.
    """
    for box, corner in _boxes(profiles, psfs, canvas.shape[1:], corner_px, pixel_scale_arcsec):
        x, y = (int(c) - first for c, first in zip(corner, corner_px, strict=True))
        size = box.shape[-1]
        y0, y1, x0, x1 = max(y, 0), min(y + size, canvas.shape[1]), max(x, 0), min(x + size, canvas.shape[2])
        if y0 < y1 and x0 < x1:
            canvas[:, y0:y1, x0:x1] += box[:, y0 - y : y1 - y, x0 - x : x1 - x]


def box_sizes(profiles: Profiles, pixel_scale_arcsec: float) -> npt.NDArray[np.int64]:
    """Return the side (row,) in px of the smallest box at whose edge a source is below EDGE_NJY in its brightest band."""
    flux = profiles.brightest_njy * pixel_scale_arcsec**2
    extended = profiles.re_arcsec > 0
    shape = [values[extended] for values in (profiles.n, profiles.re_arcsec, profiles.axis_ratio)]
    sizes = np.full(len(profiles), BOX_SIZES_PX[-1])
    # From large to small, so that the smallest sufficient size remains.
    for size in BOX_SIZES_PX[-2::-1]:
        radius = np.asarray(size / 2 * pixel_scale_arcsec)
        light = np.full(len(profiles), float(moffat_intensity(radius, WIDEST_PSF_ARCSEC)))
        light[extended] += intensity(radius, shape[0], shape[1], axis_ratio=shape[2])
        sizes[flux * light < EDGE_NJY] = size
    return sizes


def _boxes(
    profiles: Profiles,
    psfs: Sequence[Sequence[Psf]],
    shape_px: tuple[int, ...],
    corner_px: tuple[int, int],
    scale_arcsec: float,
) -> Iterator[tuple[Floats, npt.NDArray[np.int64]]]:
    """Yield the box (band, y, x) and its first pixel (x, y) of each source that overlaps the canvas, ordered by size."""
    common = len(psfs) == 1
    sizes = box_sizes(profiles, scale_arcsec)
    nearest = np.rint(profiles.position_px).astype(np.int64)
    corners = nearest - sizes[:, None] // 2
    low, high = np.array(corner_px), np.array(corner_px) + np.array(shape_px[::-1])
    seen = ((corners < high) & (corners + sizes[:, None] > low)).all(axis=1)
    for size in BOX_SIZES_PX:
        rows = np.flatnonzero(seen & (sizes == size))
        at_once = max(1, POINTS_AT_ONCE // (size * (size // 2 + 1)))
        for start in range(0, len(rows), at_once):
            some = rows[start : start + at_once]
            chosen = psfs if common else [psfs[row] for row in some.tolist()]
            yield from zip(
                _draw(profiles.where(some), chosen, size, scale_arcsec), corners[some], strict=True
            )


def _draw(profiles: Profiles, psfs: Sequence[Sequence[Psf]], size_px: int, scale_arcsec: float) -> Floats:
    """Return the images (row, band, y, x) of sources, nJy per pixel, in boxes around their nearest pixels."""
    frequency = fft.fftfreq(size_px)[:, None], fft.rfftfreq(size_px)[None, :]
    k_y, k_x = (2 * np.pi / scale_arcsec * part for part in frequency)
    # (row, ky, kx): the transform of the pixel, times the phase that moves each source to its position in the box.
    offset = profiles.position_px - np.rint(profiles.position_px) + size_px // 2
    of_y, of_x = (
        np.sinc(part) * np.exp(-2j * np.pi * part * offset[:, axis, None, None])
        for part, axis in zip(frequency, (1, 0), strict=True)
    )
    cos, sin = (f(np.deg2rad(profiles.angle_deg))[:, None, None] for f in (np.cos, np.sin))
    re, axis_ratio = profiles.re_arcsec[:, None, None], profiles.axis_ratio[:, None, None]
    k2 = ((k_x * cos + k_y * sin) * re) ** 2 + ((k_y * cos - k_x * sin) * (re * axis_ratio)) ** 2
    tables = np.empty((len(profiles), TABLE_POINTS))
    for table, n in zip(tables, profiles.n.tolist(), strict=True):
        table[:] = sersic_table(n)
    transforms = sersic_transform(tables, k2.reshape(len(profiles), -1)).reshape(k2.shape)  # (row, ky, kx)
    light = transforms * (of_y * of_x)
    # Rows may share their PSFs, so each distinct PSF is transformed once.
    blur = {psf: moffat(psf, k_x, k_y) for of_bands in psfs for psf in of_bands}
    boxes = np.empty((len(profiles), profiles.flux_njy.shape[1], size_px, size_px))
    for band in range(boxes.shape[1]):
        blurs = np.stack([blur[of_bands[band]] for of_bands in psfs])
        boxes[:, band] = fft.irfft2(light * blurs, s=(size_px, size_px))
    boxes *= profiles.flux_njy[:, :, None, None]
    return boxes
