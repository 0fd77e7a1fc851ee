"""A survey's tiles: the files that may hold them, their headers read once and kept, and which of them lie where."""

from galbatch.ingest.tiles.butler import tiles_from_butler
from galbatch.ingest.tiles.footprint import Footprint, tiles_near
from galbatch.ingest.tiles.index import MapFiles, index_paths
from galbatch.ingest.tiles.reading import read_surveys, read_tiles

__all__ = [
    "Footprint",
    "MapFiles",
    "index_paths",
    "read_surveys",
    "read_tiles",
    "tiles_from_butler",
    "tiles_near",
]
