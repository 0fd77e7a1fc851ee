"""The index of ids: for each object the pixel of its leaf and its HEALPix index, sorted by id, in HATS's format."""

from __future__ import annotations

import io
import tempfile
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from galbatch import storage
from galbatch.catalog import layout
from galbatch.catalog.collection.state import (
    INDEX,
    STATE,
    is_current,
    part_path,
    primary_url,
    properties_of,
    publish_part,
    state_of,
)
from galbatch.catalog.leaves import read_leaf, read_leaf_metadata
from galbatch.catalog.scanning import leaves_at_once
from galbatch.core.columns import HEALPIX, ID
from galbatch.core.pixels import HealpixPixel
from galbatch.core.prefetch import map_in_threads
from galbatch.errors import CatalogError, DamagedError

__all__ = ["INDEX", "find_places", "index_note", "make_index"]

PART_ROWS = 4_000_000
"""Rows of one file of the index: sorting them takes 200 MB with ids that are integers."""

INDEX_GROUP_ROWS = 4096
"""Rows of the index that are read to find one id, in a millisecond."""

MAX_ROW_GROUPS = 10_000
"""Row groups of the whole index, whose summary (``_metadata``, 400 bytes each) is read for every search. Larger indexes have larger ones."""

READING_THREADS = 8
"""Number of files read at the same time: on S3 each takes 50 ms, most of it waiting for the network."""

FEW_LEAVES = 100
"""So few leaves are searched in a tenth of a second without an index, 1 ms each."""

SAMPLED = 64
"""One in so many ids decides where the files of the index begin."""


