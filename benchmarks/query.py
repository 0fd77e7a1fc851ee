"""How fast are a cone and a hundred ids in a catalog of ten million objects, against pandas, LSDB and a scan?

All is processor time, with files that the system holds in memory; of the hundred ids also the elapsed time after their pages were
dropped, as with a catalog that is larger than memory. A scan is what a user without an index does: LSDB's `query`, or pandas'
`read_parquet` of the folder of leaves, then `isin`.

The catalog has a million objects in a square degree, in leaves as a run writes them, and 35 columns. Its rows are also in one
Parquet file, which pandas reads. Ids have nothing to do with positions: a hundred of them lie in a hundred leaves. Run:
python benchmarks/query.py [--objects N] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import harness
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from galbatch import catalog
from galbatch.catalog import leaves, reading
from galbatch.core import sky
from galbatch.core.columns import MC_ERROR, MODEL_FLAGS, PASSES, PIXEL_FLAGS, Column, ColumnKey, Statistic
from galbatch.core.pixels import HealpixPixel, Partition

N_OBJECTS = 10_000_000
LEAF_OBJECTS = 20_000
"""The most objects of a partition, as run.toml has by default."""
OBJECTS_PER_DEG2 = 1_000_000
CENTER_DEG = (150.0, 2.0)
RADIUS_ARCSEC = 60.0
N_IDS = 100

LEVELS = (0.02275, 0.15865, 0.5, 0.84135, 0.97725)
QUANTITIES = {"bt": "", "re_arcsec": "arcsec", "flux_njy": "nJy"}
SCALARS = (Statistic.MEAN, Statistic.STD, Statistic.MODE, Statistic.EPISTEMIC_STD)
SHOWN = ["object_id", "ra_deg", "dec_deg", "gampen_re_arcsec_q500", "flags", "gampen_flags"]
"""What is asked for about a place: the columns of a first look."""


def result_columns() -> list[Column]:
    """Columns as a GaMPEN has them."""
    keys = [
        (name, key)
        for name in QUANTITIES
        for key in (
            *(ColumnKey(Statistic.QUANTILE, name, level=level) for level in LEVELS),
            *(ColumnKey(statistic, name) for statistic in SCALARS),
        )
    ]
    quantities = [key.column("gampen", unit=QUANTITIES[name], what=name) for name, key in keys]
    return [
        PIXEL_FLAGS,
        *quantities,
        *(one.column("gampen") for one in (PASSES, MC_ERROR, MODEL_FLAGS)),
    ]


COLUMNS = result_columns()


@dataclass(frozen=True)
class Made:
    """The catalog and the file with the same rows, and ids to look up."""

    catalog: str
    file: str
    ids: list[int]


def positions(n_objects: int) -> tuple[np.ndarray, np.ndarray]:
    """A uniform field, sorted by HEALPix index: index and position."""
    rng = np.random.default_rng(1)
    half = np.sqrt(n_objects / OBJECTS_PER_DEG2) / 2
    ra = rng.uniform(CENTER_DEG[0] - half, CENTER_DEG[0] + half, n_objects)
    dec = rng.uniform(CENTER_DEG[1] - half, CENTER_DEG[1] + half, n_objects)
    place = np.stack([ra, dec])
    index_29 = sky.healpix_29(ra, dec)
    order = np.argsort(index_29)
    return index_29[order], place[:, order]


def divide(index_29: np.ndarray, leaf_objects: int) -> list[Partition]:
    """Pixels that are split until they have few enough objects."""
    todo = [HealpixPixel(0, pixel) for pixel in range(12)]
    found = []
    while todo:
        pixel = todo.pop()
        start, stop = np.searchsorted(index_29, pixel.index_range).tolist()
        if stop - start > leaf_objects:
            children = range(4 * pixel.healpix_pixel, 4 * pixel.healpix_pixel + 4)
            todo += [HealpixPixel(pixel.healpix_order + 1, child) for child in children]
        elif stop > start:
            found.append(Partition(pixel.healpix_order, pixel.healpix_pixel, start, stop))
    return sorted(found, key=lambda one: one.start)


def rows_of(partition: Partition, index_29: np.ndarray, place: np.ndarray, ids: np.ndarray) -> pa.Table:
    rows = slice(partition.start, partition.stop)
    rng = np.random.default_rng(partition.start)
    values = [
        rng.normal(1, 0.3, partition.n_objects).astype(column.dtype)
        if column.dtype == "float32"
        else rng.choice([0, 4, 64], partition.n_objects, p=[0.9, 0.05, 0.05]).astype(column.dtype)
        for column in COLUMNS
    ]
    schema = catalog.leaf_schema(COLUMNS, id_type=pa.int64(), kept=pa.schema([]))
    own = [index_29[rows], ids[rows], place[0, rows], place[1, rows]]
    return pa.table([pa.array(value) for value in (*own, *values)], schema=schema)


def make(folder: Path, n_objects: int = N_OBJECTS, *, leaf_objects: int = LEAF_OBJECTS) -> Made:
    """Write the catalog with its index, and the file for pandas; what is there already stays."""
    index_29, place = positions(n_objects)
    ids = 40_000_000_000_000_000 + np.random.default_rng(2).permutation(n_objects)
    some = np.random.default_rng(3).choice(ids, N_IDS, replace=False).tolist()
    made = Made(str(folder / "catalog"), str(folder / "one_file.parquet"), some)
    if Path(made.catalog, "properties").exists() and Path(made.file).exists():
        return made
    partitions = divide(index_29, leaf_objects)

    def write(partition: Partition) -> None:
        table = rows_of(partition, index_29, place, ids)
        catalog.write_leaf(made.catalog, partition, table, footer={})

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, partitions))
    catalog.finish(made.catalog, partitions=partitions, properties={}, n_rows_expected=n_objects)
    catalog.make_index(made.catalog)
    schema = catalog.read_schema(made.catalog)
    with pq.ParquetWriter(made.file, schema) as writer:
        # A million rows a row group, as pandas' to_parquet makes them.
        for start in range(0, len(partitions), 64):
            paths = [catalog.leaf_path(made.catalog, one) for one in partitions[start : start + 64]]
            tables = [pq.ParquetFile(leaf).read().replace_schema_metadata(None) for leaf in paths]
            writer.write_table(pa.concat_tables(tables), row_group_size=1024**2)
    return made


def our_cone(made: Made) -> pa.Table:
    return catalog.cone(
        made.catalog,
        ra_deg=CENTER_DEG[0],
        dec_deg=CENTER_DEG[1],
        radius_arcsec=RADIUS_ARCSEC,
        columns=SHOWN,
    )


def pandas_cone(made: Made, **options: Any) -> pd.DataFrame:
    frame = pd.read_parquet(made.file, columns=SHOWN, **options)
    separation = sky.separation_arcsec(*CENTER_DEG, frame["ra_deg"].to_numpy(), frame["dec_deg"].to_numpy())
    return frame[separation <= RADIUS_ARCSEC]


def box_filters() -> list[tuple[str, str, float]]:
    """Limits of position, by which pandas can leave out row groups of the file, as it is sorted by HEALPix."""
    half = 1.1 * RADIUS_ARCSEC / 3600
    return [
        (name, sign, center + step)
        for name, center in zip(("ra_deg", "dec_deg"), CENTER_DEG, strict=True)
        for sign, step in ((">=", -half), ("<=", half))
    ]


def compare_cones(made: Made, rounds: int) -> list[harness.Measured]:
    """A circle of 1 arcmin, with the columns of a first look."""
    import lsdb

    opened = lsdb.open_catalog(made.catalog, columns=SHOWN)
    search = lsdb.ConeSearch(*CENTER_DEG, radius_arcsec=RADIUS_ARCSEC)
    contenders: dict[str, Callable[[], Any]] = {
        "galbatch": lambda: our_cone(made),
        "LSDB": lambda: lsdb.open_catalog(made.catalog, columns=SHOWN, search_filter=search).compute(),
        "LSDB, catalog opened before": lambda: opened.cone_search(
            *CENTER_DEG, radius_arcsec=RADIUS_ARCSEC
        ).compute(),
        "pandas, one file": lambda: pandas_cone(made),
        "pandas, one file, filters": lambda: pandas_cone(made, filters=box_filters()),
    }
    expected = sorted(our_cone(made)["object_id"].to_pylist())
    assert all(
        sorted(ask()["object_id"]) == expected for name, ask in contenders.items() if name != "galbatch"
    )
    return harness.compare(contenders, rounds=rounds, clock=time.process_time)


@contextlib.contextmanager
def without_index() -> Iterator[None]:
    with mock.patch.object(reading, "find_places", return_value=None):
        yield


def read_ids(made: Made, ids: list[int]) -> pa.Table:
    return catalog.read_objects(made.catalog, [str(one) for one in ids])


def scan_ids(made: Made, ids: list[int]) -> pa.Table:
    with without_index():
        return read_ids(made, ids)


def pandas_scan(folder: str, ids: list[int]) -> pd.DataFrame:
    """Return the rows of some ids from all leaves, as a user without an index finds them."""
    frame = pd.read_parquet(folder)
    return frame[frame["object_id"].isin(ids)]


def drop_pages(made: Made) -> None:
    """Let the system forget what it holds in memory of the catalog's files, so that they are read from the disk."""
    folders = (Path(made.catalog), Path(catalog.collection_path(made.catalog)))
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    for path in (*files, Path(made.file)):
        with path.open("rb") as file:
            # Pages that are not yet on the disk cannot be dropped.
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def compare_ids(
    made: Made,
    ids: list[int],
    rounds: int,
    *,
    before: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.process_time,
) -> list[harness.Measured]:
    """Some ids, with all columns."""
    import lsdb

    opened = lsdb.open_catalog(catalog.collection_path(made.catalog), columns="all")
    leaves_alone = lsdb.open_catalog(made.catalog, columns="all")
    leaves_folder, wanted = f"{made.catalog}/dataset", [("object_id", "in", ids)]
    contenders: dict[str, Callable[[], Any]] = {
        "galbatch, index": lambda: read_ids(made, ids),
        "galbatch, all leaves": lambda: scan_ids(made, ids),
        "LSDB, our index": lambda: opened.id_search(values={"object_id": ids}).compute(),
        "pandas, one file, filters": lambda: pd.read_parquet(made.file, filters=wanted),
        "pandas, all leaves, filters": lambda: pd.read_parquet(leaves_folder, filters=wanted),
        "pandas, all leaves": lambda: pandas_scan(leaves_folder, ids),
        "LSDB, all leaves": lambda: leaves_alone.query(f"object_id in {ids}").compute(),
    }
    expected = sorted(ids)
    # LSDB prints what it searches for.
    with contextlib.redirect_stdout(None):
        assert all(
            sorted(ask()["object_id"].tolist()) == expected for ask in map(_as_frame, contenders.values())
        )
        return harness.compare(contenders, rounds=rounds, warm_up=False, before=before, clock=clock)


