"""Legacy Surveys cutouts as the viewer serves them: one file, an image and its inverse variance per band.

HDUs name themselves by BAND and IMAGETYP (``image``, ``invvar``); fluxes are nanomaggies, zero point 22.5.
"""

from __future__ import annotations

import math
from pathlib import PurePosixPath

from astropy.io import fits

from galbatch.config import SurveyConfig
from galbatch.ingest import headers
from galbatch.types import Tile, njy_per_unit

__all__ = ["LegacySurvey"]

NANOMAGGY_ZERO_POINT = 22.5


class LegacySurvey:
    """Adapter of the viewer's files."""

    expects = "FITS files with an image and an invvar HDU for each band (cards BAND and IMAGETYP)"

    def wants(self, path: str, survey: SurveyConfig) -> bool:
        """Whether it is a FITS file: names are free, bands are in the headers."""
        return path.endswith((".fits", ".fits.gz", ".fits.fz"))

    def tiles_in(self, path: str, survey: SurveyConfig) -> list[Tile]:
        """One tile a band; none from files without IMAGETYP, such as the viewer's PSFs. See `Layout`."""
        with headers.open_fits(path) as hdus:
            found = _planes_by_band(hdus)
            tiles = [
                headers.make_tile(
                    hdus,
                    path,
                    key=(_tile_id(hdus[planes.image].header, path), band),
                    planes=planes,
                    njy=njy_per_unit(NANOMAGGY_ZERO_POINT),
                    psf_fwhm_arcsec=survey.psf_fwhm_arcsec.get(band, math.nan),
                )
                for band, planes in found.items()
                if band in survey.bands
            ]
            headers.require_whole_file(hdus, path)
        return tiles


def _tile_id(header: fits.Header, path: str) -> str:
    """Brick and file: several cutouts may come from one brick."""
    stem = PurePosixPath(path).name.split(".fits")[0]
    return f"{header['BRICK']}/{stem}" if "BRICK" in header else stem


def _planes_by_band(hdus: fits.HDUList) -> dict[str, headers.Planes]:
    numbers: dict[tuple[str, str], int] = {}
    for number, hdu in enumerate(hdus):
        kind, band = hdu.header.get("IMAGETYP"), hdu.header.get("BAND")
        if kind is not None and band is not None:
            numbers[str(band).strip(), str(kind).strip()] = number
    return {
        band: headers.Planes(number, weight=numbers.get((band, "invvar")), weight_kind="inverse_variance")
        for (band, kind), number in numbers.items()
        if kind == "image"
    }
