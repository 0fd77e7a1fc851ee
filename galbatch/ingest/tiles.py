"""The survey's files -> tiles, from headers alone."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from galbatch import storage
from galbatch.config import SurveyConfig
from galbatch.errors import TileError
from galbatch.ingest.layouts import layout_of
from galbatch.types import Tile

__all__ = ["read_surveys", "read_tiles"]


def read_surveys(surveys: Sequence[SurveyConfig]) -> list[Tile]:
    """Tiles of all surveys, under the names that the run knows their bands by; raises as `read_tiles` does."""
    tiles = []
    for survey in surveys:
        names = dict(zip(survey.bands, survey.run_bands, strict=True))
        tiles += [dataclasses.replace(tile, band=names[tile.band]) for tile in read_tiles(survey)]
    return tiles


def read_tiles(survey: SurveyConfig) -> list[Tile]:
    """Tiles of the survey in its bands, sorted by id and band; no pixels are read.

    Raises
    ------
    TileError
        No tile matches, a band has none, two files hold one tile, or a file is truncated or has no
        celestial WCS or zero point.
    """
    layout = layout_of(survey.layout)
    files = storage.find_files(survey.tiles, suffixes=layout.suffixes)
    wanted = [path for path in files if layout.wants(path, survey)]
    tiles = [tile for path in wanted for tile in layout.tiles_in(path, survey)]
    asked = f"[survey] tiles = {survey.tiles!r}"
    if not tiles:
        raise TileError(
            f"{asked}: no tile matches: {len(files)} FITS files there, none of them {layout.expects} "
            f"in bands {', '.join(survey.bands)}"
        )
    _require_bands(tiles, survey.bands, asked=asked)
    _require_single(tiles, asked)
    return sorted(tiles, key=lambda tile: (tile.tile_id, tile.band))


def _require_bands(tiles: Sequence[Tile], bands: Sequence[str], *, asked: str) -> None:
    found = {tile.band for tile in tiles}
    missing = [band for band in bands if band not in found]
    if missing:
        raise TileError(
            f"{asked}: no tile in band {', '.join(missing)}; there are tiles in {', '.join(sorted(found))}; "
            "take the band out of [survey] bands or point tiles to its files"
        )


def _require_single(tiles: Sequence[Tile], asked: str) -> None:
    counts = Counter((tile.tile_id, tile.band) for tile in tiles)
    (tile_id, band), count = counts.most_common(1)[0]
    if count > 1:
        paths = [tile.image.path for tile in tiles if (tile.tile_id, tile.band) == (tile_id, band)]
        raise TileError(
            f"{asked}: tile {tile_id} band {band} is there {count} times: {', '.join(paths[:3])}; "
            "narrow the pattern to one data release"
        )
