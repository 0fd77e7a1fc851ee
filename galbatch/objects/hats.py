"""A HATS catalog as a source of objects, read file by file; ids found in several files are rejected as duplicates."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from galbatch import storage
from galbatch.config import ObjectsConfig
from galbatch.core import sky
from galbatch.core.pixels import HealpixPixel, split_path
from galbatch.core.types import ObjectTable
from galbatch.errors import ObjectListError
from galbatch.objects.reading import (
    DUPLICATE,
    InputColumns,
    examine,
    input_columns,
    kept_names,
    psf_widths,
    read_list,
    refuse_empty,
    refuse_rejected,
    sorted_objects,
)
from galbatch.objects.region import Region, region_of
from galbatch.objects.rows import ListCounts
from galbatch.objects.tables import joined

__all__ = [
    "HATS_ENTRIES",
    "HatsSource",
    "examined_hats",
    "first_leaf",
    "open_hats",
    "position_names",
    "read_properties",
]

OUTSIDE_PIXEL = "position outside the file's HEALPix pixel"

HATS_ENTRIES = ("hats.properties", "properties", "partition_info.csv")
# What follows a pixel in the path of one of its files: HATS allows a file, or a folder of several.
LEAF_ENDING = re.compile(r"\.parquet|/.+\.parquet")

N_BUCKETS = 64
"""Ids are compared a 64th at a time: 8 bytes each, 128 MB for a billion objects."""


@dataclass(frozen=True)
class HatsSource:
    """A HATS catalog with one chunk for each of its pixels, read on demand.

    Attributes
    ----------
    config : ``[objects]``, with the names of the position columns
    files : paths of each chunk's files
    kept : schema of the kept columns: that of the first file
    region : what ``[objects] region`` names
    repeated : ids found in more than one chunk, with the number of the first chunk that holds each
    inputs : columns that are auxiliary inputs of networks
    """

    config: ObjectsConfig
    files: tuple[tuple[str, ...], ...]
    ranges: tuple[tuple[int, int], ...]
    kept: pa.Schema
    rejected: pa.Table
    region: Region | None = None
    listed: ListCounts = field(default_factory=ListCounts)
    counts: tuple[int, ...] = ()
    repeated: Mapping[Any, int] = field(default_factory=dict)
    inputs: InputColumns = field(default_factory=dict)

    def read(self, chunk: int) -> ObjectTable:
        path = self.files[chunk][0]
        wanted = [*self.kept.names, *self.config.psf_fwhm_arcsec.values(), *self.inputs]
        table, _ = self._read_files(chunk, wanted)
        kept = self.cast(table.select(self.kept.names), self.kept, chunk)
        psf = psf_widths(path, table, columns=self.config.psf_fwhm_arcsec)
        inputs = input_columns(path, table, self.inputs)
        return sorted_objects(self._examined(chunk, table), kept, psf=psf, inputs=inputs)

    def cast(self, table: pa.Table, schema: pa.Schema, chunk: int) -> pa.Table:
        """Return columns of a chunk with the types of the first file; raise ObjectListError where they differ too much."""
        try:
            # A cast of no columns forgets how many rows there are.
            return table.cast(schema) if schema.names else table
        except pa.ArrowException as error:
            raise ObjectListError(
                f"{self.files[chunk][0]}: its columns are not of the kinds of {self.files[0][0]}: {error}"
            ) from None

    def examine(self, chunk: int) -> tuple[pa.Table, ListCounts]:
        """Return the ids and positions of a chunk's chosen rows, and why one cannot be used, as `reading.examine` does; and the numbers of all."""
        table, counts = self._read_files(chunk, ())
        return self._examined(chunk, table), counts

    def rows(self, chunk: int, columns: Sequence[str]) -> tuple[pa.Table, npt.NDArray[np.bool_]]:
        """Return columns of a chunk's chosen rows, and which of them can be used, (row,) bool."""
        table, _ = self._read_files(chunk, columns)
        return table.select(list(columns)), np.asarray(
            pc.is_null(self._examined(chunk, table).column("reason"))
        )

    def _read_files(self, chunk: int, keep: Sequence[str]) -> tuple[pa.Table, ListCounts]:
        columns = [self.config.id, self.config.ra, self.config.dec, *keep]
        parts = [read_list(path, self.config, columns, region=self.region) for path in self.files[chunk]]
        return joined(self.files[chunk][0], [table for table, _ in parts]), sum(
            (n for _, n in parts), ListCounts()
        )

    def _examined(self, chunk: int, table: pa.Table) -> pa.Table:
        """Examine the rows as `reading.examine`; also reject ids of earlier chunks and positions outside the pixel."""
        listed = examine(self.files[chunk][0], table, objects=self.config)
        reasons, ids = listed.column("reason"), listed.column("object_id")
        usable = np.asarray(pc.is_null(reasons))
        earlier = pa.array([key for key, first in self.repeated.items() if first < chunk], ids.type)
        repeated = usable & np.asarray(pc.is_in(ids, value_set=earlier))
        # Positions that are not finite have no HEALPix index: only the usable rows' are computed.
        rows = np.flatnonzero(usable)
        ra, dec = listed.column("ra_deg").to_numpy()[rows], listed.column("dec_deg").to_numpy()[rows]
        index = sky.healpix_29(np.mod(ra, 360.0), dec)
        first, last = self.ranges[chunk]
        outside = np.zeros(len(listed), np.bool_)
        outside[rows] = (index < first) | (index >= last)
        reasons = pc.if_else(pa.array(repeated), DUPLICATE, reasons)
        reasons = pc.if_else(pa.array(outside), OUTSIDE_PIXEL, reasons)
        return listed.set_column(listed.schema.get_field_index("reason"), "reason", reasons)


