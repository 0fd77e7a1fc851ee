"""Objects and tiles -> cutouts: placed, copied or resampled, measured."""

from galbatch.ingest.cut.cutting import PREFETCHED_OBJECTS, AddedLight, cut_block, cut_blocks
from galbatch.ingest.cut.identity import digest_of_pixels, possible_keys
from galbatch.ingest.cut.placing import tile_identity
from galbatch.ingest.cut.tile import cutting_cost

__all__ = [
    "PREFETCHED_OBJECTS",
    "AddedLight",
    "cut_block",
    "cut_blocks",
    "cutting_cost",
    "digest_of_pixels",
    "possible_keys",
    "tile_identity",
]
