"""Tables of any kind, read and written as Arrow tables: Parquet, FITS, CSV, ECSV, VOTable and HDF5."""

from galbatch.objects.tables.columns import ISNULL_SUFFIX, as_booleans, errors_of_reading, joined
from galbatch.objects.tables.field_metadata import reader_metadata
from galbatch.objects.tables.formats import (
    TABLE_SUFFIXES,
    TablePart,
    column_names,
    is_read_in_parts,
    read_table,
    table_parts,
)
from galbatch.objects.tables.parquet import parquet_files, read_parquet
from galbatch.objects.tables.units import angle_of, unit_of
from galbatch.objects.tables.writing import (
    astropy_table,
    check_table_suffix,
    csv_table,
    write_parquet,
    write_table,
)

__all__ = [
    "ISNULL_SUFFIX",
    "TABLE_SUFFIXES",
    "TablePart",
    "angle_of",
    "as_booleans",
    "astropy_table",
    "check_table_suffix",
    "column_names",
    "csv_table",
    "errors_of_reading",
    "is_read_in_parts",
    "joined",
    "parquet_files",
    "read_parquet",
    "read_table",
    "reader_metadata",
    "table_parts",
    "unit_of",
    "write_parquet",
    "write_table",
]
