"""Where a run's objects come from: a list that fits in memory, or a HATS catalog that is read file by file.

Both give their objects along HEALPix in **chunks** that fit in memory: a list is one chunk, a HATS catalog one
for each of its pixels. Memory is bounded by the largest chunk.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from galbatch import storage
from galbatch.config import ObjectsConfig
from galbatch.core import sky
from galbatch.core.pixels import HealpixPixel, split_path
from galbatch.core.types import ObjectTable
from galbatch.errors import ObjectListError
from galbatch.objects import tables

__all__ = ["HatsSource", "ListSource", "ObjectSource", "is_hats", "open_objects"]

WHOLE_SKY = (0, 12 << 58)
"""All indices of order 29."""

OUTSIDE_PIXEL = "position outside the file's HEALPix pixel"

COLLECTION = "collection.properties"
HATS_ENTRIES = ("hats.properties", "properties", "partition_info.csv")
# What follows a pixel in the path of one of its files: HATS allows a file, or a folder of several.
LEAF_ENDING = re.compile(r"\.parquet|/.+\.parquet")

N_BUCKETS = 64
"""Ids are compared a 64th at a time: 8 bytes each, 128 MB for a billion objects."""


class ObjectSource(Protocol):
    """Objects along HEALPix, in chunks that fit in memory."""

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """Half-open range of healpix_29 of each chunk; rising, disjoint."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Objects in each chunk."""

    @property
    def rejected(self) -> pa.Table:
        """Rows left out: object_id, ra_deg, dec_deg and reason."""

    def read(self, chunk: int) -> ObjectTable:
        """The objects of a chunk."""


@dataclass(frozen=True)
class ListSource:
    """Objects that are in memory: one chunk."""

    objects: ObjectTable
    rejected: pa.Table

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """The whole sky."""
        return (WHOLE_SKY,)

    @property
    def counts(self) -> tuple[int, ...]:
        """All objects."""
        return (len(self.objects),)

    def read(self, chunk: int) -> ObjectTable:
        """See `ObjectSource`."""
        return self.objects


def open_objects(objects: ObjectsConfig, *, inputs: Sequence[str] = ()) -> ObjectSource:
    """The source for ``[objects]``, with the columns `inputs` that networks take: what is wrong is found here.

    Raises
    ------
    ObjectListError, ConfigError
        As `tables.read_objects`; or a HATS catalog is not whole, or not partitioned by these positions.
    """
    if objects.path.lower().endswith(tuple(tables.READERS)):
        return ListSource(*tables.read_objects(objects, inputs=inputs))
    if not is_hats(objects.path):
        raise ObjectListError(
            f"{objects.path}: is neither a table ({', '.join(tables.READERS)}) nor the folder of a HATS catalog "
            f"(none of {', '.join(HATS_ENTRIES)} is there){_hint(objects.path)}"
        )
    return _open_hats(objects, inputs)


def _hint(path: str) -> str:
    collection = storage.join(path, COLLECTION)
    if not storage.exists(collection):
        return ""
    table = _properties(collection).get("hats_primary_table_url", "the table's folder")
    return f"; it is a HATS collection: give {storage.join(path, table)}"


def is_hats(path: str) -> bool:
    """Whether a HATS catalog lies at `path`."""
    if path.lower().endswith(tuple(tables.READERS)):
        return False
    return any(storage.exists(storage.join(path, name)) for name in HATS_ENTRIES)


