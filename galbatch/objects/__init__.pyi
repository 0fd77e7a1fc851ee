from .butler import butler_files, objects_from_butler
from .checking import TO_PASTE, Feeding, ListCheck, check_objects, guess_columns, report_lines
from .hats import HatsSource, read_properties
from .neighbors import object_flags
from .reading import InputColumns, kept_names, read_numbers, read_objects
from .region import Region, SkyBox, box_around, region_of, sky_box
from .rows import ListCounts
from .selection import Chunk, LruCache, PartitionObjects, SelectedObjects, Span
from .skymaps import EBV, SkyMaps, with_sky_maps
from .sources import ListSource, ObjectSource, is_hats, open_objects
from .tables import (
    astropy_table,
    check_table_suffix,
    column_names,
    csv_table,
    read_table,
    reader_metadata,
    write_parquet,
    write_table,
)
from .values import degrees_of, numbers_of
from .where import may_be_true, names_in, select, select_rows

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
