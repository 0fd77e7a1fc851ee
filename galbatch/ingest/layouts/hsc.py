"""HSC coadds of PDR2 and PDR3: one calexp file for each patch and band.

``deepCoadd-results/HSC-<B>/<tract>/<x,y>/calexp-HSC-<B>-<tract>-<x,y>.fits``: a primary header with
FLUXMAG0, then image, mask (plane names in MP_* cards) and variance; archive tables that follow are ignored.
"""

from __future__ import annotations

import math
import re

from astropy.io import fits

from galbatch.config import SurveyConfig
from galbatch.errors import TileError
from galbatch.ingest import headers
from galbatch.types import Tile

__all__ = ["Hsc", "band_of_filter"]

NAME = re.compile(
    r"calexp-(?P<filter>HSC-[A-Z]+\d?|NB\d+)-(?P<tract>\d+)-(?P<patch>\d+,\d+)\.fits(\.gz|\.fz)?$"
)
IMAGE, MASK, VARIANCE = 1, 2, 3


def band_of_filter(name: str) -> str:
    """The band's short name: HSC-G is g; HSC-R and its replacement HSC-R2 are r; NB0387 is nb0387."""
    return re.sub(r"^HSC-([A-Z])2?$", r"\1", name).lower()


class Hsc:
    """Adapter of calexp patches."""

    expects = "calexp-HSC-<B>-<tract>-<x,y>.fits"

    def wants(self, path: str, survey: SurveyConfig) -> bool:
        """Whether the name is a calexp's, in one of the survey's bands."""
        match = NAME.search(path)
        return match is not None and band_of_filter(match["filter"]) in survey.bands

    def tiles_in(self, path: str, survey: SurveyConfig) -> list[Tile]:
        """The patch; see `Layout`."""
        match = NAME.search(path)
        if match is None:
            raise TileError(f"{path}: is not named {self.expects}")
        tile_id, band = f"{match['tract']}/{match['patch']}", band_of_filter(match["filter"])
        where = f"tile {tile_id} band {band} ({path})"
        with headers.open_fits(path) as hdus:
            planes = _planes(hdus, path, where=where)
            tile = headers.make_tile(
                hdus,
                path,
                key=(tile_id, band),
                planes=planes,
                njy=headers.njy_from_fluxmag0(hdus[0].header, where),
                psf_fwhm_arcsec=survey.psf_fwhm_arcsec.get(band, math.nan),
            )
        return [tile]


def _planes(hdus: fits.HDUList, path: str, *, where: str) -> headers.Planes:
    try:
        headers.require_whole(hdus[IMAGE], where=where, plane="image", size_bytes=headers.file_size(path))
        names = headers.mask_planes(hdus[MASK].header)
        hdus[VARIANCE]
    except IndexError:
        raise TileError(
            f"{where}: {len(hdus)} HDUs; primary, image, mask and variance are needed; the file is probably "
            "truncated: fetch it again or exclude the tile"
        ) from None
    return headers.Planes(IMAGE, MASK, VARIANCE, "variance", names)
