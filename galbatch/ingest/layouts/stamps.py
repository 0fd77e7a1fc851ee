"""Ready-made FITS stamps, a directory of them: each is one small tile.

What an HDU holds is read from EXTNAME or EXTTYPE, from MP_* cards, and else from its place (image, mask,
variance: the HSC cutout service leaves them unnamed, the last two often empty).

A catalog may stand beside them: GaMPEN's ``info.csv`` with ``cutouts/<object_id>.fits``, or the list that was sent
to a cutout service. Stamps without a WCS take their position from it, on the central pixel (0-based index
size // 2), north up, at `pixel_scale_arcsec`. A stamp with a WCS must hold its catalog position: else stamps and
catalog were mixed up.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections import ChainMap
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from astropy.io import fits

from galbatch import storage
from galbatch.config import StampsConfig, SurveyConfig
from galbatch.core.types import FileIdentity, Tile, njy_per_unit
from galbatch.errors import TileError
from galbatch.ingest import headers
from galbatch.ingest.headers import lattice
from galbatch.ingest.layouts import stated
from galbatch.ingest.layouts.afw import Name
from galbatch.ingest.layouts.hsc import BACKGROUND_OF_RELEASE, release_in
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
ZERO_POINT_CARDS = ("MAGZERO", "MAGZPT", "PHOTZP")
CATALOG_NAME = "info.csv"  # GaMPEN's


class StampsLayout:
    """Adapter of FITS stamps."""

    expects = (
        "FITS stamps, the band in BAND, FILTER, the file name (..-HSC-I-.., .._g.fits) or [survey.stamps]"
    )
    suffixes: tuple[str, ...] = headers.FITS_SUFFIXES

    def wants(self, path: str, survey: SurveyConfig) -> bool:
        """Whether it is a FITS file and its name does not say another band."""
        band = _band_of_name(path)
        return path.endswith(self.suffixes) and (band is None or band in survey.bands)

    def tiles_in(self, path: str, survey: SurveyConfig, files: FileAccessLog) -> list[Tile]:
        """The stamp; nothing from files of tables or of other bands. See `Layout`."""
        with headers.open_fits(path, files) as hdus:
            planes = _planes(hdus)
            if planes is None:
                return []
            cards = ChainMap(hdus[planes.image].header, hdus[0].header)
            band = _band(cards, path, survey.stamps)
            if band not in survey.bands:
                return []
            tile = _tile(hdus, path, band=band, planes=planes, survey=survey, files=files)
            headers.require_whole_file(hdus, path)
        release = survey.release or release_in(path)
        background = BACKGROUND_OF_RELEASE.get(release, "")
        return [stated.labelled(tile, survey, release=release, background=background)]


def _tile(
    hdus: fits.HDUList,
    path: str,
    *,
    band: str,
    planes: headers.Planes,
    survey: SurveyConfig,
    files: FileAccessLog,
) -> Tile:
    tile_id = PurePosixPath(path).name.split(".fits")[0]
    where = f"tile {tile_id} band {band} ({path})"
    header = hdus[planes.image].header
    catalog = _catalog_path(path, survey.stamps, files)
    position = None if catalog is None else _position(catalog, path, survey.stamps, files, where=where)
    if position is not None and "CTYPE1" not in header:
        header.update(_wcs_about(position, hdus[planes.image].shape, survey.stamps, where=where))
    cards = ChainMap(header, hdus[0].header)
    tile = headers.make_tile(
        hdus,
        path,
        key=(tile_id, band),
        planes=planes,
        njy=stated.njy(_njy(cards), survey, band, where=where, missing=_missing(cards)),
        psf_fwhm_arcsec=stated.psf_fwhm_arcsec(survey, band, cards),
    )
    if catalog is None or position is None:
        return tile
    _require_inside(tile, position, catalog)
    identity = headers.combined_identity([files.identity(path), files.identity(catalog)])
    return dataclasses.replace(tile, identity=identity)


# --- the catalog beside the stamps -----------------------------------------------------------------------


def _catalog_path(path: str, config: StampsConfig, files: FileAccessLog) -> str | None:
    """The catalog that the config names, or info.csv in the stamp's folder or the one above."""
    if config.catalog:
        return config.catalog
    folder = path.rpartition("/")[0]
    for place in (folder, folder.rpartition("/")[0]):
        if place and files.exists(storage.join(place, CATALOG_NAME)):
            return storage.join(place, CATALOG_NAME)
    return None


def _position(
    catalog: str, path: str, config: StampsConfig, files: FileAccessLog, *, where: str
) -> tuple[float, float] | None:
    """(ra, dec) of the stamp by the catalog; None if a catalog that nobody named has no positions.

    Raises
    ------
    TileError
        The catalog lacks the stamp.
    """
    columns = (config.file, config.ra, config.dec)
    known = _positions(catalog, columns, files.identity(catalog), bool(config.catalog))
    if not known:
        return None
    name = PurePosixPath(path).name
    if name not in known:
        raise TileError(
            f"{where}: {catalog} has no row with {config.file} = {name} and a position; add it, or exclude the stamp"
        )
    return known[name]


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


def _require_inside(tile: Tile, position: tuple[float, float], catalog: str) -> None:
    x, y = lattice.parse_wcs(tile.wcs_header).all_world2pix([position], 0, quiet=True)[0]
    ny, nx = tile.shape_px
    if not (-0.5 <= x <= nx - 0.5 and -0.5 <= y <= ny - 0.5):
        raise TileError(
            f"{tile.where}: its position in {catalog}, {position[0]:.6f} {position[1]:.6f}, is at pixel "
            f"({x:.1f}, {y:.1f}) of a stamp of {nx} x {ny} px; stamps and catalog do not belong together: correct "
            "[survey.stamps] file, ra, dec"
        )


# --- what a stamp says -----------------------------------------------------------------------------------


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


def _njy(cards: Mapping[str, Any]) -> float | None:
    """One image unit in nJy: FLUXMAG0, a zero point card, or a calibrated BUNIT; None if nothing says it."""
    if "FLUXMAG0" in cards:
        return headers.njy_of_fluxmag0(cards)
    for key in ZERO_POINT_CARDS:
        if isinstance(cards.get(key), int | float):
            return njy_per_unit(float(cards[key]))
    if "FPA.ZP" in cards and float(cards.get("EXPTIME", 0.0)) > 0:
        # Pan-STARRS stacks: the zero point is that of one second.
        return njy_per_unit(float(cards["FPA.ZP"]) + 2.5 * math.log10(float(cards["EXPTIME"])))
    return headers.njy_of_unit(cards.get("BUNIT"))


def _missing(cards: Mapping[str, Any]) -> str:
    unit = str(cards.get("BUNIT", "missing")).strip()
    return (
        f"no FLUXMAG0 or {', '.join(ZERO_POINT_CARDS)} card, BUNIT is {unit!r}; add FLUXMAG0 (image units of AB "
        "magnitude 0), exclude the stamp"
    )
