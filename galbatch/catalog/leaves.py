"""Leaves: one Parquet file a partition, checked, encoded in memory, published by one step."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from galbatch import storage
from galbatch.catalog.layout import STAGING, leaf_path
from galbatch.catalog.schema import require_own_columns, votable_metadata
from galbatch.core.columns import HEALPIX
from galbatch.core.pixels import HealpixPixel, Partition
from galbatch.errors import CatalogError

__all__ = [
    "BUNDLES_KEY",
    "footer_of",
    "read_footer",
    "read_leaf",
    "read_leaf_metadata",
    "sorting_problem",
    "write_leaf",
]

FOOTER_PREFIX = "galbatch."

BUNDLES_KEY = "bundles"
"""Key of a leaf's footer: JSON object with the sha256 of each model's bundles, separated by commas, by the model's name."""


def write_leaf(catalog_path: str, partition: Partition, table: pa.Table, *, footer: dict[str, str]) -> None:
    """Write a partition's leaf: it is there whole or not at all.

    Parameters
    ----------
    catalog_path : str
        Local or S3; a local temporary file goes into its ``.staging`` folder.
    table : pyarrow.Table
        The partition's objects with a schema from `leaf_schema`, sorted by ``_healpix_29``.
    footer : dict of str
        Goes into the file's key-value metadata, each key behind ``galbatch.``.

    Raises
    ------
    CatalogError
        The table is not the partition's: other columns, another number of rows, unsorted, or rows
        outside the partition's pixel.
    OutputError
        No space, or no permission.
    """
    where = f"{catalog_path} {partition.name}"
    require_own_columns(table.schema, where)
    if len(table) != partition.n_objects:
        raise CatalogError(
            f"{where}: {len(table)} rows, expected the partition's {partition.n_objects} objects"
        )
    if problem := sorting_problem(table, partition):
        raise CatalogError(f"{where}: {problem}")
    path = leaf_path(catalog_path, partition)
    own = {f"{FOOTER_PREFIX}{key}".encode(): value.encode() for key, value in footer.items()}
    floats = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    buffer = io.BytesIO()
    pq.write_table(
        table.cast(table.schema.with_metadata({**votable_metadata(table.schema), **own})),
        buffer,
        compression="zstd",
        # Posteriors hardly repeat: split bytes compress better than dictionaries. HATS writes them so too.
        use_dictionary=[name for name in table.column_names if name not in floats],
        use_byte_stream_split=floats,
        # One row group: with more, `_metadata` of 10,000 leaves would reach gigabytes. Pages are indexed instead.
        row_group_size=max(len(table), 1),
        write_page_index=True,
        sorting_columns=[pq.SortingColumn(table.column_names.index(HEALPIX.name))],
    )
    storage.publish(path, buffer.getvalue(), staging=storage.join(catalog_path, STAGING))


def sorting_problem(table: pa.Table, pixel: HealpixPixel) -> str:
    """Say which rows are unsorted or outside the pixel; "" if none is."""
    index = table.column(HEALPIX.name).to_numpy()
    if (np.diff(index) < 0).any():
        return f"row {int(np.argmax(np.diff(index) < 0)) + 1} is not in the order of {HEALPIX.name}"
    start, stop = pixel.index_range
    outside = (index < start) | (index >= stop)
    if outside.any():
        row = int(np.argmax(outside))
        return f"{int(outside.sum())} rows lie outside the pixel, first row {row} with {HEALPIX.name} {index[row]}"
    return ""


def read_footer(catalog_path: str, pixel: HealpixPixel) -> dict[str, str] | None:
    """Read what `write_leaf` was given as `footer`; None if the pixel has no leaf.

    Raises
    ------
    CatalogError
        The file is no Parquet.
    """
    path = leaf_path(catalog_path, pixel)
    try:
        return footer_of(read_leaf_metadata(path)[0])
    except FileNotFoundError:
        return None


def footer_of(metadata: pq.FileMetaData) -> dict[str, str]:
    """Return galbatch's own entries of a file's key-value metadata, without the prefix ``galbatch.``."""
    entries = {key.decode(): value for key, value in (metadata.metadata or {}).items()}
    return {
        key.removeprefix(FOOTER_PREFIX): value.decode()
        for key, value in entries.items()
        if key.startswith(FOOTER_PREFIX)
    }


def read_leaf_metadata(path: str) -> tuple[pq.FileMetaData, int]:
    """Read a Parquet file's metadata, and its size in bytes.

    Raises
    ------
    CatalogError
        The file is no Parquet.
    """
    with storage.open_file(path) as file:
        try:
            metadata = pq.read_metadata(file)
        except (pa.ArrowInvalid, OSError) as error:
            raise CatalogError(_torn(path, error)) from error
        return metadata, file.seek(0, io.SEEK_END)


def read_leaf(path: str, *, columns: list[str] | None = None) -> pa.Table:
    """Read a leaf's rows; schema metadata stays on the fields, not on the table.

    Raises
    ------
    CatalogError
        The file is no Parquet.
    """
    with storage.open_file(path) as file:
        try:
            table = pq.ParquetFile(file).read(columns=columns)
        except (pa.ArrowInvalid, OSError) as error:
            raise CatalogError(_torn(path, error)) from error
    return table.replace_schema_metadata(None)


def _torn(path: str, error: Exception) -> str:
    return f"{path}: cannot be read as Parquet ({error}); remove the file and run galbatch run again"
