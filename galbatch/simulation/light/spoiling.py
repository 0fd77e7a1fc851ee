"""Ways in which real images are spoiled and no label knows of, for stamps that a network is to be trained on.

Each of four things happens to a stamp with a probability of `SPOILED_SHARE`, apart from the others: a galaxy closer and brighter than the
neighbors of the population, a sky that was subtracted wrongly, a PSF of another width than the stated one, and a core that is flat without
a mask bit. The truth stays that of the target alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galbatch.simulation.light.camera import BANDS
from galbatch.simulation.light.fourier import Psf
from galbatch.simulation.light.noise import sky_sigma_njy
from galbatch.simulation.light.render import Component, draw_light

__all__ = ["NOT_SPOILED", "CloseNeighbor", "Spoiling", "draw_spoiling"]

Floats = npt.NDArray[np.float64]

SPOILED_SHARE = 0.25
"""Probability of each of the four: about a third of the stamps have none, so that a network stays as good on clean images."""

NEIGHBOR_ARCSEC = (0.8, 5.0)
"""Distance of a close neighbor: from there on surveys list sources apart; farther ones are in the population `survey` already."""
NEIGHBOR_FLUX = (0.1, 2.0)
"""Flux of a close neighbor over the target's."""
NEIGHBOR_RE_ARCSEC = (0.2, 1.2)
NEIGHBOR_N = (0.8, 4.0)
NEIGHBOR_COLOR_MAG = 0.25
"""Scatter of a close neighbor's color about the target's."""

SKY_SIGMAS = (0.05, 4.0)
"""An offset of the sky in units of the sky noise per pixel, with either sign."""

PSF_FACTOR = (0.8, 1.5)
"""Width of the PSF in the pixels over the stated one."""

FLAT_AT = (0.2, 0.9)
"""A core is cut off at this share of its brightest pixel."""


@dataclass(frozen=True, slots=True)
class CloseNeighbor:
    """A galaxy close to the target.

    Attributes
    ----------
    profile : Component
    flux_share : tuple of float
        Its flux over the target's in g, r and i.
    distance_arcsec, angle_deg : float
        Its position as seen from the target.
    """

    profile: Component
    flux_share: tuple[float, ...]
    distance_arcsec: float
    angle_deg: float


@dataclass(frozen=True, slots=True)
class Spoiling:
    """The ways in which one stamp is spoiled.

    Attributes
    ----------
    psf_factor : float
        Width of the PSF in the pixels over the stated one.
    neighbor : CloseNeighbor or None
    sky_sigmas : tuple of float
        Offset of the sky in g, r and i, in units of the sky noise per pixel.
    flat_at : float
        Pixels of the target's core end at this share of its brightest one; infinity: none does.
    """

    psf_factor: float = 1.0
    neighbor: CloseNeighbor | None = None
    sky_sigmas: tuple[float, ...] = (0.0, 0.0, 0.0)
    flat_at: float = np.inf

    def widened(self, psfs: Sequence[Psf]) -> list[Psf]:
        """Return the PSFs of the pixels, from the stated ones."""
        return [Psf(self.psf_factor * psf.fwhm_arcsec, psf.g1, psf.g2) for psf in psfs]

    def neighbor_light(
        self,
        flux_njy: Floats,
        bands: Sequence[str],
        psfs: Sequence[Psf],
        *,
        size_px: int,
        offset_px: tuple[float, float],
        pixel_scale_arcsec: float,
    ) -> Floats:
        """Return the light (band, y, x) of the close neighbor, nJy per pixel, of a target at `offset_px` with fluxes (band,)."""
        if self.neighbor is None:
            return np.zeros((len(bands), size_px, size_px))
        angle, distance = np.deg2rad(self.neighbor.angle_deg), self.neighbor.distance_arcsec
        x, y = distance / pixel_scale_arcsec * np.array([np.cos(angle), np.sin(angle)])
        share = np.array([self.neighbor.flux_share[BANDS.index(band)] for band in bands])
        return draw_light(
            [self.neighbor.profile],
            [flux_njy * share],
            psfs,
            size_px=size_px,
            offset_px=(offset_px[0] + float(x), offset_px[1] + float(y)),
            pixel_scale_arcsec=pixel_scale_arcsec,
        )

    def spoiled(self, image: Floats, band: str, *, peak_njy: float, pixel_scale_arcsec: float) -> Floats:
        """Return the image (y, x) of a band with the sky's offset, and with a flat core where the target's brightest pixel has `peak_njy`."""
        flat = np.minimum(image, self.flat_at * peak_njy)
        return flat + self.sky_sigmas[BANDS.index(band)] * sky_sigma_njy(band, pixel_scale_arcsec)


NOT_SPOILED = Spoiling()


def draw_spoiling(rng: np.random.Generator) -> Spoiling:
    """Draw what spoils a stamp. All bands are drawn, so that a band gets the same for any choice of the others."""
    has_psf, has_neighbor, has_sky, is_flat = rng.random(4) < SPOILED_SHARE
    # All numbers are drawn in any case: a change of one range leaves the others as they were.
    factor = _log_uniform(rng, PSF_FACTOR)
    neighbor = _draw_neighbor(rng)
    sigmas = _log_uniform(rng, SKY_SIGMAS) * rng.choice([-1.0, 1.0]) * rng.uniform(0.5, 1.0, len(BANDS))
    flat_at = rng.uniform(*FLAT_AT)
    return Spoiling(
        psf_factor=factor if has_psf else 1.0,
        neighbor=neighbor if has_neighbor else None,
        sky_sigmas=tuple(sigmas.tolist()) if has_sky else NOT_SPOILED.sky_sigmas,
        flat_at=flat_at if is_flat else np.inf,
    )


def _draw_neighbor(rng: np.random.Generator) -> CloseNeighbor:
    profile = Component(
        n=rng.uniform(*NEIGHBOR_N),
        re_arcsec=_log_uniform(rng, NEIGHBOR_RE_ARCSEC),
        axis_ratio=rng.uniform(0.3, 1.0),
        angle_deg=rng.uniform(0.0, 180.0),
    )
    color_mag = rng.normal(0.0, NEIGHBOR_COLOR_MAG, len(BANDS))
    share = _log_uniform(rng, NEIGHBOR_FLUX) * 10 ** (-0.4 * color_mag)
    return CloseNeighbor(
        profile, tuple(share.tolist()), rng.uniform(*NEIGHBOR_ARCSEC), rng.uniform(0.0, 360.0)
    )


def _log_uniform(rng: np.random.Generator, ends: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(*np.log(ends))))