def make_index(catalog_path: str) -> int:
    """Make the index of a finished catalog's ids, in memory that does not grow with the catalog, and return the number of ids.

    Raises
    ------
    CatalogError
        The catalog is not finished, or a leaf cannot be read.
    OutputError
        There is no space, or no permission to write.
    """
    state = state_of(catalog_path)
    n_rows = int(properties_of(catalog_path, ["hats_nrows"])["hats_nrows"])
    leaves = layout.list_leaves(catalog_path)
    bounds = _bounds(catalog_path, leaves, n_parts=-(-n_rows // PART_ROWS))
    files: dict[str, bytes | Path] = {}
    with tempfile.TemporaryDirectory() as folder:
        written = 0
        summary: pq.FileMetaData | None = None
        for number, rows in enumerate(_sorted_parts(catalog_path, leaves, bounds, Path(folder))):
            name = f"index/part.{number}.parquet"
            path = Path(folder, f"{number}.parquet")
            _write(rows, path, row_group_rows=max(INDEX_GROUP_ROWS, -(-n_rows // MAX_ROW_GROUPS)))
            files[f"{layout.DATASET}/{name}"] = path
            metadata = pq.read_metadata(path)
            metadata.set_file_path(name)
            summary = metadata if summary is None else _joined(summary, metadata)
            written += len(rows)
        if summary is None or written != n_rows:
            raise CatalogError(f"{catalog_path}: its leaves hold {written} rows, expected {n_rows}")
        files |= _metadata_files(summary)
        files |= dict.fromkeys(layout.PROPERTIES, _properties(catalog_path, n_rows, state))
        publish_part(catalog_path, INDEX, files)
    return written


def _joined(summary: pq.FileMetaData, other: pq.FileMetaData) -> pq.FileMetaData:
    summary.append_row_groups(other)
    return summary


def _bounds(catalog_path: str, leaves: Sequence[HealpixPixel], *, n_parts: int) -> list[Any]:
    """Return the first ids of all files of the index but the first, so that all have about equally many rows."""
    if n_parts <= 1:
        return []
    read = partial(_read_ids, catalog_path)
    sample = np.concatenate(
        [
            rows.column(0).to_numpy()[::SAMPLED]
            for rows in map_in_threads(read, leaves, n_threads=READING_THREADS)
        ]
    )
    sample.sort()
    return [sample[len(sample) * number // n_parts] for number in range(1, n_parts)]


def _read_ids(catalog_path: str, leaf: HealpixPixel) -> pa.Table:
    """Return the rows that the index has of a leaf."""
    rows = read_leaf(layout.leaf_path(catalog_path, leaf), columns=[ID.name, HEALPIX.name])
    # The types that hats-import gives these columns.
    order = pa.array(np.full(len(rows), leaf.healpix_order, np.uint8))
    pixel = pa.array(np.full(len(rows), leaf.healpix_pixel, np.uint64))
    columns = [rows.column(ID.name), rows.column(HEALPIX.name), order, pixel]
    return pa.table(columns, names=[ID.name, HEALPIX.name, "Norder", "Npix"])


def _sorted_parts(
    catalog_path: str, leaves: Sequence[HealpixPixel], bounds: Sequence[Any], folder: Path
) -> Iterator[pa.Table]:
    """Yield the rows of each file of the index, sorted by id; rows wait on the disk, in one file for each."""
    spilled = [folder / f"{number}.arrow" for number in range(len(bounds) + 1)]
    writers: dict[int, pa.RecordBatchFileWriter] = {}
    read = partial(_read_ids, catalog_path)
    for rows in map_in_threads(read, leaves, n_threads=READING_THREADS):
        part_of = np.searchsorted(np.array(bounds), rows.column(0).to_numpy(), side="right") if bounds else 0
        for number in np.unique(part_of).tolist():
            if number not in writers:
                writers[number] = pa.ipc.new_file(spilled[number], rows.schema)
            writers[number].write_table(rows.filter(pa.array(part_of == number)) if bounds else rows)
    for writer in writers.values():
        writer.close()
    for number in sorted(writers):
        with pa.memory_map(str(spilled[number])) as file:
            yield pa.ipc.open_file(file).read_all().sort_by(ID.name)
        spilled[number].unlink()


def _write(rows: pa.Table, path: Path, *, row_group_rows: int) -> None:
    pq.write_table(
        rows,
        path,
        compression="zstd",
        row_group_size=row_group_rows,
        use_dictionary=["Norder", "Npix"],
        # Searches go by the range of ids. Summaries of the other columns only make them read more.
        write_statistics=[ID.name],
        sorting_columns=[pq.SortingColumn(0)],
    )


def _metadata_files(summary: pq.FileMetaData) -> dict[str, bytes]:
    """Return ``_common_metadata`` and ``_metadata`` of the index."""
    common, whole = io.BytesIO(), io.BytesIO()
    pq.write_metadata(summary.schema.to_arrow_schema(), common)
    summary.write_metadata_file(whole)
    return {layout.COMMON_METADATA: common.getvalue(), layout.METADATA: whole.getvalue()}


def _properties(catalog_path: str, n_rows: int, state: str) -> bytes:
    from hats.catalog import TableProperties

    values = {
        "obs_collection": INDEX,
        "dataproduct_type": "index",
        "hats_nrows": str(n_rows),
        "hats_index_column": ID.name,
        "hats_primary_table_url": primary_url(catalog_path, levels=2),
        "hats_version": "v1.0",
        STATE: state,
    }
    with tempfile.TemporaryDirectory() as folder:
        TableProperties(**values).to_properties_file(folder)
        return Path(folder, layout.PROPERTIES[-1]).read_bytes()


def index_note(catalog_path: str) -> str:
    """Return why objects of a catalog are searched in all leaves, and what to do; "" if the index finds them.

    A catalog that is not finished has no index, and a small one needs none.
    """
    if len(layout.list_leaves(catalog_path)) <= FEW_LEAVES:
        return ""
    command = f"galbatch catalog index {catalog_path}"
    try:
        state = state_of(catalog_path)
    except CatalogError:
        return ""
    if is_current(catalog_path, INDEX, state):
        return ""
    if not properties_of(part_path(catalog_path, INDEX), [STATE]):
        return f"ids of all leaves are read, as there is no index; {command} makes it"
    return f"ids of all leaves are read, as the index is of an earlier state of the catalog; {command} makes it again"


def find_places(catalog_path: str, object_ids: Sequence[int | str]) -> dict[int | str, int] | None:
    """Return the HEALPix index at order 29 of objects, by id, from the index; None if there is no current index.

    Parameters
    ----------
    catalog_path : str
    object_ids : sequence of int or str
        Ids of the type that the catalog's have; those that it does not have are left out.

    Raises
    ------
    DamagedError
        A file of the index cannot be read.
    """
    try:
        if not is_current(catalog_path, INDEX, state_of(catalog_path)):
            return None
    except (CatalogError, FileNotFoundError):
        return None
    path = part_path(catalog_path, INDEX)
    found: dict[int | str, int] = {}
    try:
        metadata = read_leaf_metadata(storage.join(path, layout.METADATA))[0]
        groups = _groups_with(metadata, object_ids)
        files = [storage.join(path, layout.DATASET, name) for name in groups]
        read = partial(_read_places, metadata=metadata, wanted=pa.array(object_ids))
        with ThreadPoolExecutor(leaves_at_once(catalog_path)) as pool:
            for ids, places in pool.map(read, files, groups.values()):
                found |= dict(zip(ids, places, strict=True))
    except (pa.ArrowInvalid, OSError, DamagedError) as error:
        raise DamagedError(
            path, f"cannot be read ({error}); galbatch catalog index {catalog_path} makes it again"
        ) from error
    return found


def _groups_with(metadata: pq.FileMetaData, object_ids: Sequence[int | str]) -> dict[str, list[int]]:
    """Return the row groups of the index that may have one of the ids, by the name of their file; `metadata` are those of all files."""
    numbers = range(metadata.num_row_groups)

    # Cached, as every search begins at the same row groups.
    @cache
    def first_id(number: int) -> Any:
        return metadata.row_group(number).column(0).statistics.min

    # Row groups are sorted by id, over all files: a dozen of them are looked at for each id, instead of thousands.
    found = {bisect_right(numbers, one, key=first_id) - 1 for one in object_ids} - {-1}
    groups: dict[str, list[int]] = defaultdict(list)
    for number in sorted(found):
        groups[metadata.row_group(number).column(0).file_path].append(number)
    return groups


def _read_places(
    path: str, groups: list[int], *, metadata: pq.FileMetaData, wanted: pa.Array
) -> tuple[list[Any], list[int]]:
    """Return the wanted ids of some row groups of a file, and their HEALPix indices; groups are numbered over all files, as in `metadata`."""
    with storage.open_file(path) as file:
        # With the metadata of all files its own footer, of a thousand row groups, is not read again.
        rows = pq.ParquetFile(file, metadata=metadata).read_row_groups(
            groups, columns=[ID.name, HEALPIX.name], use_threads=False
        )
    rows = rows.filter(pc.is_in(rows.column(ID.name), wanted))
    return rows.column(ID.name).to_pylist(), rows.column(HEALPIX.name).to_pylist()
