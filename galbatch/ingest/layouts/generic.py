"""Any FITS images with a celestial WCS: [survey.generic] says which HDU holds what, and what its numbers mean.

Bands come as files (known by their names, with `pattern`), as HDUs (`image` is a table) or on the first axis of a cube
(`axis`). Mask and weight are HDUs of the same file or of another one (`mask_replace`, `weight_replace`). The scale
of pixels is found as in all layouts (`headers.image_scale`); `unit` stands for a BUNIT that the files lack,
`zero_point_card` for the cards that hold zero points, and `zero_point_mag` of [survey] goes before that card.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal, TypeVar

from astropy.io import fits

from galbatch.config import SurveyConfig
from galbatch.core.types import Tile
from galbatch.errors import ConfigError, TileError
from galbatch.ingest.headers import (
    Planes,
    StatedScale,
    add_plane,
    image_scale,
    make_tile,
)
from galbatch.ingest.layouts.bands import band_in_name, band_statements, matching_band
from galbatch.ingest.layouts.overrides import labeled, stated_psf_fwhm_arcsec, with_mask_bits
from galbatch.ingest.pixels import (
    FETCH_AGAIN,
    FITS_SUFFIXES,
    first_image,
    hdu_at,
    n_moved_by_fpack,
    open_fits,
    require_whole_file,
    stem_of,
)
from galbatch.storage import FileAccessLog

__all__ = ["GenericLayout"]

Cards = Mapping[str, Any]
T = TypeVar("T")
Role = Literal["mask", "weight"]


class GenericLayout:
    """Adapter of FITS images as the config describes them."""

    expects = "FITS images that [survey.generic] describes"
    suffixes: tuple[str, ...] = FITS_SUFFIXES

    def wants(self, path: str, survey: SurveyConfig) -> bool:
        config, name = survey.generic, PurePosixPath(path).name
        # A mask or weight file of some image has the new text in its name, and not the image's.
        pairs = (config.mask_replace, config.weight_replace)
        is_plane = any(pair is not None and pair[1] in name and pair[0] not in name for pair in pairs)
        if is_plane or not config.pattern:
            return not is_plane
        match = _pattern(config.pattern).search(path)
        return match is not None and _named_band(match, survey.bands) is not None

    def tiles_in(self, path: str, survey: SurveyConfig, files: FileAccessLog) -> list[Tile]:
        # One tile for each of the survey's bands that the file holds.
        with open_fits(path, files) as hdus:
            tiles = [_tile(hdus, path, band=band, survey=survey) for band in _bands(hdus, path, survey)]
            require_whole_file(hdus, path)
        masked = [_with_plane(tile, "mask", survey, files) for tile in tiles]
        return [_with_plane(tile, "weight", survey, files) for tile in masked]


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ConfigError(f"[survey.generic] pattern = {text!r} is no regular expression: {error}") from None


def _bands(hdus: fits.HDUList, path: str, survey: SurveyConfig) -> list[str]:
    """Return the survey's bands in the file: by tables of HDUs or of places, by the name, by cards, or the only band there is."""
    config = survey.generic
    for table in (config.image, config.axis):
        if isinstance(table, dict) and table:
            return [band for band in survey.bands if _of_band(table, band) is not None]
    match = _pattern(config.pattern).search(path) if config.pattern else None
    if match is not None and match.groupdict().get("band") is not None:
        band = _named_band(match, survey.bands)
        return [] if band is None else [band]
    cards = ChainMap(hdus[first_image(hdus) or 0].header, hdus[0].header)
    said = next((text for _, text in band_statements(cards)), None)
    if said is not None:
        band = matching_band(said, survey.bands)
        return [] if band is None else [band]
    named = band_in_name(path, survey.bands)
    band = None if named is None else matching_band(named, survey.bands)
    if band is None and len(survey.bands) > 1:
        raise TileError(
            f"{path}: the band is unknown: no card BAND or FILTER, and the name says none of {', '.join(survey.bands)}; give "
            "[survey.generic] a pattern with (?P<band>..), or a table of HDUs (image) or of places in a cube (axis)"
        )
    # One band was asked for, and nothing speaks against it.
    return [band or survey.bands[0]]