def _as_frame(ask: Callable[[], Any]) -> Callable[[], Any]:
    def asked() -> Any:
        found = ask()
        return found.to_pandas() if isinstance(found, pa.Table) else found

    return asked


@dataclass
class Counted:
    """Leaves that were opened, row groups that were read, and those that there are."""

    leaves: int = 0
    groups: int = 0


@contextlib.contextmanager
def counting(made: Made) -> Iterator[Counted]:
    """Counts the leaves whose rows are read, and the row groups."""
    seen: set[tuple[Any, int]] = set()
    read = pq.ParquetFile.read_row_groups
    one = pq.ParquetFile.read_row_group

    def record(file: pq.ParquetFile, numbers: Sequence[int]) -> None:
        # Of the index nothing is counted; it has no positions.
        if "ra_deg" in file.schema_arrow.names:
            leaf = file.metadata.row_group(0).column(0).statistics.min
            seen.update((leaf, number) for number in numbers)
            counted.groups, counted.leaves = len(seen), len({leaf for leaf, _ in seen})

    def read_row_groups(self: pq.ParquetFile, numbers: Sequence[int], **options: Any) -> pa.Table:
        record(self, numbers)
        return read(self, numbers, **options)

    def read_row_group(self: pq.ParquetFile, number: int, **options: Any) -> pa.Table:
        record(self, [number])
        return one(self, number, **options)

    counted = Counted()
    with (
        mock.patch.object(pq.ParquetFile, "read_row_groups", read_row_groups),
        mock.patch.object(pq.ParquetFile, "read_row_group", read_row_group),
    ):
        yield counted


