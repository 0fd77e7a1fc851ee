"""What run.toml states of a survey where its files do not: zero point, PSF width, release, background."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from galbatch.config import SurveyConfig
from galbatch.core.types import AB_ZERO_POINT_NJY, Tile, njy_per_unit
from galbatch.errors import TileError

__all__ = ["labelled", "njy", "psf_fwhm_arcsec", "zero_point_njy"]

# Files and run.toml may round the zero point to 4 digits.
SAME_ZERO_POINT_MAG = 1e-3


def zero_point_njy(survey: SurveyConfig, band: str) -> float | None:
    """One image unit in nJy, as `zero_point_mag` says; None if it says nothing of the band."""
    stated = survey.zero_point_mag
    magnitude = stated.get(band) if isinstance(stated, dict) else stated
    return None if magnitude is None else njy_per_unit(magnitude)


def njy(found: float | None, survey: SurveyConfig, band: str, *, where: str, missing: str) -> float:
    """One image unit in nJy: what the file says (`found`), or else run.toml.

    Raises
    ------
    TileError
        Neither says it (`missing` tells what was looked for), or they contradict one another.
    """
    stated = zero_point_njy(survey, band)
    if found is None:
        if stated is None:
            raise TileError(
                f"{where}: the zero point is unknown: {missing}, or state it: [survey] zero_point_mag = {{{band} = ..}}"
            )
        return stated
    if stated is not None and abs(2.5 * math.log10(found / stated)) > SAME_ZERO_POINT_MAG:
        theirs, ours = (AB_ZERO_POINT_NJY - 2.5 * math.log10(value) for value in (found, stated))
        raise TileError(
            f"{where}: the file says zero point {theirs:.4f}, [survey] zero_point_mag {ours:.4f}; "
            "take zero_point_mag out, or correct it"
        )
    return found


def psf_fwhm_arcsec(survey: SurveyConfig, band: str, cards: Mapping[str, Any]) -> float:
    """Width of the PSF by `psf_fwhm_arcsec`, else by the header card that `psf_fwhm_card` names; else NaN."""
    if band in survey.psf_fwhm_arcsec:
        return survey.psf_fwhm_arcsec[band]
    found = cards.get(survey.psf_fwhm_card) if survey.psf_fwhm_card else None
    return float(found) if isinstance(found, int | float) and found > 0 else math.nan


def labelled(tile: Tile, survey: SurveyConfig, *, release: str = "", background: str = "") -> Tile:
    """The tile with release and background: those of run.toml, else those that the layout found."""
    return dataclasses.replace(
        tile, release=survey.release or release, background=survey.background or background
    )
