"""Values that run.toml gives where a survey's files do not: PSF width, bits of masks, release, background."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from astropy.io import fits

from galbatch.config import SurveyConfig
from galbatch.core.flags import MaskBit
from galbatch.core.types import Tile
from galbatch.errors import ConfigError, TileError
from galbatch.ingest.headers import with_bits
from galbatch.ingest.pixels import NONZERO, ZERO, NamedBits, maskbits, named_bits, require_bits

__all__ = ["labeled", "stated_bits", "stated_mask_planes", "stated_psf_fwhm_arcsec", "with_mask_bits"]

WORDS = {"nonzero": NONZERO, "zero": ZERO}


def stated_psf_fwhm_arcsec(survey: SurveyConfig, band: str, cards: Mapping[str, Any]) -> float:
    """Return the PSF's FWHM in arcsec: run.toml's `psf_fwhm_arcsec`, else the header card that `psf_fwhm_card` names, else NaN."""
    if band in survey.psf_fwhm_arcsec:
        return survey.psf_fwhm_arcsec[band]
    # A width of 0 or less is no measurement.
    found = cards.get(survey.psf_fwhm_card) if survey.psf_fwhm_card else None
    return float(found) if isinstance(found, int | float) and found > 0 else math.nan


def stated_mask_planes(given: Mapping[str, int] | str | None) -> dict[str, int] | None:
    """Return what a key `mask_planes` of run.toml means, as `Tile.mask_planes` has it; None if it says nothing.

    Raises
    ------
    ConfigError
        It names planes that galbatch does not have.
    """
    if given is None or isinstance(given, str):
        return None if given is None else {WORDS[given]: 0}
    known = [bit.name for bit in MaskBit]
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ConfigError(
            f"mask_planes: {', '.join(unknown)} is no mask of galbatch's; there are {', '.join(map(str, known))}"
        )
    return dict(given)


def stated_bits(given: Mapping[str, int] | str | None, header: fits.Header, where: str) -> NamedBits | None:
    """Return what a key `mask_planes` of run.toml says of the mask with this header; None if it says nothing.

    Raises
    ------
    ConfigError, TileError
        It names planes that galbatch does not have, or bits that the mask does not have.
    """
    names = stated_mask_planes(given)
    if names is None:
        return None
    require_bits(names, header, where)
    return NamedBits(names)


def with_mask_bits(tile: Tile, survey: SurveyConfig, hdus: fits.HDUList) -> Tile:
    """Return the tile with the meaning of its mask's bits: by ``[survey.generic] mask_planes``, else by the header, else by the layout.

    `hdus` are those of the mask's file.

    Raises
    ------
    TileError
        None of them says what the bits mean, or the mask does not have them.
    """
    assert tile.mask is not None
    number = hdus.index_of(tile.mask.hdu)
    header = hdus[number].header
    if (stated := stated_bits(survey.generic.mask_planes, header, tile.where)) is not None:
        return with_bits(tile, stated, hdus)
    bits = named_bits(hdus, number, tile.where)
    if not bits.names and survey.layout == "legacysurvey":
        return with_bits(tile, NamedBits(maskbits(header, tile.band)), hdus)
    if not bits.names:
        raise TileError(
            f"{tile.where}: the mask has no cards MP_* or MSKN* that name its bits; state [survey.generic] mask_planes = "
            '{SAT = 1, ..}, "nonzero" or "zero" (layout generic)'
        )
    return with_bits(tile, bits, hdus)


def labeled(tile: Tile, survey: SurveyConfig, *, release: str = "", background: str = "") -> Tile:
    """Return the tile with release and background: those of run.toml, else those that the layout found."""
    return dataclasses.replace(
        tile, release=survey.release or release, background=survey.background or background
    )
