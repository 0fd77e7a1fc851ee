"""Objects and tiles -> cutouts: placed, copied or resampled, measured."""

from galbatch.ingest.cut.cutting import PREFETCHED_OBJECTS, cut_block, cut_blocks

__all__ = ["PREFETCHED_OBJECTS", "cut_block", "cut_blocks"]
