"""The survey's files -> tiles, from headers alone."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from galbatch import storage
from galbatch.config import SurveyConfig, is_tile_table
from galbatch.core.types import Tile
from galbatch.errors import TileError
from galbatch.ingest.layouts import layout_of, said_of_bands
from galbatch.ingest.tiles.index import MapFiles, index_paths, tiles_of
from galbatch.ingest.tiles.sources import find_sources, listed_files

__all__ = ["read_surveys", "read_tiles"]

# Files whose cards an error shows.
MAX_FILES_SHOWN = 3


def read_surveys(
    surveys: Sequence[SurveyConfig], *, index: str | None = None, map_files: MapFiles | None = None
) -> list[Tile]:
    """Return the tiles of all surveys, their bands named as in the run (``[[survey]] name`` goes before the band).

    Parameters
    ----------
    index : what the paths of the tile indexes begin with, see `index_paths`; None: nothing is kept
    map_files : maps a function over items on workers, in order; asked only if there are many headers to read

    Raises
    ------
    TileError
        As `read_tiles`.
    """
    tiles = []
    paths = [None] * len(surveys) if index is None else index_paths(index, surveys)
    for survey, path in zip(surveys, paths, strict=True):
        names = dict(zip(survey.bands, survey.run_bands, strict=True))
        read = read_tiles(survey, index=path, map_files=map_files)
        tiles += [dataclasses.replace(tile, band=names[tile.band]) for tile in read]
    return tiles


def read_tiles(
    survey: SurveyConfig, *, index: str | None = None, map_files: MapFiles | None = None
) -> list[Tile]:
    """Return the tiles of a survey in its bands, sorted by id and band; no pixels are read.

    Parameters
    ----------
    index : path of the tile index; None: none is used
    map_files : as for `read_surveys`

    Raises
    ------
    TileError
        No tile matches, a band has none, two files hold one tile, or a file is truncated or has no
        celestial WCS or zero point.
    """
    sources = find_sources(survey)
    tiles = tiles_of(sources, survey, index=index, map_files=map_files)
    asked = f"[survey] tiles = {survey.tiles!r}"
    if not tiles:
        raise TileError(f"{asked}: no tile matches: {_what_is_there(survey)}{_said_of_bands(survey)}")
    # A band without any tile is rather a wrong glob than a survey without that band, so it stops the run before it starts.
    found = {tile.band for tile in tiles}
    missing = [band for band in survey.bands if band not in found]
    if missing:
        raise TileError(
            f"{asked}: no tile in band {', '.join(missing)}; there are tiles in {', '.join(sorted(found))}; "
            f"take the band out of [survey] bands or point tiles to its files{_said_of_bands(survey, tiles)}"
        )
    _require_single(tiles, asked=asked, by_table=is_tile_table(survey.tiles))
    # Sorted, so that nothing depends on the order in which a file system lists its files.
    return sorted(tiles, key=lambda tile: (tile.tile_id, tile.band))


def _what_is_there(survey: SurveyConfig) -> str:
    """Return the words of the error where no tile matches: how many files exist, and what the layout looks for."""
    layout = layout_of(survey.layout)
    if is_tile_table(survey.tiles):
        return f"none of its rows is of bands {', '.join(survey.bands)}"
    n_files = len(listed_files(survey))
    kind = "FITS files" if ".fits" in layout.suffixes else "files"
    return f"{n_files} {kind} there, none of them {layout.expects} in bands {', '.join(survey.bands)}"


def _said_of_bands(survey: SurveyConfig, tiles: Sequence[Tile] = ()) -> str:
    """Return what some of the files say of their bands, for the error that no tile is of a band; "" if there are none.

    Parameters
    ----------
    tiles : those whose files are left out, as they are of bands that were asked for
    """
    if is_tile_table(survey.tiles):
        return ""
    known = {tile.image.path for tile in tiles}
    others = [path for path in listed_files(survey) if path not in known]
    files = storage.FileAccessLog()
    # Some examples are enough for an error, and each file that is opened takes a request on S3.
    said = [said_of_bands(path, survey, files) for path in others[:MAX_FILES_SHOWN]]
    return f"; {'; '.join(said)}" if said else ""


def _require_single(tiles: Sequence[Tile], *, asked: str, by_table: bool) -> None:
    """Raise if two files hold the same tile in one band, as two data releases under one glob do."""
    counts = Counter((tile.tile_id, tile.band) for tile in tiles)
    (tile_id, band), count = counts.most_common(1)[0]
    if count > 1:
        paths = [tile.image.path for tile in tiles if (tile.tile_id, tile.band) == (tile_id, band)]
        advice = "take rows out" if by_table else "narrow the pattern to one data release"
        raise TileError(
            f"{asked}: tile {tile_id} band {band} is there {count} times: {', '.join(paths[:3])}; {advice}"
        )