def open_hats(objects: ObjectsConfig, inputs: InputColumns, region: Region | None) -> HatsSource:
    """Open a HATS catalog and read through its ids and positions once; raise as `open_objects` does."""
    source = examined_hats(objects, inputs, region)
    refuse_rejected(objects, n_rows=source.listed.n_chosen, rejected=source.rejected)
    return source


def examined_hats(objects: ObjectsConfig, inputs: InputColumns, region: Region | None) -> HatsSource:
    """Open a HATS catalog as `open_hats` does, whatever rows of it cannot be used."""
    # Columns named in run.toml take precedence over the catalog's own statement.
    stated = {
        key: name for key, name in position_names(objects.path).items() if key not in objects.model_fields_set
    }
    region = region or region_of(objects.region)
    pixels, files = _pixels_and_files(objects.path)
    ranges = tuple(pixel.index_range for pixel in pixels)
    named = objects.model_copy(update=stated)
    keep = kept_names(named)
    # The first file stands for all: its columns and their types become the catalog's.
    first, _ = read_list(files[0][0], named, [*keep, *inputs], region=region)
    input_columns(files[0][0], first, inputs)
    kept = first.select(keep).schema
    unread = HatsSource(named, files, ranges, kept, rejected=pa.table({}), inputs=inputs, region=region)
    source = _counted(unread)
    n_rows = source.listed.n_listed
    n_stated = _properties_of(objects.path).get("hats_nrows", str(n_rows))
    if n_stated != str(n_rows):
        raise ObjectListError(
            f"{objects.path}: its files hold {n_rows} rows, its properties say hats_nrows = {n_stated}; a file is "
            "probably missing: fetch the catalog again"
        )
    refuse_empty(objects, source.listed)
    return source


def position_names(path: str) -> dict[str, str]:
    """Return the columns of ra and dec that a HATS catalog's properties state, as far as they do."""
    properties = _properties_of(path)
    return {key: properties[f"hats_col_{key}"] for key in ("ra", "dec") if f"hats_col_{key}" in properties}


def first_leaf(path: str) -> str:
    """Return the first file of a HATS catalog, whose columns stand for those of all."""
    return _pixels_and_files(path)[1][0][0]


def _properties_of(path: str) -> dict[str, str]:
    # Today's name first: catalogs of 2024 and 2025 have both files, and later tools update hats.properties only.
    for entry in (storage.join(path, name) for name in HATS_ENTRIES[:2]):
        if storage.exists(entry) and (properties := read_properties(entry)):
            return properties
    return {}