# --- HATS ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HatsSource:
    """A HATS catalog: one chunk for each of its pixels, read when asked for.

    Attributes
    ----------
    config : ``[objects]``, with the names of the position columns
    files : paths of each chunk's files
    kept : schema of the kept columns: that of the first file
    repeated : ids that stand in more than one chunk, and the chunk where each stands first
    inputs : names of the columns that networks take
    """

    config: ObjectsConfig
    files: tuple[tuple[str, ...], ...]
    ranges: tuple[tuple[int, int], ...]
    kept: pa.Schema
    rejected: pa.Table
    counts: tuple[int, ...] = ()
    repeated: Mapping[Any, int] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()

    def read(self, chunk: int) -> ObjectTable:
        """See `ObjectSource`."""
        path = self.files[chunk][0]
        table = self._table(chunk, [*self.kept.names, *self.config.psf_fwhm_arcsec.values(), *self.inputs])
        try:
            kept = table.select(self.kept.names)
            # A cast of no columns forgets how many rows there are.
            kept = kept.cast(self.kept) if self.kept.names else kept
        except pa.ArrowException as error:
            raise ObjectListError(
                f"{path}: its columns are not of the kinds of {self.files[0][0]}: {error}"
            ) from None
        psf = tables.psf_widths(path, table, objects=self.config)
        inputs = tables.input_columns(path, table, names=self.inputs)
        return tables.sorted_objects(self._examined(chunk, table), kept, psf=psf, inputs=inputs)

    def examine(self, chunk: int) -> pa.Table:
        """Ids and positions of a chunk's rows, and why a row cannot be used: see `tables.examine`."""
        return self._examined(chunk, self._table(chunk))

    def _examined(self, chunk: int, table: pa.Table) -> pa.Table:
        listed = tables.examine(self.files[chunk][0], table, objects=self.config)
        reasons = listed.column("reason")
        usable = np.asarray(pc.is_null(reasons))
        repeated = usable & self._in_earlier_chunk(chunk, listed)
        reasons = pc.if_else(pa.array(repeated), tables.DUPLICATE, reasons)
        reasons = pc.if_else(pa.array(self._is_outside(chunk, listed, usable)), OUTSIDE_PIXEL, reasons)
        return listed.set_column(listed.schema.get_field_index("reason"), "reason", reasons)

    def _is_outside(
        self, chunk: int, listed: pa.Table, usable: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.bool_]:
        """Which rows' positions lie in another pixel than their file's."""
        rows = np.flatnonzero(usable)
        ra, dec = listed.column("ra_deg").to_numpy()[rows], listed.column("dec_deg").to_numpy()[rows]
        index = sky.healpix_29(np.mod(ra, 360.0), dec)
        first, last = self.ranges[chunk]
        result = np.zeros(len(listed), np.bool_)
        result[rows] = (index < first) | (index >= last)
        return result

    def _in_earlier_chunk(self, chunk: int, listed: pa.Table) -> npt.NDArray[np.bool_]:
        earlier = [key for key, first in self.repeated.items() if first < chunk]
        ids = listed.column("object_id")
        return np.asarray(pc.is_in(ids, value_set=pa.array(earlier, ids.type)))

    def _table(self, chunk: int, keep: Sequence[str] = ()) -> pa.Table:
        return _read_files(self.files[chunk], self.config, keep)


def _read_files(files: Sequence[str], objects: ObjectsConfig, keep: Sequence[str]) -> pa.Table:
    columns = list(dict.fromkeys([objects.id, objects.ra, objects.dec, *keep]))
    return pa.concat_tables(tables.read_table(path, columns=columns) for path in files)


def _open_hats(objects: ObjectsConfig, inputs: Sequence[str]) -> HatsSource:
    properties = _catalog_properties(objects.path)
    names = {
        key: properties[f"hats_col_{key}"]
        for key in ("ra", "dec")
        if key not in objects.model_fields_set and f"hats_col_{key}" in properties
    }
    pixels, files = _leaves(objects.path)
    ranges = tuple(pixel.index_range for pixel in pixels)
    named = objects.model_copy(update=names)
    keep = tables.kept_names(named)
    first = _read_files(files[0], named, [*keep, *inputs])
    tables.input_columns(files[0][0], first, names=inputs)
    kept = first.select(keep).schema
    unread = HatsSource(named, files, ranges, kept, rejected=pa.table({}), inputs=tuple(inputs))
    source, n_rows = _counted(unread)
    stated = properties.get("hats_nrows", str(n_rows))
    if stated != str(n_rows):
        raise ObjectListError(
            f"{objects.path}: its files hold {n_rows} rows, its properties say hats_nrows = {stated}; a file is "
            "probably missing: fetch the catalog again"
        )
    tables.refuse_rejected(objects, n_rows=n_rows, rejected=source.rejected)
    return source


def _catalog_properties(path: str) -> dict[str, str]:
    """The catalog's properties; empty where there are none."""
    for name in HATS_ENTRIES[:2]:
        if storage.exists(storage.join(path, name)):
            return _properties(storage.join(path, name))
    return {}


def _properties(path: str) -> dict[str, str]:
    """``key = value`` lines."""
    lines = storage.read_bytes(path).decode("utf-8").splitlines()
    pairs = [line.split("=", 1) for line in lines if "=" in line and not line.startswith("#")]
    return {key.strip(): value.strip() for key, value in pairs}


