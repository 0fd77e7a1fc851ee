"""Scenes of `spoiled.py`: simulated galaxies, and what spoils real images.

Light and noise are drawn apart, so that a spoiled image differs from the clean one by what was done to it alone: the noise is the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galbatch import simulation
from galbatch.config import FlagsConfig
from galbatch.core.types import CutoutBlock, Grid
from galbatch.ingest.cut.measure import measure
from galbatch.ingest.pixels.no_data import constant_areas
from galbatch.models.inference import sky_scatter
from galbatch.simulation import SKIES, Sky
from galbatch.simulation.stamps import stamp_psf_fwhm_arcsec

__all__ = [
    "CLEAN",
    "MIN_RE_ARCSEC",
    "OFFSETS",
    "ROWS",
    "STARS",
    "WIDER",
    "WIDER_PSF",
    "ZERO_POINT",
    "Scene",
    "TileFacts",
    "cutouts",
    "drawn",
]

Images = npt.NDArray[np.float32]

CLEAN, STARS, ZERO_POINT = "clean", "stars", "zero point off by 0.1 mag"
WIDER = "PSF of 1.2 arcsec, 0.85 stated"

MIN_RE_ARCSEC = 0.35
"""Galaxies with smaller half-light radii are left out: half a PSF width, whose shape cannot be seen."""

NEIGHBOR_PX = 12
"""Distance of a neighbor, 2.0 arcsec."""
NEIGHBOR_RE_ARCSEC = 0.5
POINT_RE_ARCSEC = 0.005

FLAT_AT = 0.4
"""A core that is flat is cut off at this share of its brightest pixel."""

WIDER_PSF = 1.2 / 0.85
"""The PSF in the pixels over the stated one."""

OFFSETS = {"sky +5 nJy a pixel": 5.0, "sky -5 nJy a pixel": -5.0, "sky +1 nJy a pixel": 1.0}
"""What is added to the sky, nJy a pixel, by the row's name."""


@dataclass(frozen=True)
class TileFacts:
    """What a tile says of the objects in it, (band,) float64 each; NaN: unknown.

    Attributes
    ----------
    stars : width of its stars over the stated one
    sky_level_njy, sky_level_err_njy : level of its sky and the error
    """

    stars: npt.NDArray[np.float64]
    sky_level_njy: npt.NDArray[np.float64]
    sky_level_err_njy: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """Galaxies of one population in one or more bands.

    Attributes
    ----------
    bands : names of the bands
    truth : table of the galaxies, as `simulation.draw_population` returns it
    light, noise : (object, band, y, x) float32, nJy: their images are the sum
    others : (object, band, y, x) float32, nJy, the light of neighbors as many as on the sky; zeros in the population paper
    points, disks : (object, band, y, x) float32, nJy: the same fluxes from points, and from disks of `NEIGHBOR_RE_ARCSEC`
    psf_fwhm_arcsec : (object, band) float32, stated width of the PSF
    tiles : what the tile says, by the name of the row; a row that is not among them has that of `CLEAN`
    """

    bands: tuple[str, ...]
    truth: pa.Table
    light: Images
    noise: Images
    others: Images
    points: Images
    disks: Images
    psf_fwhm_arcsec: Images
    tiles: Mapping[str, TileFacts]

    @property
    def image(self) -> Images:
        """The clean images (object, band, y, x): each galaxy is alone."""
        return self.light + self.noise


def drawn(population: str, n_objects: int, *, bands: tuple[str, ...], size_px: int, seed: int) -> Scene:
    """Draw galaxies of a population whose half-light radius is above `MIN_RE_ARCSEC`."""
    truth = simulation.draw_population(4 * n_objects, bands=bands, population=population, seed=seed)
    resolved = np.flatnonzero(np.asarray(truth["re_arcsec"]) > MIN_RE_ARCSEC)[:n_objects]
    truth = truth.take(pa.array(resolved))
    correlated = SKIES[population].correlated

    def stamps(table: pa.Table, **sky: bool) -> Images:
        return simulation.draw_stamps(
            table, bands=bands, size_px=size_px, seed=seed, sky=Sky(correlated=correlated, **sky)
        )

    light = stamps(truth, noise=False)
    others = stamps(truth, noise=False, neighbors=True) - light if SKIES[population].neighbors else 0 * light
    return Scene(
        bands=bands,
        truth=truth,
        light=light,
        noise=stamps(truth, noise=True) - light,
        others=others,
        points=stamps(with_radius(truth, POINT_RE_ARCSEC), noise=False),
        disks=stamps(with_radius(truth, NEIGHBOR_RE_ARCSEC), noise=False),
        psf_fwhm_arcsec=stamp_psf_fwhm_arcsec(truth, bands=bands, seed=seed),
        tiles={CLEAN: TileFacts(*np.full((3, len(bands)), np.nan))},
    )


def with_radius(truth: pa.Table, re_arcsec: float) -> pa.Table:
    """Return the table with exponential components of one half-light radius and the same fluxes."""
    columns = truth.to_pydict()
    for part in ("disk", "bulge"):
        for name, value in (("re_arcsec", re_arcsec), ("n", 1.0)):
            key = f"{part}_{name}"
            columns[key] = [None if one is None else value for one in columns[key]]
    return pa.table({name: pa.array(one, truth.schema.field(name).type) for name, one in columns.items()})


