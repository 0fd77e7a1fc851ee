"""Values that run.toml gives where a survey's files do not: PSF width, release, background."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from galbatch.config import SurveyConfig
from galbatch.core.types import Tile

__all__ = ["labeled", "stated_psf_fwhm_arcsec"]


def stated_psf_fwhm_arcsec(survey: SurveyConfig, band: str, cards: Mapping[str, Any]) -> float:
    """Return the PSF's width by `psf_fwhm_arcsec`, else by the header card that `psf_fwhm_card` names; else NaN."""
    if band in survey.psf_fwhm_arcsec:
        return survey.psf_fwhm_arcsec[band]
    # A width of 0 or less is no measurement.
    found = cards.get(survey.psf_fwhm_card) if survey.psf_fwhm_card else None
    return float(found) if isinstance(found, int | float) and found > 0 else math.nan


def labeled(tile: Tile, survey: SurveyConfig, *, release: str = "", background: str = "") -> Tile:
    """Return the tile with release and background: those of run.toml, else those that the layout found."""
    return dataclasses.replace(
        tile, release=survey.release or release, background=survey.background or background
    )