def count(made: Made) -> dict[str, Counted]:
    """What is read for each question."""
    with counting(made) as cone:
        our_cone(made)
    with counting(made) as ids:
        read_ids(made, made.ids)
    there = catalog.list_leaves(made.catalog)
    groups = sum(pq.read_metadata(catalog.leaf_path(made.catalog, one)).num_row_groups for one in there)
    return {"cone": cone, "ids": ids, "all": Counted(len(there), groups)}


def measure(folder: Path, n_objects: int, *, leaf_objects: int = LEAF_OBJECTS, rounds: int = 5) -> None:
    """Print and keep the tables."""
    made = make(folder, n_objects, leaf_objects=leaf_objects)
    for name, counted in count(made).items():
        print(f"{name}: {counted.leaves} leaves, {counted.groups} row groups")
    size = f"{n_objects / 1e6:g} million rows"
    harness.report(f"a cone of 1 arcmin in {size}", compare_cones(made, rounds), items=1, unit="cone")
    harness.report(f"{N_IDS} ids in {size}", compare_ids(made, made.ids, rounds), items=N_IDS, unit="id")
    from_disk = compare_ids(
        made, made.ids, rounds, before=functools.partial(drop_pages, made), clock=time.perf_counter
    )
    harness.report(f"{N_IDS} ids in {size}, read from the disk", from_disk, items=N_IDS, unit="id")
    harness.report(f"one id in {size}", compare_ids(made, made.ids[:1], rounds), items=1, unit="id")


