"""Object lists: tables in and out, what a list's rows mean, selections, neighbors, and the check of a new list.

`read_table` and `write_table` are for tables of any kind; `open_objects` gives the objects of a run in chunks that fit
in memory, and `SelectedObjects` adds to them what is known before any pixel: flags and each model's selection.
"""

from galbatch.objects.butler import butler_files, objects_from_butler
from galbatch.objects.checking import (
    TO_PASTE,
    Feeding,
    ListCheck,
    check_objects,
    guess_columns,
    report_lines,
)
from galbatch.objects.hats import HatsSource, read_properties
from galbatch.objects.neighbors import object_flags
from galbatch.objects.reading import InputColumns, kept_names, read_numbers, read_objects
from galbatch.objects.region import Region, SkyBox, box_around, region_of, sky_box
from galbatch.objects.rows import ListCounts
from galbatch.objects.selection import Chunk, LruCache, PartitionObjects, SelectedObjects, Span
from galbatch.objects.skymaps import EBV, SkyMaps, with_sky_maps
from galbatch.objects.sources import ListSource, ObjectSource, is_hats, open_objects
from galbatch.objects.tables import (
    astropy_table,
    check_table_suffix,
    column_names,
    csv_table,
    read_table,
    reader_metadata,
    write_parquet,
    write_table,
)
from galbatch.objects.values import degrees_of, numbers_of
from galbatch.objects.where import may_be_true, names_in, select, select_rows

__all__ = [
    "EBV",
    "TO_PASTE",
    "Chunk",
    "Feeding",
    "HatsSource",
    "InputColumns",
    "ListCheck",
    "ListCounts",
    "ListSource",
    "LruCache",
    "ObjectSource",
    "PartitionObjects",
    "Region",
    "SelectedObjects",
    "SkyBox",
    "SkyMaps",
    "Span",
    "astropy_table",
    "box_around",
    "butler_files",
    "check_objects",
    "check_table_suffix",
    "column_names",
    "csv_table",
    "degrees_of",
    "guess_columns",
    "is_hats",
    "kept_names",
    "may_be_true",
    "names_in",
    "numbers_of",
    "object_flags",
    "objects_from_butler",
    "open_objects",
    "read_numbers",
    "read_objects",
    "read_properties",
    "read_table",
    "reader_metadata",
    "region_of",
    "report_lines",
    "select",
    "select_rows",
    "sky_box",
    "with_sky_maps",
    "write_parquet",
    "write_table",
]
