"""Legacy Surveys: bricks of the data releases, and cutouts as the viewer serves them.

Bricks: ``coadd/<AAA>/<brick>/legacysurvey-<brick>-image-<band>.fits.fz``, beside it ``..-invvar-<band>..``,
``..-psfsize-<band>..`` (PSF FWHM in arcsec) and ``legacysurvey-<brick>-maskbits..``; the data are in HDU 1. Where there
is no invvar, ``..-nexp-<band>..`` (number of exposures) says which pixels have data. A sibling that is not there is done without; one that cannot be read is an error. Viewer: HDUs name themselves by
BAND and IMAGETYP (``image``, ``invvar``), or are cubes whose planes are the bands of BANDS, with ``INVVAR`` and
``MASKBITS`` behind them where they were asked for. Fluxes are nanomaggies, zero point 22.5.

Of maskbits, a band's own SATUR (saturated) and ALLMASK (bad in all exposures) count, and for all bands BRIGHT and
MEDIUM (near a bright star) and CLUSTER (in a globular cluster), which become BRIGHT_OBJECT. NPRIMARY, GALAXY,
BAILOUT and SUB_BLOB say how the catalog was made, not that a pixel is bad. Bit numbers are those of DR9 and DR10;
cards ``BITNM<n>`` = name in the file go before them. The sky is a spline per CCD ("spline sky").
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from astropy.io import fits

from galbatch.config import SurveyConfig
from galbatch.core.types import Tile
from galbatch.errors import TileError
from galbatch.ingest.headers import Planes, StatedScale, add_plane, image_scale, make_tile
from galbatch.ingest.layouts.bands import matching_band
from galbatch.ingest.layouts.overrides import labeled, stated_psf_fwhm_arcsec
from galbatch.ingest.pixels import (
    FETCH_AGAIN,
    FITS_SUFFIXES,
    NO_BITS,
    NamedBits,
    first_image,
    maskbits,
    open_fits,
    require_whole_file,
    stem_of,
)
from galbatch.storage import FileAccessLog

__all__ = ["LegacySurveyLayout", "release_in"]

BACKGROUND = "spline sky"

BRICK_FILE = re.compile(
    r"legacysurvey-(?P<brick>\d{4}[mp]\d{3})-(?P<kind>[a-z0-9]+)(?:-(?P<band>[A-Za-z0-9]+))?\.fi?ts?(?:\.fz|\.gz|\.bz2)?$",
    re.IGNORECASE,
)
RELEASE = re.compile(r"(?<![a-z0-9])dr(\d{1,2})(?![0-9])", re.IGNORECASE)
RELEASE_CARDS = ("DRVERSIO", "SURVEYDR", "VERSION")


def release_in(path: str, cards: Mapping[str, Any]) -> str:
    """Return the release, such as ``dr9``, by the path or by DRVERSIO (DR9, or 9012), SURVEYDR or VERSION (DR9-south); else ""."""
    found = RELEASE.findall(path)
    if found:
        return f"dr{found[-1]}"
    for card in RELEASE_CARDS:
        text = str(cards.get(card, ""))
        match = RELEASE.search(text) or re.fullmatch(r"(\d{1,2})\d{3}", text)
        if match is not None:
            return f"dr{match[1]}"
    return ""


class LegacySurveyLayout:
    """Adapter of bricks and of the viewer's files."""

    expects = (
        "legacysurvey-<brick>-image-<band>.fits.fz, or FITS files with an image and an invvar HDU for each band "
        "(cards BAND and IMAGETYP), or cubes (card BANDS)"
    )
    suffixes: tuple[str, ...] = FITS_SUFFIXES

    def wants(self, path: str, survey: SurveyConfig) -> bool:
        match = BRICK_FILE.search(path)
        if match is not None:
            return match["kind"] == "image" and matching_band(match["band"], survey.bands) is not None
        return True

    def tiles_in(self, path: str, survey: SurveyConfig, files: FileAccessLog) -> list[Tile]:
        # One tile a band; none from files without IMAGETYP, such as the viewer's PSFs.
        match = BRICK_FILE.search(path)
        with open_fits(path, files) as hdus:
            if match is None:
                tiles = _viewer_tiles(hdus, path, survey)
                require_whole_file(hdus, path)
                return tiles
            # In names of files the band is written as in the image's, in the tile as in run.toml.
            brick, named = match["brick"], match["band"]
            band = matching_band(named, survey.bands)
            number = first_image(hdus)
            if number is None or band is None:
                raise TileError(f"tile {brick} band {named} ({path}): no HDU has an image; {FETCH_AGAIN}")
            tile = _tile(hdus, path, key=(brick, band), planes=Planes(number), survey=survey)
        weight = _sibling(path, brick, f"invvar-{named}", files)
        if weight is not None:
            tile = dataclasses.replace(tile, weight_kind="inverse_variance")
            tile = add_plane(tile, "weight", weight, files)
        elif (exposures := _sibling(path, brick, f"nexp-{named}", files)) is not None:
            # Without the weights it still says where there are no data.
            tile = dataclasses.replace(tile, weight_kind="coverage")
            tile = add_plane(tile, "weight", exposures, files)
        psf = _sibling(path, brick, f"psfsize-{named}", files)
        if psf is not None:
            tile = add_plane(tile, "psf", psf, files)
        mask = _sibling(path, brick, "maskbits", files)
        if mask is not None:
            tile = add_plane(tile, "mask", mask, files)
            with open_fits(mask, files) as hdus:
                # `add_plane` has found the HDU with the image, which in compressed files is not the first.
                assert tile.mask is not None
                bits = maskbits(hdus[tile.mask.hdu].header, named)
            tile = dataclasses.replace(tile, mask_planes=bits)
        return [tile]


