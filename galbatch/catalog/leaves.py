"""Leaves: the Parquet files of the catalog, one per partition. A leaf is encoded in memory and published in one step."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from galbatch import storage
from galbatch.catalog.checksums import leaf_bytes, publish_leaf
from galbatch.catalog.layout import leaf_path
from galbatch.catalog.schema import require_own_columns
from galbatch.core.columns import HEALPIX, NO_TEXT, result_names
from galbatch.core.pixels import HealpixPixel, Partition
from galbatch.errors import CatalogError, DamagedError
from galbatch.objects import reader_metadata

__all__ = [
    "BUNDLES_KEY",
    "footer_of",
    "open_leaf",
    "parse_leaf",
    "read_footer",
    "read_leaf",
    "read_leaf_metadata",
    "read_leaf_schema",
    "sorting_problem",
    "write_leaf",
]

FOOTER_PREFIX = "galbatch."

LEAF_GROUP_ROWS = 4096
"""Rows that are read to find one object or a small cone. With half as many an object is found in 0.9 of the time, and a whole leaf takes 1.3 times as long."""

BUNDLES_KEY = "bundles"
"""Key of a leaf's footer: JSON object with the sha256 of each model's bundles, separated by commas, by the model's name."""


def write_leaf(catalog_path: str, partition: Partition, table: pa.Table, *, footer: dict[str, str]) -> None:
    """Write the leaf of a partition atomically: readers find the complete file or none.

    Parameters
    ----------
    catalog_path : str
        Local or S3. On a local disk the temporary file is in the catalog's folder ``.staging``.
    partition : Partition
        The pixel of the leaf and its number of objects.
    table : pyarrow.Table
        One row per object, with a schema from `leaf_schema`, sorted by ``_healpix_29``. Missing values may be NaN or null:
        the file holds null, and empty text.
    footer : dict of str
        Entries for the file's key-value metadata, where each key gets the prefix ``galbatch.``.

    Raises
    ------
    CatalogError
        The table does not fit the partition: it has other columns, another number of rows, rows out of order, or rows
        outside the partition's pixel.
    OutputError
        There is no space, or no permission to write.
    """
    where = f"{catalog_path} {partition.name}"
    require_own_columns(table.schema, where)
    if len(table) != partition.n_objects:
        raise CatalogError(
            f"{where}: {len(table)} rows, expected the partition's {partition.n_objects} objects"
        )
    if problem := sorting_problem(table, partition):
        raise CatalogError(f"{where}: {problem}")
    table = _as_stored(table)
    known = reader_metadata(table)
    own = {f"{FOOTER_PREFIX}{key}".encode(): value.encode() for key, value in footer.items()}
    buffer = io.BytesIO()
    pq.write_table(
        table.cast(table.schema.with_metadata({**known, **own})),
        buffer,
        compression="zstd",
        **_encodings(table.schema),
        row_group_size=LEAF_GROUP_ROWS,
        write_page_index=True,
        write_page_checksum=True,
        sorting_columns=[pq.SortingColumn(table.column_names.index(HEALPIX.name))],
    )
    publish_leaf(catalog_path, partition, buffer.getvalue())


def _encodings(schema: pa.Schema) -> dict[str, list[str]]:
    """Return the columns that Parquet's writer encodes by a dictionary, and those by BYTE_STREAM_SPLIT.

    Values of posteriors hardly repeat: BYTE_STREAM_SPLIT compresses them better than dictionaries. HATS does the same.
    """
    floats, others = list[str](), list[str]()
    for field in schema:
        is_vector = pa.types.is_fixed_size_list(field.type)
        kind = field.type.value_type if is_vector else field.type
        path = f"{field.name}.list.element" if is_vector else field.name
        if not pa.types.is_floating(kind):
            others.append(path)
        # DuckDB cannot read float16 that is split.
        elif kind != pa.float16():
            floats.append(path)
    return {"use_dictionary": others, "use_byte_stream_split": floats}


def _as_stored(table: pa.Table) -> pa.Table:
    """Return a catalog's rows with missing values as files hold them: null for NaN in result columns, empty for null text and bytes.

    To DuckDB, Polars and Arrow NaN is a number above all others, and only null is missing; pandas and NumPy show null as NaN.
    Floats of columns that were kept from the object list stay as they came.
    """
    results = set(result_names(table.column_names))
    for index, field in enumerate(table.schema):
        column = table.column(index)
        if field.type in (pa.string(), pa.binary()) and column.null_count:
            no_text = pa.scalar(NO_TEXT).cast(field.type)
            table = table.set_column(index, field, pc.fill_null(column, no_text))
        elif field.name in results:
            table = table.set_column(index, field, _without_nan(column))
    return table