def compare_row_groups(
    folder: Path, n_objects: int, *, leaf_objects: int = LEAF_OBJECTS, rounds: int = 5
) -> None:
    """Row groups of several sizes, against leaves of one row group."""
    made = {}
    for rows in (leaf_objects, leaf_objects // 5, leaf_objects // 10, leaf_objects // 20):
        with mock.patch.object(leaves, "LEAF_GROUP_ROWS", rows):
            made[f"{rows} rows"] = make(folder / str(rows), n_objects, leaf_objects=leaf_objects)
    questions = {
        "a cone of 1 arcmin": our_cone,
        "100 ids": lambda one: read_ids(one, one.ids),
        "all columns": read_all,
    }
    for question, ask in questions.items():
        asked = {name: functools.partial(ask, one) for name, one in made.items()}
        harness.report(f"Row groups: {question}", harness.compare(asked, rounds=rounds), items=1, unit="time")
    for name, one in made.items():
        size = sum(path.stat().st_size for path in Path(one.catalog, "dataset").rglob("*.parquet"))
        print(f"{name}: {size / 1e6:.1f} MB")


def read_all(made: Made) -> int:
    return catalog.read_catalog(made.catalog).num_rows


def main() -> None:
    """Measure in a folder that is kept if one is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=N_OBJECTS)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="query-")))
        measure(folder, options.objects, rounds=options.rounds)
        compare_row_groups(folder / "row_groups", options.objects // 50, rounds=options.rounds)


if __name__ == "__main__":
    main()
