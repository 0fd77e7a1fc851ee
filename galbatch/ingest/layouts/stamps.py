"""Ready-made FITS stamps, a directory of them: each is one small tile.

What an HDU holds is read from EXTNAME or EXTTYPE, from MP_* cards, and else from its place (image, mask,
variance: the HSC cutout service leaves them unnamed, the last two often empty).

A catalog may lie in their folder or the one above: GaMPEN's ``info.csv`` with ``cutouts/<object_id>.fits``, or the list that was sent
to a cutout service. Stamps without a WCS take their position from it, on the central pixel (0-based index
size // 2), north up, at `pixel_scale_arcsec`. A stamp with a WCS must hold its catalog position: else stamps and
catalog were mixed up.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections import ChainMap
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from astropy.io import fits

from galbatch import storage
from galbatch.config import StampsConfig, SurveyConfig
from galbatch.core.types import FileIdentity, Tile
from galbatch.errors import TileError
from galbatch.ingest.headers import (
    Planes,
    StatedScale,
    combined_identity,
    image_scale,
    make_tile,
    parse_wcs,
)
from galbatch.ingest.layouts.afw import Name
from galbatch.ingest.layouts.hsc import BACKGROUND_OF_RELEASE, release_in
from galbatch.ingest.layouts.overrides import labeled, stated_psf_fwhm_arcsec
from galbatch.ingest.pixels import FITS_SUFFIXES, open_fits, plane_bits, require_whole_file
from galbatch.objects import read_table
from galbatch.storage import FileAccessLog

__all__ = ["StampsLayout"]

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
CATALOG_NAME = "info.csv"  # GaMPEN's


class StampsLayout:
    """Adapter of FITS stamps."""

    expects = (
        "FITS stamps, the band in BAND, FILTER, the file name (..-HSC-I-.., .._g.fits) or [survey.stamps]"
    )
    suffixes: tuple[str, ...] = FITS_SUFFIXES

    def wants(self, path: str, survey: SurveyConfig) -> bool:
        band = _band_of_name(path)
        return path.endswith(self.suffixes) and (band is None or band in survey.bands)

    def tiles_in(self, path: str, survey: SurveyConfig, files: FileAccessLog) -> list[Tile]:
        # The stamp; nothing from files of tables or of other bands.
        with open_fits(path, files) as hdus:
            planes = _planes(hdus)
            if planes is None:
                return []
            cards = ChainMap(hdus[planes.image].header, hdus[0].header)
            band = _band(cards, path, survey.stamps)
            if band not in survey.bands:
                return []
            tile = _tile(hdus, path, band=band, planes=planes, survey=survey, files=files)
            require_whole_file(hdus, path)
        release = survey.release or release_in(path)
        background = BACKGROUND_OF_RELEASE.get(release, "")
        return [labeled(tile, survey, release=release, background=background)]


def _tile(
    hdus: fits.HDUList,
    path: str,
    *,
    band: str,
    planes: Planes,
    survey: SurveyConfig,
    files: FileAccessLog,
) -> Tile:
    tile_id = PurePosixPath(path).name.split(".fits")[0]
    where = f"tile {tile_id} band {band} ({path})"
    header = hdus[planes.image].header
    found = _position_in_catalog(path, survey.stamps, files, where=where)
    if found is not None and "CTYPE1" not in header:
        header.update(_wcs_about(found[1], hdus[planes.image].shape, survey.stamps, where=where))
    cards = ChainMap(header, hdus[0].header)
    tile = make_tile(
        hdus,
        path,
        key=(tile_id, band),
        planes=planes,
        njy=image_scale(hdus, planes.image, StatedScale.of(survey, band, where)),
        psf_fwhm_arcsec=stated_psf_fwhm_arcsec(survey, band, cards),
    )
    if found is None:
        return tile
    catalog, position = found
    x, y = parse_wcs(tile.wcs_header).all_world2pix([position], 0, quiet=True)[0]
    ny, nx = tile.shape_px
    if not (-0.5 <= x <= nx - 0.5 and -0.5 <= y <= ny - 0.5):
        raise TileError(
            f"{tile.where}: its position in {catalog}, {position[0]:.6f} {position[1]:.6f}, is at pixel "
            f"({x:.1f}, {y:.1f}) of a stamp of {nx} x {ny} px; stamps and catalog do not belong together: correct "
            "[survey.stamps] file, ra, dec"
        )
    identity = combined_identity([files.identity(path), files.identity(catalog)])
    return dataclasses.replace(tile, identity=identity)


# --- the catalog of the stamps ---------------------------------------------------------------------------


def _position_in_catalog(
    path: str, config: StampsConfig, files: FileAccessLog, *, where: str
) -> tuple[str, tuple[float, float]] | None:
    """The catalog's path, and (ra, dec) of the stamp by it.

    The catalog is the one that the config names, or info.csv in the stamp's folder or the one above. None if there is
    none, or if one that the config does not name has no positions.

    Raises
    ------
    TileError
        The catalog lacks the stamp.
    """
    catalog = config.catalog
    folder = path.rpartition("/")[0]
    for place in () if catalog else (folder, folder.rpartition("/")[0]):
        if place and files.exists(storage.join(place, CATALOG_NAME)):
            catalog = storage.join(place, CATALOG_NAME)
            break
    if not catalog:
        return None
    columns = (config.file, config.ra, config.dec)
    known = _positions(catalog, columns, files.identity(catalog), bool(config.catalog))
    if not known:
        return None
    name = PurePosixPath(path).name
    if name not in known:
        raise TileError(
            f"{where}: {catalog} has no row with {config.file} = {name} and a position; add it, or exclude the stamp"
        )
    return catalog, known[name]


@functools.lru_cache(maxsize=8)
def _positions(
    catalog: str, columns: tuple[str, str, str], identity: FileIdentity, required: bool
) -> dict[str, tuple[float, float]]:
    """Position by file name; `identity` makes a changed catalog be read again."""
    if not required and not set(columns) <= set(read_table(catalog).column_names):
        return {}
    table = read_table(catalog, columns=columns)
    files, ra, dec = (table[name].to_pylist() for name in columns)
    return {
        PurePosixPath(str(file)).name: (float(a), float(d))
        for file, a, d in zip(files, ra, dec, strict=True)
        if file is not None and a is not None and d is not None
    }


def _wcs_about(
    position: tuple[float, float], shape: tuple[int, ...], config: StampsConfig, *, where: str
) -> dict[str, Any]:
    """Cards of a TAN projection, north up, with the position on the central pixel."""
    if config.pixel_scale_arcsec is None:
        raise TileError(
            f"{where}: no celestial WCS in the header; the catalog has the position, but the pixel scale is needed: "
            "[survey.stamps] pixel_scale_arcsec = .. (0.168 for HSC)"
        )
    scale_deg = config.pixel_scale_arcsec / 3600.0
    return {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": position[0],
        "CRVAL2": position[1],
        "CRPIX1": shape[-1] // 2 + 1.0,
        "CRPIX2": shape[-2] // 2 + 1.0,
        "CD1_1": -scale_deg,
        "CD1_2": 0.0,
        "CD2_1": 0.0,
        "CD2_2": scale_deg,
    }


# --- what a stamp says -----------------------------------------------------------------------------------


def _planes(hdus: fits.HDUList) -> Planes | None:
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
    names = {} if mask is None else plane_bits(hdus[mask].header)
    if "variance" in numbers:
        return Planes(numbers["image"], mask, numbers["variance"], "variance", names)
    weight = numbers.get("inverse_variance")
    return Planes(numbers["image"], mask, weight, "inverse_variance", names)


def _role(hdu: Any, after_image: int | None) -> str | None:
    """Role of an HDU; `after_image` is its place after the image, None if there is none yet."""
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
            return Name("", "", match[1]).band
    return None


def _band(cards: Mapping[str, Any], path: str, config: StampsConfig) -> str:
    """The band by BAND, else by the file name, else by FILTER's first word (DECam writes five), else by the config."""
    named = _band_of_name(path)
    words = str(cards.get("BAND") or named or cards.get("FILTER") or config.band).split()
    if not words:
        raise TileError(
            f"{path}: the band is unknown: no BAND or FILTER card, and the file name does not say it "
            "(..-HSC-I-.., .._g.fits); add the card, rename the stamp, or state [survey.stamps] band"
        )
    return Name("", "", words[0]).band if words[0].startswith(("HSC-", "NB")) else words[0]