def _named_band(match: re.Match[str], bands: Sequence[str]) -> str | None:
    """Return the one of `bands` that the pattern found in a path; the first of them if the pattern has no band."""
    found = match.groupdict().get("band", bands[0])
    return None if found is None else matching_band(found, bands)


def _tile(hdus: fits.HDUList, path: str, *, band: str, survey: SurveyConfig) -> Tile:
    config = survey.generic
    match = _pattern(survey.generic.pattern).search(path) if config.pattern else None
    named = match.groupdict().get("tile") if match is not None else None
    tile_id = named or stem_of(path)
    where = f"tile {tile_id} band {band} ({path})"
    stated = _hdu_of(config.image, band)
    image = first_image(hdus) if stated is None else stated
    if image is None:
        raise TileError(f"{where}: no HDU has an image; {FETCH_AGAIN}, or state [survey.generic] image")
    mask = None if config.mask_replace else _hdu_of(config.mask, band)
    weight = None if config.weight_replace else _hdu_of(config.weight, band)
    # fpack moves all HDUs of a file whose primary one has an image; what was stated for the file before still holds.
    if 0 in (stated, mask, weight) or (stated is None and image in (mask, weight)):
        moved = n_moved_by_fpack(hdus)
        image = image if stated is None else _moved(image, moved)
        mask, weight = _moved(mask, moved), _moved(weight, moved)
    planes = Planes(
        image,
        mask=mask,
        weight=weight,
        weight_kind=config.weight_kind,
        index=() if (place := _of_band(config.axis, band)) is None else (place,),
    )
    cards = ChainMap(hdu_at(hdus, image, where=where, name="image").header, hdus[0].header)
    tile = make_tile(
        hdus,
        path,
        key=(tile_id, band),
        planes=planes,
        njy=image_scale(hdus, image, StatedScale.of(survey, band, where)),
        psf_fwhm_arcsec=stated_psf_fwhm_arcsec(survey, band, cards),
    )
    if tile.mask is not None:
        tile = with_mask_bits(tile, survey, hdus)
    return labeled(tile, survey)


def _moved(number: T, by: int) -> T | int:
    return number + by if isinstance(number, int) else number


def _hdu_of(stated_hdu: int | str | dict[str, int | str] | None, band: str) -> int | str | None:
    return _of_band(stated_hdu, band) if isinstance(stated_hdu, dict) else stated_hdu


def _of_band(table: Mapping[str, T], band: str) -> T | None:
    """Return the value of a band in a table of run.toml, whose keys may be written in another way than `bands`; None if there is none."""
    return next((value for key, value in table.items() if key == band or matching_band(key, (band,))), None)


def _with_plane(tile: Tile, role: Role, survey: SurveyConfig, files: FileAccessLog) -> Tile:
    """Return the tile with the mask or weight of the file that `mask_replace` or `weight_replace` names, if one does."""
    config = survey.generic
    pair: tuple[str, str] | None = getattr(config, f"{role}_replace")
    if pair is None:
        return tile
    folder, _, name = tile.image.path.rpartition("/")
    if pair[0] not in name:
        raise TileError(f"{tile.where}: {role}_replace = {list(pair)}: {pair[0]!r} is not in the file name")
    # Only the name is changed: folders may well hold the same text.
    path = f"{folder}/{name.replace(*pair)}"
    try:
        tile = add_plane(tile, role, path, files, hdu=_hdu_of(getattr(config, role), tile.band))
    except FileNotFoundError:
        raise TileError(
            f"{tile.where}: there is no {role} file {path}; fetch it, or take {role}_replace out"
        ) from None
    if role == "mask" and tile.mask is not None:
        with open_fits(path, files) as hdus:
            tile = with_mask_bits(tile, survey, hdus)
    return tile