def _without_nan(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column with null in place of NaN, in vectors for each value: the vector itself is never null."""
    if pa.types.is_floating(column.type):
        return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    if not pa.types.is_fixed_size_list(column.type):
        return column
    chunks = [
        pa.FixedSizeListArray.from_arrays(_without_nan(chunk.flatten()), type=column.type)
        for chunk in column.chunks
    ]
    return pa.chunked_array(chunks, column.type)


def sorting_problem(table: pa.Table, pixel: HealpixPixel) -> str:
    """Return a message about rows that are out of order or outside the pixel, "" if there are none."""
    index = table.column(HEALPIX.name).to_numpy()
    if (np.diff(index) < 0).any():
        # diff[i] compares rows i and i + 1: the later one is out of order.
        return f"row {int(np.argmax(np.diff(index) < 0)) + 1} is not in the order of {HEALPIX.name}"
    start, stop = pixel.index_range
    outside = (index < start) | (index >= stop)
    if outside.any():
        row = int(np.argmax(outside))
        return f"{int(outside.sum())} rows lie outside the pixel, first row {row} with {HEALPIX.name} {index[row]}"
    return ""


def read_footer(catalog_path: str, pixel: HealpixPixel) -> dict[str, str] | None:
    """Return the `footer` that was given to `write_leaf`, or None if the pixel has no leaf.

    Raises
    ------
    DamagedError
        The file cannot be read as Parquet.
    """
    path = leaf_path(catalog_path, pixel)
    try:
        return footer_of(read_leaf_metadata(path)[0])
    except FileNotFoundError:
        return None


def footer_of(metadata: pq.FileMetaData) -> dict[str, str]:
    """Return galbatch's entries in a Parquet file's key-value metadata, without the prefix ``galbatch.``."""
    # A damaged footer is recognized by its fingerprint or checksum, not by text that is not UTF-8.
    entries = {key.decode(errors="replace"): value for key, value in (metadata.metadata or {}).items()}
    return {
        key.removeprefix(FOOTER_PREFIX): value.decode(errors="replace")
        for key, value in entries.items()
        if key.startswith(FOOTER_PREFIX)
    }


def read_leaf_metadata(path: str) -> tuple[pq.FileMetaData, int]:
    """Return the metadata of a Parquet file, and the file's size in bytes; raises as `read_leaf_schema` does."""
    metadata, _, size_bytes = read_leaf_schema(path)
    return metadata, size_bytes


def read_leaf_schema(path: str) -> tuple[pq.FileMetaData, pa.Schema, int]:
    """Return the metadata of a Parquet file, its schema, and the file's size in bytes.

    Whoever goes through many leaves takes the schema from here: ``metadata.schema`` and the metadata would hold each other, 70 kB a leaf,
    until Python looks for such circles.

    Raises
    ------
    DamagedError
        The file cannot be read as Parquet.
    """
    with storage.open_file(path) as file:
        try:
            opened = pq.ParquetFile(file)
        except (pa.ArrowInvalid, OSError) as error:
            raise _torn(path, error) from error
        return opened.metadata, opened.schema_arrow, file.seek(0, io.SEEK_END)


def read_leaf(path: str, *, columns: list[str] | None = None) -> pa.Table:
    """Return the rows of a leaf. Missing floats are null, which ``to_numpy`` makes NaN. Units and descriptions stay in the fields' metadata; the table's own metadata are dropped.

    A whole leaf is checked against its checksum; of some columns the pages that are read are, against Parquet's own.

    Raises
    ------
    DamagedError
        The file cannot be read as Parquet, or is not as it was written.
    """
    if columns is None:
        return parse_leaf(path, leaf_bytes(path))
    with storage.open_file(path) as file:
        return _parsed(path, file, columns)


@contextmanager
def open_leaf(path: str) -> Iterator[pq.ParquetFile]:
    """Open a leaf, of which columns and row groups are read when they are asked for; the checksums of their pages are checked.

    Raises
    ------
    DamagedError
        The file cannot be read as Parquet, or is not as it was written; also while the context lasts.
    """
    with storage.open_file(path) as file:
        try:
            yield _opened(path, file)
        except (pa.ArrowInvalid, OSError) as error:
            raise _torn(path, error) from error


def parse_leaf(path: str, data: bytes) -> pa.Table:
    """Return the rows of a leaf whose content was read; raises as `read_leaf` does."""
    return _parsed(path, pa.BufferReader(data), None)


def _parsed(path: str, file: Any, columns: list[str] | None) -> pa.Table:
    try:
        table = _opened(path, file).read(columns=columns, use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise _torn(path, error) from error
    # The footers of leaves differ, and pyarrow would give the concatenated table those of the first leaf.
    return table.replace_schema_metadata(None)


def _opened(path: str, file: Any) -> pq.ParquetFile:
    """Return a leaf of which pyarrow reads without threads of its own, if it is on a disk and is asked to with ``use_threads=False``.

    pyarrow's threads let go of Python's files and bytes after a read has returned. Where the program ends just then, they abort
    it: "terminate called without an active exception" (apache/arrow issues 33975 and 50482). Requests to an object store stay
    joined in advance, by such a thread: each takes 50 ms.
    """
    return pq.ParquetFile(file, page_checksum_verification=True, pre_buffer=storage.reads_by_request(path))


def _torn(path: str, error: Exception) -> DamagedError:
    return DamagedError(path, f"cannot be read as Parquet ({error})")