def read_properties(path: str) -> dict[str, str]:
    """Read a file of ``key = value`` lines."""
    lines = storage.read_bytes(path).decode("utf-8").splitlines()
    pairs = [line.split("=", 1) for line in lines if "=" in line and not line.startswith("#")]
    return {key.strip(): value.strip() for key, value in pairs}


def _pixels_and_files(path: str) -> tuple[list[HealpixPixel], tuple[tuple[str, ...], ...]]:
    """Return the catalog's pixels in the order of their HEALPix index, and the paths of each pixel's files."""
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


# --- ids that stand in several files ---------------------------------------------------------------------


def _counted(source: HatsSource) -> HatsSource:
    """Return the source with its counts, rejected rows and repeated ids."""
    with tempfile.TemporaryDirectory(prefix="galbatch-ids-") as folder:
        buckets = _HashBuckets(Path(folder))
        source = _read_through(source, buckets)
        hashes = buckets.repeated()
    if not len(hashes):
        return source
    # Different ids may share a hash: the ids themselves are compared, of the few that can be meant.
    first: dict[Any, int] = {}
    repeated: dict[Any, int] = {}
    for chunk in range(len(source.files)):
        listed, _ = source.examine(chunk)
        ids = listed.column("object_id").filter(pc.is_null(listed.column("reason")))
        for key in ids.filter(pa.array(np.isin(_hashes(ids), hashes))).to_pylist():
            if key in first:
                repeated[key] = first[key]
            first.setdefault(key, chunk)
    return _read_through(dataclasses.replace(source, repeated=repeated))


def _read_through(source: HatsSource, buckets: _HashBuckets | None = None) -> HatsSource:
    """Return the source with its counts and rejected rows; fill the buckets with ids' hashes."""
    counts, rejected, all_counts = list[int](), list[pa.Table](), ListCounts()
    for chunk in range(len(source.files)):
        listed, found = source.examine(chunk)
        good = pc.is_null(listed.column("reason"))
        if buckets is not None:
            buckets.add(_hashes(listed.column("object_id").filter(good)))
        counts.append(int(pc.sum(good).as_py() or 0))
        rejected.append(listed.filter(pc.invert(good)))
        all_counts += found
    whole = pa.concat_tables(rejected)
    return dataclasses.replace(source, counts=tuple(counts), rejected=whole, listed=all_counts)


def _hashes(ids: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """Return 64 bits of each id, shape (object,): an integer is its own hash."""
    if pa.types.is_integer(ids.type):
        return np.asarray(ids.to_numpy(), np.int64).view(np.uint64)
    import pandas as pd  # 0.2 s, which workers and lists that are no HATS catalogs need not wait for

    return np.asarray(pd.util.hash_array(ids.to_numpy(), categorize=False), np.uint64)


class _HashBuckets:
    """Hashes in temporary files, equal ones in the same."""

    def __init__(self, folder: Path) -> None:
        self._paths = [folder / f"{number:02d}" for number in range(N_BUCKETS)]

    def add(self, hashes: npt.NDArray[np.uint64]) -> None:
        # Ids often share their leading digits: a multiplication spreads them (Knuth, TAOCP 6.4).
        # The constant is 2^64 divided by the golden ratio; the upper half of the product is mixed best.
        mixed = (hashes * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
        bucket = mixed % np.uint64(len(self._paths))
        rank = np.argsort(bucket, kind="stable")
        bounds = np.searchsorted(bucket[rank], np.arange(len(self._paths) + 1))
        for path, (start, stop) in zip(self._paths, pairwise(bounds), strict=True):
            if stop > start:
                with path.open("ab") as file:
                    hashes[rank[start:stop]].tofile(file)

    def repeated(self) -> npt.NDArray[np.uint64]:
        """Return the hashes that were added more than once, sorted."""
        found = [np.zeros(0, np.uint64)]
        for path in self._paths:
            if path.exists():
                hashes = np.sort(np.fromfile(path, np.uint64))
                found.append(np.unique(hashes[1:][hashes[1:] == hashes[:-1]]))
        return np.sort(np.concatenate(found))
