"""Tiles and objects in, cutouts in the store out: the only door to FITS, WCS, reprojection and Zarr.

`read_tiles` reads a survey's headers, `tiles_near` finds the tiles that matter, `cut_block` makes the cutouts
of up to 256 objects, and the store functions write and read them by partition.

Pixels that a survey marks NO_DATA, or gives the inverse variance 0, count as not covered: they are NaN.
"""

from galbatch.ingest.cut import (
    PREFETCHED_OBJECTS,
    AddedLight,
    cut_block,
    cut_blocks,
    cutting_cost,
    digest_of_pixels,
    possible_keys,
    tile_identity,
)
from galbatch.ingest.pixels import ignore_astropy
from galbatch.ingest.store import (
    STORE_ENTRIES,
    BaseCutouts,
    CutoutReader,
    blocks_in_memory,
    bytes_per_object,
    create_groups,
    damaged_pixel,
    find_damage,
    list_done,
    list_groups,
    list_pixels,
    read_block,
    read_blocks,
    read_done,
    read_object_ids,
    read_photometry,
    read_photometry_done,
    reading_bytes,
    remove_partition,
    stored_bands,
    stored_grids,
    stored_planes,
    write_partition,
    write_photometry,
)
from galbatch.ingest.tiles import (
    Footprint,
    index_paths,
    read_surveys,
    read_tiles,
    tiles_from_butler,
    tiles_near,
)

INGEST_VERSION = 10
"""Raised when the numbers in the store change."""

__all__ = [
    "INGEST_VERSION",
    "PREFETCHED_OBJECTS",
    "STORE_ENTRIES",
    "AddedLight",
    "BaseCutouts",
    "CutoutReader",
    "Footprint",
    "blocks_in_memory",
    "bytes_per_object",
    "create_groups",
    "cut_block",
    "cut_blocks",
    "cutting_cost",
    "damaged_pixel",
    "digest_of_pixels",
    "find_damage",
    "ignore_astropy",
    "index_paths",
    "list_done",
    "list_groups",
    "list_pixels",
    "possible_keys",
    "read_block",
    "read_blocks",
    "read_done",
    "read_object_ids",
    "read_photometry",
    "read_photometry_done",
    "read_surveys",
    "read_tiles",
    "reading_bytes",
    "remove_partition",
    "stored_bands",
    "stored_grids",
    "stored_planes",
    "tile_identity",
    "tiles_from_butler",
    "tiles_near",
    "write_partition",
    "write_photometry",
]
