"""Light of galaxies with known truth, to be added to cutouts of other surveys: profiles as simulated, with the PSF width of the tile."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from galbatch.core.types import Grid
from galbatch.errors import UsageError
from galbatch.simulation.light.camera import BANDS
from galbatch.simulation.light.fourier import Psf
from galbatch.simulation.stamps import draw_galaxy

__all__ = ["BandLight", "InjectedLight", "with_survey_bands"]

STATED = re.compile(rf"({'|'.join(BANDS)})([+-]\d+(?:\.\d*)?|[+-]\.\d+)?")


@dataclass(frozen=True, slots=True)
class BandLight:
    """The brightness of galaxies in a band of a survey: that in a band of the simulation, but for a number of magnitudes.

    Attributes
    ----------
    simulated : band of the simulation
    offset_mag : magnitude in the survey's band less that in the simulation's, of every component of every galaxy
    """

    simulated: str
    offset_mag: float = 0.0

    @classmethod
    def of_name(cls, band: str) -> Self | None:
        """Return the light in a survey's band by the last part of its name (``hsc_g`` is g); None if that is none of g, r and i."""
        name = band.rpartition("_")[2].lower()
        return cls(name) if name in BANDS else None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the light that a text states: ``i-0.2`` is 0.2 mag brighter than in i.

        Raises
        ------
        UsageError
            It is no such text.
        """
        found = STATED.fullmatch(text.replace(" ", ""))
        if found is None:
            raise UsageError(
                f"--band: {text!r}: expected one of {', '.join(BANDS)} and a number of magnitudes, such as i-0.2"
            )
        return cls(found[1], float(found[2] or 0))


def with_survey_bands(truth: pa.Table, bands: Mapping[str, BandLight]) -> pa.Table:
    """Return a truth table with fluxes, magnitudes and the components' fluxes in a survey's bands, too.

    Parameters
    ----------
    truth : pyarrow.Table
        As from `draw_population`, with the bands that `bands` refer to.
    bands : mapping of str to BandLight
        By the survey's names; those that the truth has already are left as they are.
    """
    for band, light in bands.items():
        factor = pa.scalar(10 ** (-0.4 * light.offset_mag))
        columns = {
            f"flux_{band}_njy": pc.multiply(truth.column(f"flux_{light.simulated}_njy"), factor),
            f"mag_{band}": pc.add(truth.column(f"mag_{light.simulated}"), light.offset_mag),
        }
        for part in ("disk", "bulge"):
            flux = truth.column(f"{part}_flux_{light.simulated}_njy")
            columns[f"{part}_flux_{band}_njy"] = pc.multiply(flux, factor)
        for name, values in columns.items():
            if name not in truth.column_names:
                truth = truth.append_column(name, values)
    return truth


@dataclass(frozen=True)
class InjectedLight:
    """The galaxies that are added to the cutouts of objects.

    Attributes
    ----------
    truth : a row for each galaxy, as `with_survey_bands` returns them, whose ``object_id`` is that of the object
    electrons_per_njy : electrons counted for one nJy, by the survey's band; they go before those of the tiles
    """

    truth: pa.Table
    electrons_per_njy: Mapping[str, float] = field(default_factory=dict)

    def of(self, object_id: npt.NDArray[np.int64]) -> InjectedLight:
        """Return the light of some of the objects."""
        chosen = pc.is_in(self.truth.column("object_id"), pa.array(object_id))
        return replace(self, truth=self.truth.filter(chosen))

    @property
    def key(self) -> int:
        """A digest of all galaxies, by which pixels with their light differ from those without."""
        text = repr((self.truth.to_pydict(), sorted(self.electrons_per_njy.items())))
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
        grid: Grid,
        offset_px: tuple[float, float],
    ) -> npt.NDArray[np.float64]:
        """Return the light of an object's galaxy.

        Parameters
        ----------
        object_id : id of the object
        bands : bands of the survey
        psf_fwhm_arcsec : (band,) float32, the PSF's width at the object
        grid : grid of the cutout
        offset_px : (x, y) of the object, from the center of pixel (size_px // 2, size_px // 2)

        Returns
        -------
        (band, y, x) float64, nJy per pixel, without noise; NaN where the PSF's width is not known
        """
        known = np.isfinite(psf_fwhm_arcsec)
        light = np.full((len(bands), grid.size_px, grid.size_px), np.nan)
        if known.any():
            light[known] = draw_galaxy(
                self._rows[object_id],
                [band for band, is_known in zip(bands, known, strict=True) if is_known],
                [Psf(float(width)) for width in psf_fwhm_arcsec[known]],
                size_px=grid.size_px,
                offset_px=offset_px,
                pixel_scale_arcsec=grid.pixel_scale_arcsec,
            )
        return light

    def photon_noise(
        self,
        object_id: int,
        bands: Sequence[str],
        light_njy: npt.NDArray[np.float64],
        *,
        electrons_per_njy: Sequence[float],
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the noise that the photons of a galaxy add, and its variance.

        Parameters
        ----------
        object_id : id of the object, from which the noise follows
        bands : bands of the survey
        light_njy : (band, y, x) float64, nJy per pixel
        electrons_per_njy : of each band, as the tile states it; NaN if it does not

        Returns
        -------
        noise : (band, y, x) float64, nJy; 0 in bands of which neither user nor tile say how many electrons a nJy is
        variance : (band, y, x) float64, nJy^2
        """
        noise, variance = np.zeros_like(light_njy), np.zeros_like(light_njy)
        for index, (band, of_tile) in enumerate(zip(bands, electrons_per_njy, strict=True)):
            electrons = self.electrons_per_njy.get(band, of_tile)
            if np.isfinite(electrons):
                # A generator for each band, so that the noise does not depend on the other bands.
                rng = np.random.default_rng([object_id, zlib.crc32(band.encode())])
                # Photons are Poisson-distributed, which hundreds of electrons a pixel make normal; the simulation does the same.
                variance[index] = np.maximum(light_njy[index], 0) / electrons
                noise[index] = rng.standard_normal(light_njy[index].shape) * np.sqrt(variance[index])
        return noise, variance
