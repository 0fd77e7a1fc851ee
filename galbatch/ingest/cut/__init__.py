"""Objects and tiles -> cutouts: placed, copied or resampled, measured."""

from galbatch.ingest.cut.cutting import PREFETCHED_OBJECTS, AddedLight, cut_block, cut_blocks
from galbatch.ingest.cut.identity import keys_of_objects, tile_identity

__all__ = ["PREFETCHED_OBJECTS", "AddedLight", "cut_block", "cut_blocks", "keys_of_objects", "tile_identity"]
