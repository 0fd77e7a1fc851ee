"""Light of galaxies with known truth, to be added to cutouts of other surveys: profiles as simulated, with the PSF width of the tile."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from galbatch.simulation.light.camera import BANDS
from galbatch.simulation.light.fourier import Psf
from galbatch.simulation.stamps import draw_galaxy

__all__ = ["InjectedLight", "simulated_band"]


def simulated_band(band: str) -> str | None:
    """Return the simulation's band that a survey's band is, by the last part of its name (``hsc_g`` is g); None if it is none of g, r and i."""
    name = band.rpartition("_")[2].lower()
    return name if name in BANDS else None


@dataclass(frozen=True)
class InjectedLight:
    """The galaxies that are added to the cutouts of objects.

    Attributes
    ----------
    truth : a row for each galaxy, as `draw_population` returns them, whose ``object_id`` is that of the object
    bands : the simulation's band of each band of the survey
    """

    truth: pa.Table
    bands: Mapping[str, str]

    def of(self, object_id: npt.NDArray[np.int64]) -> InjectedLight:
        """Return the light of some of the objects."""
        chosen = pc.is_in(self.truth.column("object_id"), pa.array(object_id))
        return replace(self, truth=self.truth.filter(chosen))

    @property
    def key(self) -> int:
        """A digest of all galaxies, by which pixels with their light differ from those without."""
        text = repr((self.truth.to_pydict(), sorted(self.bands.items())))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)

    @cached_property
    def _rows(self) -> dict[int, Mapping[str, Any]]:
        return {row["object_id"]: row for row in self.truth.to_pylist()}

    def image(
        self,
        object_id: int,
        bands: Sequence[str],
        psf_fwhm_arcsec: npt.NDArray[np.float32],
        *,
        size_px: int,
        offset_px: tuple[float, float],
        pixel_scale_arcsec: float,
    ) -> npt.NDArray[np.float64]:
        """Return the light of an object's galaxy.

        Parameters
        ----------
        object_id : id of the object
        bands : bands of the survey
        psf_fwhm_arcsec : (band,) float32, the PSF's width at the object
        size_px, pixel_scale_arcsec : grid of the cutout
        offset_px : (x, y) of the object, from the center of pixel (size_px // 2, size_px // 2)

        Returns
        -------
        (band, y, x) float64, nJy per pixel, without noise; NaN where the PSF's width is not known
        """
        known = np.isfinite(psf_fwhm_arcsec)
        light = np.full((len(bands), size_px, size_px), np.nan)
        if known.any():
            light[known] = draw_galaxy(
                self._rows[object_id],
                [self.bands[band] for band, is_known in zip(bands, known, strict=True) if is_known],
                [Psf(float(width)) for width in psf_fwhm_arcsec[known]],
                size_px=size_px,
                offset_px=offset_px,
                pixel_scale_arcsec=pixel_scale_arcsec,
            )
        return light