def _leaves(path: str) -> tuple[list[HealpixPixel], tuple[tuple[str, ...], ...]]:
    """The catalog's pixels along HEALPix, and the files of each."""
    folder = storage.join(path, "dataset")
    found: dict[HealpixPixel, list[str]] = {}
    for name in sorted(storage.list_files(folder, suffix=".parquet")):
        split = split_path(name)
        if split is not None and LEAF_ENDING.fullmatch(split[1]):
            found.setdefault(split[0], []).append(storage.join(folder, name))
    if not found:
        raise ObjectListError(
            f"{path}: is a HATS catalog without files; expected dataset/Norder=*/Dir=*/Npix=*"
        )
    pixels = sorted(found, key=lambda pixel: (pixel.index_range[0], pixel.healpix_order))
    for before, after in pairwise(pixels):
        if after.index_range[0] < before.index_range[1]:
            raise ObjectListError(
                f"{path}: pixel {after.name} lies inside {before.name}; objects would count twice"
            )
    return pixels, tuple(tuple(found[pixel]) for pixel in pixels)


def _counted(source: HatsSource) -> tuple[HatsSource, int]:
    """The source with its counts, what it rejects and the ids that stand in several chunks; rows in all."""
    with tempfile.TemporaryDirectory(prefix="galbatch-ids-") as folder:
        buckets = _HashBuckets(Path(folder))
        source, n_rows = _read_through(source, buckets)
        repeated = buckets.repeated()
    if len(repeated):
        source, n_rows = _read_through(_with_repeated(source, repeated))
    return source, n_rows


def _read_through(source: HatsSource, buckets: _HashBuckets | None = None) -> tuple[HatsSource, int]:
    counts, rejected, n_rows = list[int](), list[pa.Table](), 0
    for chunk in range(len(source.files)):
        listed = source.examine(chunk)
        good = pc.is_null(listed.column("reason"))
        if buckets is not None:
            buckets.add(_hashes(listed.column("object_id").filter(good)))
        counts.append(int(pc.sum(good).as_py() or 0))
        rejected.append(listed.filter(pc.invert(good)))
        n_rows += len(listed)
    whole = pa.concat_tables(rejected)
    return dataclasses.replace(source, counts=tuple(counts), rejected=whole), n_rows


def _with_repeated(source: HatsSource, hashes: npt.NDArray[np.uint64]) -> HatsSource:
    """Find the ids behind repeated hashes: those that stand in two chunks."""
    first: dict[Any, int] = {}
    repeated: dict[Any, int] = {}
    for chunk in range(len(source.files)):
        listed = source.examine(chunk)
        ids = listed.column("object_id").filter(pc.is_null(listed.column("reason")))
        for key in ids.filter(pa.array(np.isin(_hashes(ids), hashes))).to_pylist():
            if key in first:
                repeated[key] = first[key]
            first.setdefault(key, chunk)
    return dataclasses.replace(source, repeated=repeated)


def _hashes(ids: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """64 bits of each id: integers are their own."""
    if pa.types.is_integer(ids.type):
        return np.asarray(ids.to_numpy(), np.int64).view(np.uint64)
    return np.asarray(pd.util.hash_array(ids.to_numpy(), categorize=False), np.uint64)


class _HashBuckets:
    """Hashes in temporary files, equal ones in the same."""

    def __init__(self, folder: Path) -> None:
        self._paths = [folder / f"{number:02d}" for number in range(N_BUCKETS)]

    def add(self, hashes: npt.NDArray[np.uint64]) -> None:
        # Ids often share their leading digits: a multiplication spreads them (Knuth, TAOCP 6.4).
        mixed = (hashes * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
        bucket = mixed % np.uint64(len(self._paths))
        rank = np.argsort(bucket, kind="stable")
        bounds = np.searchsorted(bucket[rank], np.arange(len(self._paths) + 1))
        for path, (start, stop) in zip(self._paths, pairwise(bounds), strict=True):
            if stop > start:
                with path.open("ab") as file:
                    hashes[rank[start:stop]].tofile(file)

    def repeated(self) -> npt.NDArray[np.uint64]:
        """Hashes that were added more than once, sorted."""
        return np.sort(np.concatenate([np.zeros(0, np.uint64), *self._repeated()]))

    def _repeated(self) -> Iterator[npt.NDArray[np.uint64]]:
        for path in self._paths:
            if path.exists():
                hashes = np.sort(np.fromfile(path, np.uint64))
                yield np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
