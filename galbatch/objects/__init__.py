"""Object lists: tables in and out, what a list's rows mean, selections, neighbors, and the check of a new list.

`read_table` and `write_table` are for tables of any kind; `open_objects` gives the objects of a run in chunks that fit
in memory, and `SelectedObjects` adds to them what is known before any pixel: flags and each model's selection.
"""

from galbatch.objects.check import ListCheck, check_objects, report_lines
from galbatch.objects.field_metadata import reader_metadata
from galbatch.objects.formats import column_names, read_table
from galbatch.objects.hats import HatsSource
from galbatch.objects.neighbors import object_flags
from galbatch.objects.reading import kept_names, read_numbers, read_objects
from galbatch.objects.selection import Chunk, LruCache, PartitionObjects, SelectedObjects, Span
from galbatch.objects.sources import ListSource, ObjectSource, is_hats, open_objects
from galbatch.objects.where import select
from galbatch.objects.writing import check_table_suffix, write_parquet, write_table

__all__ = [
    "Chunk",
    "HatsSource",
    "ListCheck",
    "ListSource",
    "LruCache",
    "ObjectSource",
    "PartitionObjects",
    "SelectedObjects",
    "Span",
    "check_objects",
    "check_table_suffix",
    "column_names",
    "is_hats",
    "kept_names",
    "object_flags",
    "open_objects",
    "read_numbers",
    "read_objects",
    "read_table",
    "reader_metadata",
    "report_lines",
    "select",
    "write_parquet",
    "write_table",
]