def with_neighbor(scene: Scene, share: float) -> Images:
    """Return the images with a neighbor of a share of the galaxy's light, to its right, above, left or below by turns."""
    steps = [(0, NEIGHBOR_PX), (NEIGHBOR_PX, 0), (0, -NEIGHBOR_PX), (-NEIGHBOR_PX, 0)]
    moved = [np.roll(one, steps[row % 4], axis=(1, 2)) for row, one in enumerate(scene.disks)]
    return scene.image + np.float32(share) * np.stack(moved)


def cut_off(scene: Scene) -> Images:
    """Return the images with all pixels of a core at `FLAT_AT` of its brightest one."""
    level = FLAT_AT * scene.light.max(axis=(2, 3), keepdims=True)
    return np.minimum(scene.image, level)


def with_wider_psf(scene: Scene) -> Images:
    """Return the images as a PSF wider by `WIDER_PSF` shows them: the light is convolved by the Gaussian that is missing."""
    return widened(scene.light, scene.psf_fwhm_arcsec) + scene.noise


def widened(light: Images, fwhm_arcsec: Images) -> Images:
    """Return light (.., y, x) that a PSF of a width (..) has made, as one wider by `WIDER_PSF` would."""
    sigma_px = np.sqrt(WIDER_PSF**2 - 1) * fwhm_arcsec / 2.3548 / simulation.PIXEL_SCALE_ARCSEC
    f_y, f_x = np.fft.fftfreq(light.shape[-2])[:, None], np.fft.rfftfreq(light.shape[-1])[None]
    kernel = np.exp(-2 * np.square(np.pi * sigma_px[..., None, None]) * (f_y**2 + f_x**2))
    return np.fft.irfft2(np.fft.rfft2(light) * kernel, s=light.shape[-2:]).astype(np.float32)


def with_offset(scene: Scene, *, offset_njy: float) -> Images:
    """Return the images on a sky that is off."""
    return scene.image + np.float32(offset_njy)


def half_zero(scene: Scene) -> Images:
    """Return the images with 0 in their right half, whose edge is 4 px from the center, and no mask."""
    image = scene.image
    image[..., image.shape[-1] // 2 + 4 :] = 0.0
    return image


ROWS: Mapping[str, Callable[[Scene], Images]] = {
    CLEAN: lambda scene: scene.image,
    "neighbors as on the sky": lambda scene: scene.image + scene.others,
    "neighbor at 2 arcsec, 30 % of the flux": lambda scene: with_neighbor(scene, 0.3),
    "neighbor at 2 arcsec, 100 % of the flux": lambda scene: with_neighbor(scene, 1.0),
    "flat core without a mask bit": cut_off,
    ZERO_POINT: lambda scene: scene.image * np.float32(10**0.04),
    **{name: partial(with_offset, offset_njy=offset) for name, offset in OFFSETS.items()},
    WIDER: with_wider_psf,
    "half the cutout 0": half_zero,
    "noise doubled": lambda scene: scene.light + 2 * scene.noise,
    "noise trebled": lambda scene: scene.light + 3 * scene.noise,
    STARS: lambda scene: scene.points + scene.noise,
}
"""What is done to the pixels, by the row's name."""


def cutouts(scene: Scene, row: str) -> CutoutBlock:
    """Return the images of a row as a run's cutouts: areas of one value are no data, and what the cut measures is measured.

    Sky noise is that of the cutout's own pixels, or of the median cutout, as a run takes it from the tile.
    """
    image = ROWS[row](scene).copy()
    for plane in image.reshape(-1, *image.shape[2:]):
        plane[constant_areas(plane)] = np.nan
    grid = Grid(image.shape[-1], simulation.PIXEL_SCALE_ARCSEC)
    block = CutoutBlock.of_images(image, scene.bands, grid, psf_fwhm_arcsec=scene.psf_fwhm_arcsec)
    sky = sky_scatter(np.nan_to_num(image)).astype(np.float32)
    sky = np.where(np.isfinite(sky), sky, np.nanmedian(sky, axis=0))
    known = measure(
        image,
        np.zeros(image.shape, np.uint16),
        variance=np.broadcast_to(np.square(sky)[..., None, None], image.shape),
        grid=grid,
        flags=FlagsConfig(),
    )
    tile = scene.tiles.get(row, scene.tiles[CLEAN])

    def of_all(of_band: npt.NDArray[np.float64]) -> Images:
        return np.broadcast_to(of_band.astype(np.float32), sky.shape)

    return dataclasses.replace(
        block,
        coverage=known.coverage,
        flags=known.flags,
        sky_sigma_njy=sky,
        psf_fwhm_stars_arcsec=scene.psf_fwhm_arcsec * of_all(tile.stars),
        sky_level_njy=of_all(tile.sky_level_njy),
        sky_level_err_njy=of_all(tile.sky_level_err_njy),
    )
