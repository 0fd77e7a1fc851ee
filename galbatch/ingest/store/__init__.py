"""The cutout store: Zarr v3, sharded, one group per partition and grid; see `galbatch.storage.zarr_groups`."""

from galbatch.ingest.store.base import BaseCutouts
from galbatch.ingest.store.layout import (
    PLANE_DTYPES,
    STORE_ENTRIES,
    blocks_in_memory,
    bytes_per_object,
    reading_bytes,
)
from galbatch.ingest.store.photometry import read_photometry, read_photometry_done, write_photometry
from galbatch.ingest.store.reader import (
    CutoutReader,
    damaged_pixel,
    find_damage,
    list_done,
    list_groups,
    list_pixels,
    read_block,
    read_blocks,
    read_done,
    read_object_ids,
    stored_bands,
    stored_grids,
    stored_planes,
)
from galbatch.ingest.store.writer import create_groups, remove_partition, write_partition

__all__ = [
    "PLANE_DTYPES",
    "STORE_ENTRIES",
    "BaseCutouts",
    "CutoutReader",
    "blocks_in_memory",
    "bytes_per_object",
    "create_groups",
    "damaged_pixel",
    "find_damage",
    "list_done",
    "list_groups",
    "list_pixels",
    "read_block",
    "read_blocks",
    "read_done",
    "read_object_ids",
    "read_photometry",
    "read_photometry_done",
    "reading_bytes",
    "remove_partition",
    "stored_bands",
    "stored_grids",
    "stored_planes",
    "write_partition",
    "write_photometry",
]
