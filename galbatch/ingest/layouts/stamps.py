"""Ready-made FITS stamps, a directory of them: each is one small tile.

What an HDU holds is read from EXTNAME or EXTTYPE, from MP_* cards, and else from its place (image, mask,
variance: the HSC cutout service leaves them unnamed, the last two often empty).
"""

from __future__ import annotations

import math
import re
from collections import ChainMap
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from astropy.io import fits

from galbatch.config import SurveyConfig
from galbatch.errors import TileError
from galbatch.ingest import headers
from galbatch.ingest.layouts.hsc import band_of_filter
from galbatch.types import Tile, njy_per_unit

__all__ = ["Stamps"]

ROLES = {
    "IMAGE": "image",
    "SCI": "image",
    "MASK": "mask",
    "MSK": "mask",
    "VARIANCE": "variance",
    "VAR": "variance",
    "WGT": "inverse_variance",
    "WEIGHT": "inverse_variance",
    "IVAR": "inverse_variance",
    "INVVAR": "inverse_variance",
}
NAME_FILTERS = (re.compile(r"[-_](HSC-[A-Z]\d?|NB\d+)[-_.]"), re.compile(r"[-_]([A-Za-z]\d?)\.fits"))
ZERO_POINT_CARDS = ("MAGZERO", "MAGZPT", "PHOTZP")
NJY_OF_BUNIT = {
    "njy": 1.0,
    "ujy": 1e3,
    "mjy": 1e6,
    "jy": 1e9,
    "nanomaggy": njy_per_unit(22.5),
    "nanomaggies": njy_per_unit(22.5),
    "nmgy": njy_per_unit(22.5),
}


class Stamps:
    """Adapter of FITS stamps."""

    expects = (
        "FITS stamps with a celestial WCS, the band in BAND, FILTER or the file name (..-HSC-I-.., .._g.fits)"
    )

    def wants(self, path: str, survey: SurveyConfig) -> bool:
        """Whether it is a FITS file and its name does not say another band."""
        band = _band_of_name(path)
        return path.endswith((".fits", ".fits.gz", ".fits.fz")) and (band is None or band in survey.bands)

    def tiles_in(self, path: str, survey: SurveyConfig) -> list[Tile]:
        """The stamp; nothing from files of tables or of other bands. See `Layout`."""
        with headers.open_fits(path) as hdus:
            planes = _planes(hdus)
            if planes is None:
                return []
            cards = ChainMap(hdus[planes.image].header, hdus[0].header)
            band = _band(cards, path)
            if band not in survey.bands:
                return []
            tile_id = PurePosixPath(path).name.split(".fits")[0]
            where = f"tile {tile_id} band {band} ({path})"
            tile = headers.make_tile(
                hdus,
                path,
                key=(tile_id, band),
                planes=planes,
                njy=_njy(cards, where),
                psf_fwhm_arcsec=survey.psf_fwhm_arcsec.get(band, math.nan),
            )
            headers.require_whole_file(hdus, path)
        return [tile]


def _planes(hdus: fits.HDUList) -> headers.Planes | None:
    """Which HDUs to read: the first image, and what of mask and weight has its shape."""
    numbers: dict[str, int] = {}
    for number, hdu in enumerate(hdus):
        shape = getattr(hdu, "shape", None) or ()
        image = numbers.get("image")
        if not hdu.is_image or len(shape) != 2 or (image is not None and shape != hdus[image].shape):
            continue
        role = _role(hdu, None if image is None else number - image)
        if role is not None:
            numbers.setdefault(role, number)
    if "image" not in numbers:
        return None
    mask = numbers.get("mask")
    names = {} if mask is None else headers.mask_planes(hdus[mask].header)
    if "variance" in numbers:
        return headers.Planes(numbers["image"], mask, numbers["variance"], "variance", names)
    weight = numbers.get("inverse_variance")
    return headers.Planes(numbers["image"], mask, weight, "inverse_variance", names)


def _role(hdu: Any, after_image: int | None) -> str | None:
    """What the HDU holds; `after_image` is its place after the image, None if there is none yet."""
    for name in (hdu.header.get("EXTTYPE"), hdu.header.get("EXTNAME")):
        if name is not None and str(name).strip().upper() in ROLES:
            return ROLES[str(name).strip().upper()]
    if any(key.startswith("MP_") for key in hdu.header):
        return "mask"
    if after_image is None:
        return "image"
    return {1: "mask", 2: "variance"}.get(after_image)


def _band_of_name(path: str) -> str | None:
    name = PurePosixPath(path).name
    for pattern in NAME_FILTERS:
        match = pattern.search(name)
        if match is not None:
            return band_of_filter(match[1])
    return None


def _band(cards: Mapping[str, Any], path: str) -> str:
    """The band by BAND, else by the file name, else by FILTER's first word (DECam writes five)."""
    named = _band_of_name(path)
    words = str(cards.get("BAND") or named or cards.get("FILTER") or "").split()
    if not words:
        raise TileError(
            f"{path}: the band is unknown: no BAND or FILTER card, and the file name does not say it "
            "(..-HSC-I-.., .._g.fits); add the card or rename the stamp"
        )
    return band_of_filter(words[0]) if words[0].startswith(("HSC-", "NB")) else words[0]


def _njy(cards: Mapping[str, Any], where: str) -> float:
    """One image unit in nJy: FLUXMAG0, a zero point card, or a calibrated BUNIT."""
    if "FLUXMAG0" in cards:
        return headers.njy_from_fluxmag0(cards, where)
    for key in ZERO_POINT_CARDS:
        if isinstance(cards.get(key), int | float):
            return njy_per_unit(float(cards[key]))
    if "FPA.ZP" in cards and float(cards.get("EXPTIME", 0.0)) > 0:
        # Pan-STARRS stacks: the zero point is that of one second.
        return njy_per_unit(float(cards["FPA.ZP"]) + 2.5 * math.log10(float(cards["EXPTIME"])))
    unit = str(cards.get("BUNIT", "")).strip().lower()
    if unit in NJY_OF_BUNIT:
        return NJY_OF_BUNIT[unit]
    raise TileError(
        f"{where}: the zero point is unknown: no FLUXMAG0 or {', '.join(ZERO_POINT_CARDS)} card, BUNIT is "
        f"{unit or 'missing'!r}; add FLUXMAG0 (image units of AB magnitude 0) or exclude the stamp"
    )