def _sibling(image: str, brick: str, kind: str, files: FileAccessLog) -> str | None:
    """Return the path of the brick's file of this kind, which may be compressed in another way than the image; None: there is none."""
    folder, name = image.rsplit("/", 1)
    suffix = name.partition(".")[2]
    for ending in dict.fromkeys([suffix, "fits.fz", "fits", "fits.gz"]):
        path = f"{folder}/legacysurvey-{brick}-{kind}.{ending}"
        if files.exists(path):
            return path
    return None


def _viewer_tiles(hdus: fits.HDUList, path: str, survey: SurveyConfig) -> list[Tile]:
    """Return the tiles of a viewer's cutout: one for each band, of an HDU of its own or of a plane in a cube."""
    numbers = _viewer_planes(hdus)
    tiles = []
    for (kind, named), (number, index) in numbers.items():
        band = matching_band(named, survey.bands) if kind == "image" else None
        if band is None:
            continue
        cards = hdus[number].header
        # Several cutouts may come from one brick: the file's name tells them apart.
        tile_id = f"{cards['BRICK']}/{stem_of(path)}" if "BRICK" in cards else stem_of(path)
        mask = numbers.get(("maskbits", ""), (None, ()))[0]
        planes = Planes(
            number,
            mask=mask,
            bits=NO_BITS if mask is None else NamedBits(maskbits(hdus[mask].header, named)),
            weight=numbers.get(("invvar", named), (None, ()))[0],
            weight_kind="inverse_variance",
            index=index,
        )
        tiles.append(_tile(hdus, path, key=(tile_id, band), planes=planes, survey=survey))
    return tiles


def _viewer_planes(hdus: fits.HDUList) -> dict[tuple[str, str], tuple[int, tuple[int, ...]]]:
    """Return the HDU and the place on its first axis by (kind, band); maskbits are of no band.

    HDUs are known by their cards, not by their order.
    """
    found: dict[tuple[str, str], tuple[int, tuple[int, ...]]] = {}
    for number, hdu in enumerate(hdus):
        cards, shape = hdu.header, getattr(hdu, "shape", None) or ()
        # Cutouts without IMAGETYP have BANDS; the viewer's PSFs have BAND, too.
        kind = cards.get("IMAGETYP", "image" if "BANDS" in cards and "BAND" not in cards else None)
        if kind is None or not hdu.is_image or len(shape) < 2:
            continue
        kind = str(kind).strip().lower()
        if kind == "maskbits":
            found[kind, ""] = (number, ())
        elif "BAND" in cards:
            found[kind, str(cards["BAND"]).strip()] = (number, ())
        else:
            for place, band in enumerate(_bands_of_cube(cards)):
                found[kind, band] = (number, (place,) if len(shape) > 2 else ())
    return found


def _bands_of_cube(cards: Mapping[str, Any]) -> list[str]:
    """Return the bands in the order of a cube's planes, by BAND0, BAND1 .. or by BANDS, of which each letter is one."""
    numbered = [str(cards[f"BAND{place}"]).strip() for place in range(10) if f"BAND{place}" in cards]
    written = str(cards.get("BANDS", "")).strip()
    return numbered or (re.split(r"[\s,]+", written) if re.search(r"[\s,]", written) else list(written))


def _tile(
    hdus: fits.HDUList, path: str, *, key: tuple[str, str], planes: Planes, survey: SurveyConfig
) -> Tile:
    cards = hdus[planes.image].header
    where = f"tile {key[0]} band {key[1]} ({path})"
    tile = make_tile(
        hdus,
        path,
        key=key,
        planes=planes,
        njy=image_scale(hdus, planes.image, StatedScale.of(survey, key[1], where, layout_unit="nanomaggy")),
        psf_fwhm_arcsec=stated_psf_fwhm_arcsec(survey, key[1], cards),
    )
    # The path and the image's own cards go before the primary header.
    release = release_in(path, cards) or release_in("", hdus[0].header)
    return labeled(tile, survey, release=release, background=BACKGROUND)
