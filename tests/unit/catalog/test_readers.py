"""A catalog with rows that were not selected and rows that failed gives the same answers in every reader."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import astropy.units as u
import dask.dataframe
import duckdb
import lsdb
import nested_pandas
import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from astropy.table import QTable, Table, vstack

from galbatch import catalog
from galbatch.catalog.leaf_checks import leaf_problems
from galbatch.catalog.leaves import read_leaf
from galbatch.core import sky
from galbatch.core.columns import EMBEDDING, MODEL_FLAGS, PASSES, PIXEL_FLAGS, ColumnKey, Statistic
from galbatch.core.flags import ModelFlag
from galbatch.core.pixels import Partition
from tests.unit.objects.tables.test_kinds import KINDS, read_kind

from .conftest import divide, make_footer

N_OBJECTS = 300
RE = "net_re_arcsec_q500"
COLUMNS = (
    PIXEL_FLAGS,
    ColumnKey(Statistic.QUANTILE, "re_arcsec", level=0.15865).column("net", unit="arcsec", what="radius"),
    ColumnKey(Statistic.QUANTILE, "re_arcsec", level=0.5).column("net", unit="arcsec", what="radius"),
    ColumnKey(Statistic.LABEL, "re_arcsec").column("net", what="radius", labels="small"),
    PASSES.column("net"),
    ColumnKey(Statistic.FEATURE, rank=0).column("net"),
    ColumnKey(Statistic.ACTIVATION, rank=0).column("net"),
    replace(EMBEDDING.column("net", dtype="float32"), length=3),
    MODEL_FLAGS.column("net"),
    replace(EMBEDDING.column("half", dtype="float16"), dtype="float16", length=3),
    MODEL_FLAGS.column("half"),
)
VECTORS = ("net_embedding", "half_embedding")
KEPT = pa.schema([("z_best", pa.float64()), ("kind", pa.string()), ("n_visits", pa.int32())])


def make_table() -> pa.Table:
    random = np.random.default_rng(5)
    ra, dec = random.uniform(149.0, 151.0, N_OBJECTS), random.uniform(1.0, 3.0, N_OBJECTS)
    index = sky.healpix_29(ra, dec)
    order = np.argsort(index)
    values = {column.name: column.empty(N_OBJECTS) for column in COLUMNS}
    good = np.arange(N_OBJECTS) % 3 > 0  # a third was not selected
    failed = np.arange(N_OBJECTS) % 7 == 0
    rows = good & ~failed
    median = random.lognormal(0, 0.5, N_OBJECTS).astype(np.float32)
    values["net_re_arcsec_q15865"][rows] = median[rows] * np.float32(0.9)
    values[RE][rows] = median[rows]
    values["net_re_arcsec_label"][rows & (median < 1)] = "small"
    values["net_passes"][good], values["net_flags"][good] = 64, 0
    values["net_feature_0"][rows], values["net_activation_0"][rows] = 17, median[rows] / 2
    for name in VECTORS:
        # Multiples of a quarter, which float16 holds exactly.
        values[name][rows] = np.arange(3 * N_OBJECTS).reshape(-1, 3)[rows] / 4
    values["net_flags"][failed & good] = int(ModelFlag.MODEL_FAILED)
    z = np.where(np.arange(N_OBJECTS) % 5 == 0, np.nan, random.uniform(0, 1, N_OBJECTS))
    kept = [
        pa.array(z, mask=np.arange(N_OBJECTS) % 10 == 1),
        pa.array([None if i % 4 == 0 else "spiral" for i in range(N_OBJECTS)]),
        pa.array([None if i % 6 == 0 else i for i in range(N_OBJECTS)], pa.int32()),
    ]
    own = [index[order], 43_000_000_000_000_000 + order, ra[order], dec[order]]
    schema = catalog.leaf_schema(COLUMNS, id_type=pa.int64(), kept=KEPT)
    arrays = [*map(pa.array, own), *kept]
    arrays += [c.as_arrow(values[c.name]) for c in COLUMNS]
    return pa.table(arrays, schema=schema)


@pytest.fixture(scope="module")
def written() -> pa.Table:
    """The rows that are given to the writer, with NaN where a float is missing."""
    return make_table()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, written: pa.Table) -> str:
    folder = str(tmp_path_factory.mktemp("readers") / "catalog")
    partitions = divide(written)
    for partition in partitions:
        rows = written.slice(partition.start, partition.n_objects)
        catalog.write_leaf(folder, partition, rows, footer=make_footer(partition))
    catalog.finish(folder, partitions=partitions, properties={}, n_rows_expected=N_OBJECTS)
    assert catalog.verify(folder) == []
    return folder


def leaves_of(path: str) -> list[str]:
    return [catalog.leaf_path(path, leaf) for leaf in catalog.list_leaves(path)]


# --- every reader answers the same -----------------------------------------------------------------------

Answers = dict[str, Any]


def frame_answers(frame: Any) -> Answers:
    """Answers of pandas, Dask and their relatives."""
    if hasattr(frame, "compute"):
        frame = frame[[*USED]]
        larger, over = frame[frame[RE] > 1].compute(), frame.query("net_activation_0 > 0.5").compute()
        frame = frame.compute()
    else:
        larger, over = frame[frame[RE] > 1], frame.query("net_activation_0 > 0.5")
    return {
        "values": int(frame[RE].count()),
        "missing": int(frame[RE].isna().sum()),
        "mean": float(frame[RE].mean()),
        "above one": len(larger),
        "active": len(over),
        "largest": list(frame.sort_values(RE, ascending=False)["object_id"][:5]),
        "smallest": list(frame.sort_values(RE)["object_id"][:5]),
        "no passes": int((frame["net_passes"] == 0).sum()),
        "no feature": int((frame["net_feature_0"] == -1).sum()),
        "unlabeled": int((frame["net_re_arcsec_label"] == "").sum()),
        **vector_answers({name: list(frame[name]) for name in VECTORS}),
    }


USED = ("object_id", RE, "net_activation_0", "net_passes", "net_feature_0", "net_re_arcsec_label", *VECTORS)


def vector_answers(columns: dict[str, list[Any]]) -> Answers:
    """Shapes, sums of the second values and numbers of missing vectors, of lists or arrays that a reader gives."""
    found = {}
    for name, vectors in columns.items():
        array = np.array([[np.nan if v is None else v for v in vector] for vector in vectors], dtype=float)
        found[name] = (array.shape, float(np.nansum(array[:, 1])), int(np.isnan(array).all(axis=1).sum()))
    return found


def arrow_answers(path: str) -> Answers:
    table = pyarrow.dataset.dataset(f"{path}/dataset", ignore_prefixes=["_"]).to_table()
    larger = pc.field(RE) > 1
    return {
        "values": pc.count(table[RE]).as_py(),
        "missing": table[RE].null_count,
        "mean": pc.mean(table[RE].cast(pa.float64())).as_py(),
        "above one": len(table.filter(larger)),
        "active": len(table.filter(pc.field("net_activation_0") > 0.5)),
        "largest": table.sort_by([(RE, "descending")])["object_id"].to_pylist()[:5],
        "smallest": table.sort_by(RE)["object_id"].to_pylist()[:5],
        "no passes": len(table.filter(pc.field("net_passes") == 0)),
        "no feature": len(table.filter(pc.field("net_feature_0") == -1)),
        "unlabeled": len(table.filter(pc.field("net_re_arcsec_label") == "")),
        **vector_answers({name: table[name].to_pylist() for name in VECTORS}),
    }


def duckdb_answers(path: str) -> Answers:
    leaves = f"read_parquet('{path}/dataset/Norder*/**/*.parquet')"

    def ask(what: str, rest: str = "") -> list[Any]:
        return [row[0] for row in duckdb.sql(f"select {what} from {leaves} {rest}").fetchall()]

    return {
        "values": ask(f"count({RE})")[0],
        "missing": ask("count(*)", f"where {RE} is null")[0],
        "mean": ask(f"avg({RE})")[0],
        "above one": ask("count(*)", f"where {RE} > 1")[0],
        "active": ask("count(*)", "where net_activation_0 > 0.5")[0],
        "largest": ask("object_id", f"order by {RE} desc limit 5"),
        "smallest": ask("object_id", f"order by {RE} limit 5"),
        "no passes": ask("count(*)", "where net_passes = 0")[0],
        "no feature": ask("count(*)", "where net_feature_0 = -1")[0],
        "unlabeled": ask("count(*)", "where net_re_arcsec_label = ''")[0],
        **vector_answers({name: ask(name) for name in VECTORS}),
    }


def polars_answers(path: str) -> Answers:
    table = polars.scan_parquet(f"{path}/dataset/Norder*/**/*.parquet")
    found, radius = table.collect(), polars.col(RE)

    def count(where: Any) -> int:
        return len(table.filter(where).collect())

    return {
        "values": found[RE].count(),
        "missing": found[RE].null_count(),
        "mean": found[RE].mean(),
        "above one": count(radius > 1),
        "active": count(polars.col("net_activation_0") > 0.5),
        "largest": found.sort(RE, descending=True, nulls_last=True)["object_id"][:5].to_list(),
        "smallest": found.sort(RE, nulls_last=True)["object_id"][:5].to_list(),
        "no passes": count(polars.col("net_passes") == 0),
        "no feature": count(polars.col("net_feature_0") == -1),
        "unlabeled": count(polars.col("net_re_arcsec_label") == ""),
        **vector_answers({name: found[name].to_list() for name in VECTORS}),
    }


def astropy_answers(path: str) -> Answers:
    table = vstack([Table.read(leaf) for leaf in leaves_of(path)], metadata_conflicts="silent")
    radius = table[RE]
    order = np.argsort(radius)  # NaN comes last
    n_values = int(np.isfinite(radius).sum())
    return {
        "values": n_values,
        "missing": int(np.isnan(radius).sum()),
        "mean": float(np.nanmean(radius)),
        "above one": int((radius > 1).sum()),
        "active": int((table["net_activation_0"] > 0.5).sum()),
        "largest": list(table["object_id"][order[:n_values][::-1][:5]]),
        "smallest": list(table["object_id"][order[:5]]),
        "no passes": int((table["net_passes"] == 0).sum()),
        "no feature": int((table["net_feature_0"] == -1).sum()),
        "unlabeled": int((table["net_re_arcsec_label"] == "").sum()),
        **vector_answers({name: list(table[name]) for name in VECTORS}),
    }


READERS: dict[str, Callable[[str], Answers]] = {
    "pandas": lambda path: frame_answers(pd.read_parquet(f"{path}/dataset")),
    "pandas, pyarrow": lambda path: frame_answers(
        pd.read_parquet(f"{path}/dataset", dtype_backend="pyarrow")
    ),
    "pandas, nullable": lambda path: frame_answers(
        pd.read_parquet(f"{path}/dataset", dtype_backend="numpy_nullable")
    ),
    "pyarrow": arrow_answers,
    "lsdb": lambda path: frame_answers(lsdb.open_catalog(path, columns="all")),
    "duckdb": duckdb_answers,
    "polars": polars_answers,
    "dask": lambda path: frame_answers(dask.dataframe.read_parquet(f"{path}/dataset")),
    "nested-pandas": lambda path: frame_answers(nested_pandas.read_parquet(f"{path}/dataset")),
    "astropy": astropy_answers,
}


@pytest.fixture(scope="module")
def right(written: pa.Table) -> Answers:
    """The answers of NumPy, from the rows that were given to the writer."""
    radius = written[RE].to_numpy()
    values = radius[np.isfinite(radius)]
    seconds = np.arange(N_OBJECTS)[np.isfinite(radius)] * 0.75 + 0.25
    ids = written["object_id"].to_numpy()[np.argsort(radius)][: len(values)]
    return {
        "values": len(values),
        "missing": N_OBJECTS - len(values),
        "mean": pytest.approx(values.mean(dtype=np.float64), rel=1e-6),
        "above one": int((values > 1).sum()),
        "active": int((values / 2 > 0.5).sum()),
        "largest": ids[::-1][:5].tolist(),
        "smallest": ids[:5].tolist(),
        "no passes": N_OBJECTS // 3,
        "no feature": N_OBJECTS - len(values),
        "unlabeled": N_OBJECTS - int((values < 1).sum()),
        **dict.fromkeys(VECTORS, ((N_OBJECTS, 3), float(seconds.sum()), N_OBJECTS - len(values))),
    }


@pytest.mark.parametrize("reader", READERS)
def test_counts_means_filters_and_sorts_agree(reader: str, path: str, right: Answers) -> None:
    with warnings.catch_warnings():
        # Readers warn of each other's novelties; what they answer is what counts here.
        warnings.simplefilter("ignore")
        assert READERS[reader](path) == right


# --- what is in the files --------------------------------------------------------------------------------


def test_results_hold_null_and_kept_columns_what_they_held(path: str, written: pa.Table) -> None:
    stored = pa.concat_tables([pq.ParquetFile(leaf).read() for leaf in leaves_of(path)])
    stored = stored.sort_by("_healpix_29")
    for column in COLUMNS:
        if column.length:
            flat = pc.list_flatten(stored[column.name])
            assert (stored[column.name].null_count, pc.sum(pc.is_nan(flat)).as_py()) == (0, 0)
            assert flat.null_count == 3 * stored[RE].null_count
        elif column.dtype.startswith("float"):
            assert pc.sum(pc.is_nan(stored[column.name])).as_py() == 0
        else:
            assert stored[column.name].null_count == 0
    assert stored["z_best"].null_count == N_OBJECTS // 10
    assert (
        np.isnan(written["z_best"].drop_null().to_numpy()).sum()
        == pc.sum(pc.is_nan(stored["z_best"])).as_py()
    )
    assert stored["n_visits"] == written["n_visits"]
    # Text has no null: astropy would fail on it.
    assert stored["kind"].to_pylist() == [value or "" for value in written["kind"].to_pylist()]


def test_readers_in_the_program_get_nan(path: str, written: pa.Table) -> None:
    radius = catalog.read_catalog(path, columns=[RE])[RE].to_numpy()
    assert radius.dtype == np.float32
    np.testing.assert_array_equal(radius, written[RE].to_numpy())


def test_nan_in_a_leaf_is_a_problem(tmp_path: Path, path: str) -> None:
    leaf = catalog.list_leaves(path)[0]
    table = read_leaf(catalog.leaf_path(path, leaf))
    column = pc.fill_null(table[RE], float("nan"))
    broken = table.set_column(table.column_names.index(RE), table.schema.field(RE), column)
    (problem,) = leaf_problems(broken, leaf, table.schema, {})
    assert problem == (
        f"{table[RE].null_count} rows of {RE} hold NaN, which most readers take for a number; a missing value is null"
    )


def test_vectors_come_back_as_arrays(path: str, written: pa.Table) -> None:
    for column in (one for one in COLUMNS if one.length):
        found = column.as_numpy(catalog.read_catalog(path, columns=[column.name])[column.name])
        assert (found.dtype, found.shape) == (np.dtype(column.dtype), (N_OBJECTS, 3))
        np.testing.assert_array_equal(found, column.as_numpy(written[column.name]))


@pytest.mark.parametrize(
    ("vector", "problem"),
    [
        (
            None,
            "1 rows of net_embedding are null; a missing vector is a list of nulls, which astropy can read",
        ),
        (
            [np.nan, 1.0, np.nan],
            "2 values of net_embedding hold NaN, which most readers take for a number; a missing value is null",
        ),
    ],
    ids=["null", "nan"],
)
def test_a_vector_that_is_null_or_holds_nan_is_a_problem(
    path: str, vector: list[float] | None, problem: str
) -> None:
    leaf = catalog.list_leaves(path)[0]
    table = read_leaf(catalog.leaf_path(path, leaf))
    field = table.schema.field("net_embedding")
    column = pa.array([vector, *table["net_embedding"].to_pylist()[1:]], field.type)
    broken = table.set_column(table.column_names.index(field.name), field, column)
    assert list(leaf_problems(broken, leaf, table.schema, {})) == [problem]


# --- astropy ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_name", [None, "parquet.votable"])
def test_astropy_reads_units_descriptions_and_ucds(
    path: str, written: pa.Table, format_name: str | None
) -> None:
    rows = 0
    for leaf in leaves_of(path):
        table = Table.read(leaf, format=format_name)
        rows += len(table)
        assert table.colnames == written.column_names
        assert table[RE].unit == u.arcsec
        assert table[RE].description == COLUMNS[2].description
        for name in table.colnames:
            stated = (written.schema.field(name).metadata or {}).get(b"ucd", b"").decode()
            assert table[name].meta.get("ucd", "") == stated
        assert "4 MODEL_FAILED: The network returned" in " ".join(table["net_flags"].description.split())
        assert set(table["kind"]) <= {"spiral", ""}
    assert rows == N_OBJECTS


def test_astropy_makes_quantities(path: str) -> None:
    table = QTable.read(leaves_of(path)[0])
    assert isinstance(table[RE], u.Quantity)
    assert table["ra_deg"].unit == u.deg


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "struct"])
def test_astropy_reads_a_leaf_with_any_kept_column(tmp_path: Path, kind: str) -> None:
    """Structs are the one kind that astropy has no type for."""
    kept = read_kind(tmp_path / "a.parquet", kind)
    schema = catalog.leaf_schema([], id_type=pa.int64(), kept=kept.schema)
    own = [pa.array([1, 2, 3]), pa.array([1, 2, 3]), pa.array([0.0] * 3), pa.array([0.0] * 3)]
    catalog.write_leaf(
        str(tmp_path), Partition(0, 0, 0, 3), pa.table([*own, kept["c"]], schema=schema), footer={}
    )
    (leaf,) = leaves_of(str(tmp_path))
    for table in (Table.read(leaf), QTable.read(leaf), Table.read(leaf, format="parquet.votable")):
        assert list(table["object_id"]) == [1, 2, 3]
        first = kept["c"][0].as_py()
        assert first is None or table["c"][0] is not None
        if kind in ("text", "dictionary"):
            assert list(table["c"]) == [value or "" for value in kept["c"].to_pylist()]
