"""Coadds as the LSST pipelines and HSC's hscPipe write them: which planes, which calibration, which tile.

A primary header, then image, mask and variance, known by EXTTYPE or EXTNAME or, unnamed, by their place; then
whatever else: archive tables (PSF, WCS, PhotoCalib), or, in cell-based coadds, MASK_FRACTIONS/.., NOISE_../..,
PSF, JSON and INDEX. Tract, patch and band come from the file name, from cards or from the JSON.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from astropy.io import fits

from galbatch.config import SurveyConfig
from galbatch.core.types import Tile
from galbatch.errors import TileError
from galbatch.ingest.headers import (
    Planes,
    StatedScale,
    image_scale,
    make_tile,
    with_cell_psf,
)
from galbatch.ingest.layouts.bands import matching_band
from galbatch.ingest.layouts.overrides import labeled, stated_psf_fwhm_arcsec
from galbatch.ingest.pixels import (
    FETCH_AGAIN,
    FITS_SUFFIXES,
    named_bits,
    open_fits,
    require_whole,
)
from galbatch.storage import FileAccessLog

__all__ = ["AfwLayout", "Name", "may_be_in_bands", "name_in_cards", "name_in_path"]

ROLES = ("IMAGE", "MASK", "VARIANCE")
PRODUCT = r"(?:calexp|(?:deep|template)_?coadd(?:_(?:calexp|predetection|cell|cell_predetection))?)"
BAND, TRACT, PATCH = r"(?P<band>[a-z][a-z0-9-]*?)", r"(?P<tract>\d+)", r"(?P<patch>\d+(?:,\d+)?)"
PATH_FORMS = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        # calexp-HSC-I-9813-4,4.fits, deepCoadd-i-4431-17.fits
        rf"(?:^|/){PRODUCT}-{BAND}-{TRACT}-{PATCH}\.fi?ts?",
        # deepCoadd_calexp_9813_40_i_<skymap>_<run>.fits, deep_coadd-10463-62-g.fits
        rf"(?:^|/){PRODUCT}[-_]{TRACT}[-_]{PATCH}[-_]{BAND}[-_.]",
        # deepCoadd/HSC-I/9813/4,4.fits
        rf"(?:^|/){PRODUCT}/{BAND}/{TRACT}/{PATCH}\.fi?ts?",
    )
)
BUTLER = "LSST BUTLER DATAID "


@dataclass(frozen=True, slots=True)
class Name:
    """The tract, patch and filter that name a coadd."""

    tract: str
    patch: str
    filter: str

    @property
    def tile_id(self) -> str:
        """The tract and patch, verbatim, as they are written into the catalog."""
        return f"{self.tract}/{self.patch}"


def name_in_path(path: str) -> Name | None:
    """Return the name of a coadd by its path; None if it is not of a known form."""
    for form in PATH_FORMS:
        match = form.search(path)
        if match is not None:
            return Name(match["tract"], match["patch"], match["band"])
    return None


def may_be_in_bands(path: str, bands: Sequence[str]) -> bool:
    """Return whether the path names no band, or one of `bands`."""
    name = name_in_path(path)
    return name is None or matching_band(name.filter, bands) is not None


def name_in_cards(hdus: fits.HDUList, path: str) -> Name | None:
    """Return the name by the cards TRACT, PATCH (or PATCH_X and PATCH_Y), BAND or FILTER, or by the JSON of a cell-based coadd.

    Raises
    ------
    TileError
        The file should have a JSON, and it cannot be read.
    """
    primary = hdus[0].header
    for header in (primary, hdus[1].header if len(hdus) > 1 else primary):
        cards = {key.removeprefix(BUTLER): header[key] for key in header if key}
        if "PATCH_X" in cards and "PATCH_Y" in cards:
            cards.setdefault("PATCH", f"{cards['PATCH_X']},{cards['PATCH_Y']}")
        found = [cards.get("TRACT"), cards.get("PATCH"), cards.get("BAND", cards.get("FILTER"))]
        if None not in found:
            return Name(*(str(value).strip() for value in found))
    if "JSONADDR" not in primary:
        return None
    try:
        trees = [json.loads(bytes(row)) for row in hdus["JSON"].data["JSON"]]
        top = dict(trees[0])
    except (KeyError, IndexError, ValueError, TypeError, OSError):
        raise TileError(
            f"{path}: tract and patch should stand in its JSON, at byte {primary['JSONADDR']}, which cannot be "
            f"read; {FETCH_AGAIN}"
        ) from None
    # The patch is a key of the tree itself, the tract one of the pixel frame of its sky projection.
    tract = next(_values_of("tract", trees), None)
    patch, band = top.get("patch"), top.get("band")
    if tract is None or not isinstance(patch, dict) or "id" not in patch or band is None:
        return None
    return Name(str(tract), str(patch["id"]), str(band))


def _values_of(key: str, tree: Any) -> Iterator[Any]:
    """Yield the values of `key` anywhere in JSON, without None."""
    if isinstance(tree, dict):
        if tree.get(key) is not None:
            yield tree[key]
        tree = list(tree.values())
    if isinstance(tree, list):
        for part in tree:
            yield from _values_of(key, part)


class AfwLayout:
    """The base of the layouts for files that the LSST pipelines write; a subclass says which files, release and background."""

    suffixes: tuple[str, ...] = FITS_SUFFIXES

    def tiles_in(self, path: str, survey: SurveyConfig, files: FileAccessLog) -> list[Tile]:
        # The patch; nothing from files that do not say tract, patch and band.
        with open_fits(path, files) as hdus:
            name = name_in_path(path) or name_in_cards(hdus, path)
            band = None if name is None else matching_band(name.filter, survey.bands)
            if name is None or band is None:
                return []
            where = f"tile {name.tile_id} band {band} ({path})"
            planes = _planes(hdus, path, where=where)
            cards = hdus[planes.image].header
            tile = make_tile(
                hdus,
                path,
                key=(name.tile_id, band),
                planes=planes,
                njy=image_scale(hdus, planes.image, StatedScale.of(survey, band, where)),
                psf_fwhm_arcsec=stated_psf_fwhm_arcsec(survey, band, cards),
            )
            if math.isnan(tile.psf_fwhm_arcsec):
                tile = with_cell_psf(tile, hdus, where)
        release, background = self.release_and_background(path, survey.release)
        return [labeled(tile, survey, release=release, background=background)]

    def release_and_background(self, path: str, stated_release: str) -> tuple[str, str]:
        """Return the data release, by run.toml or else the path, and its background product; "" where neither says it."""
        raise NotImplementedError


def _planes(hdus: fits.HDUList, path: str, *, where: str) -> Planes:
    roles: dict[str, int] = {}
    for number, hdu in enumerate(hdus):
        # afw repeated EXTTYPE = IMAGE in the empty primary HDU until 2013.
        if not hdu.is_image or len(getattr(hdu, "shape", None) or ()) != 2:
            continue
        for card in ("EXTTYPE", "EXTNAME"):
            role = str(hdu.header.get(card, "")).strip().upper()
            if role in ROLES:
                roles.setdefault(role, number)
                break
        # Coadds have hundreds of HDUs of archive behind these three, each read from the file when it is looked at.
        if len(roles) == len(ROLES) or (number == len(ROLES) and not roles):
            break
    if not roles:
        # hscPipe leaves its planes unnamed: they are known by their place after the primary HDU.
        roles = {role: place for place, role in enumerate(ROLES, start=1) if place < len(hdus)}
    missing = [role for role in ROLES if role not in roles]
    _require_images(hdus, roles, where)
    if "IMAGE" in roles:
        require_whole(hdus[roles["IMAGE"]], where=where, plane="image")
    if missing:
        raise TileError(
            f"{where}: {len(hdus)} HDUs; image, mask and variance are needed, {', '.join(missing)} not there; "
            f"{FETCH_AGAIN}"
        )
    bits = named_bits(hdus, roles["MASK"], where)
    return Planes(roles["IMAGE"], roles["MASK"], roles["VARIANCE"], "variance", bits)


def _require_images(hdus: fits.HDUList, roles: dict[str, int], where: str) -> None:
    for role, number in roles.items():
        if len(getattr(hdus[number], "shape", None) or ()) != 2:
            raise TileError(
                f"{where}: HDU {number} is no image of two axes, expected {role}; fetch the file again or exclude it"
            )
