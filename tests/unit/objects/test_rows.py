"""`[objects] where` and `region`: which rows of a list are a run's objects, whatever the list's format, and how much is read."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from galbatch.config import ObjectsConfig, RegionConfig
from galbatch.errors import ConfigError, ObjectListError
from galbatch.objects import open_objects, read_objects, write_table
from galbatch.objects.tables import parquet
from galbatch.objects.where import may_be_true, select_rows

BOX = RegionConfig(box_deg=(150.0, 151.0, -1.0, 1.0))


def survey_list(n: int = 1000) -> pa.Table:
    """A list along right ascension, as surveys write them: row groups are strips of the sky."""
    rng = np.random.default_rng(5)
    return pa.table(
        {
            "object_id": np.arange(n) + 43158034708430849,
            "ra_deg": np.linspace(140.0, 160.0, n),
            "dec_deg": rng.uniform(-2, 2, n),
            "mag": pa.array([None if i % 9 == 0 else 18 + 0.01 * i for i in range(n)], pa.float32()),
            "is_primary": [i % 2 == 0 for i in range(n)],
            "a_b": rng.integers(0, 3, n),
        }
    )


def expected(table: pa.Table) -> set[int]:
    frame = table.to_pandas()
    inside = frame["ra_deg"].between(150, 151) & frame["dec_deg"].between(-1, 1)
    return set(frame["object_id"][inside & (frame["mag"] < 23.3) & frame["is_primary"] & (frame["a_b"] != 1)])


WHERE = "mag < 23.3 and is_primary and a_b != 1"


def config(path: Any, **changes: Any) -> ObjectsConfig:
    return ObjectsConfig(**{"path": str(path), "where": WHERE, "region": BOX} | changes)


def opened(objects: ObjectsConfig) -> Any:
    return open_objects(objects)


@pytest.fixture(params=["parquet", "folder", "csv", "fits", "vot", "hats"])
def listed(request: Any, tmp_path: Any, write_hats: Any) -> Any:
    """The list in each format."""
    table = survey_list()
    if request.param == "hats":
        write_hats(tmp_path / "hats", table, max_rows=100)
        return tmp_path / "hats"
    if request.param == "folder":
        (tmp_path / "folder").mkdir()
        for number in range(3):
            part = table.slice(number * 400, 400)
            pq.write_table(part, tmp_path / "folder" / f"part.{number}.parquet", row_group_size=64)
        return tmp_path / "folder"
    path = tmp_path / f"list.{request.param}"
    write_table(str(path), table)
    return path


def test_the_rows_are_chosen_in_every_format(listed: Any) -> None:
    source = opened(config(listed))
    found = [key for chunk in range(len(source.ranges)) for key in source.read(chunk).object_id.tolist()]
    table = survey_list()
    frame = table.to_pandas()
    assert set(found) == expected(table)
    inside = frame["ra_deg"].between(150, 151) & frame["dec_deg"].between(-1, 1)
    counts = source.listed
    assert (counts.n_listed, counts.n_in_region, counts.n_chosen) == (1000, inside.sum(), len(found))
    assert 5 < len(found) < inside.sum()


def test_columns_that_are_kept_stay_with_their_rows(listed: Any) -> None:
    objects = config(listed, keep=("a_b", "mag"))
    source = opened(objects)
    mag = {row["object_id"]: (row["a_b"], row["mag"]) for row in survey_list().to_pylist()}
    for chunk in range(len(source.ranges)):
        table = source.read(chunk)
        kept = table.kept.to_pydict()
        for key, a_b, value in zip(table.object_id.tolist(), kept["a_b"], kept["mag"], strict=True):
            assert a_b == mag[key][0]
            assert value == pytest.approx(mag[key][1], abs=1e-6)


@pytest.mark.parametrize(
    ("where", "region", "n_read"),
    [
        # 1000 rows in groups of 50 along ra: one degree is one group, with its edges two.
        (None, BOX, 1),
        ("mag + 0 < 18.4", None, 20),  # arithmetic says nothing of the footer
        ("mag < 18.4", None, 1),
        ("mag >= 27.4 and not is_primary", None, 2),
        ("object_id in [43158034708430849, 43158034708430990]", None, 2),
        ("ra_deg > 200", None, 0),
        ("not (ra_deg < 159.5)", None, 1),
        ("18.4 > mag", None, 1),
        ("`a_b` == 1 and 149.99 < ra_deg < 150.9", BOX, 1),
    ],
)
def test_row_groups_that_hold_no_such_row_are_not_read(tmp_path, monkeypatch, where, region, n_read):
    pq.write_table(survey_list(), tmp_path / "list.parquet", row_group_size=50)
    groups = set()
    real = parquet.RowGroup.read

    def counting(self, columns):
        groups.add(self._number)
        return real(self, columns)

    monkeypatch.setattr(parquet.RowGroup, "read", counting)
    objects = config(tmp_path / "list.parquet", where=where, region=region)
    refused = pytest.raises(ObjectListError, match="is true for none of its 1000 rows")
    with contextlib.nullcontext() if n_read else refused:
        opened(objects)
    assert len(groups) == n_read


def test_one_row_group_and_the_chosen_rows_are_in_memory(tmp_path, monkeypatch):
    """Memory does not grow with the list: never is more read at a time than a row group."""
    pq.write_table(survey_list(20_000), tmp_path / "list.parquet", row_group_size=500)
    read = []
    real = parquet.RowGroup.read

    def noting(self, columns):
        table = real(self, columns)
        read.append(len(table))
        return table

    monkeypatch.setattr(parquet.RowGroup, "read", noting)
    source = opened(config(tmp_path / "list.parquet", region=None, where="`a_b` == 2"))
    assert max(read) == 500
    assert len(read) == 80  # 40 groups: the column of the expression, and the others
    assert source.counts[0] == (survey_list(20_000)["a_b"].to_numpy() == 2).sum()


def test_only_chosen_rows_can_be_wrong(tmp_path):
    """A duplicate that is not primary, a row without a position and one outside the region are no objects: nothing is refused."""
    table = pa.table(
        {
            "object_id": [1, 1, 2, 3, 3, None],
            "ra_deg": [150.1, 150.2, None, 150.4, 20.0, 20.0],
            "dec_deg": [0.0] * 6,
            "is_primary": [True, False, True, True, True, True],
        }
    )
    pq.write_table(table, tmp_path / "list.parquet")
    objects = config(tmp_path / "list.parquet", where="is_primary")
    found, rejected, counts = read_objects(objects)
    assert sorted(found.object_id.tolist()) == [1, 3]
    assert len(rejected) == 0
    assert (counts.n_listed, counts.n_in_region, counts.n_chosen) == (6, 3, 2)
    with pytest.raises(ObjectListError, match="3 of 5 rows cannot be used"):
        read_objects(objects.model_copy(update={"region": None}))


def test_right_ascensions_are_wrapped_before_they_are_compared(tmp_path):
    table = pa.table({"object_id": [1, 2, 3, 4], "ra_deg": [-5.0, 355.0, 725.0, 100.0], "dec_deg": [0.0] * 4})
    pq.write_table(table, tmp_path / "list.parquet", row_group_size=1)
    box = RegionConfig(box_deg=(350.0, 10.0, -1.0, 1.0))
    found, *_ = read_objects(config(tmp_path / "list.parquet", where=None, region=box))
    assert sorted(found.object_id.tolist()) == [1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"where": "magg < 3"}, ObjectListError, "no column magg; the nearest is mag; there are object_id, ra_deg"),
        ({"where": "mag <"}, ConfigError, r"\[objects\] where = 'mag <': is no expression"),
        ({"where": "mag < 'x'"}, ConfigError, r"\[objects\] where = \"mag < 'x'\": unlike kinds"),
        ({"where": "mag + 1"}, ConfigError, r"\[objects\] where = 'mag \+ 1': is not true or false"),
        ({"where": "mag < 1"}, ObjectListError, r"where = 'mag < 1' is true for none of the \d+ in \[objects\] region rows"),
        ({"region": RegionConfig(box_deg=(0, 1, 0, 1))}, ObjectListError, "none of its 1000 rows lies in"),
    ],
)  # fmt: skip
def test_what_chooses_nothing_or_is_no_expression_is_refused(listed, changes, error, message):
    with pytest.raises(error, match=message):
        opened(config(listed, **changes))


def test_positions_in_radians_are_named_before_a_region_is_empty(tmp_path):
    fields = [pa.field("object_id", pa.int64()), pa.field("ra_deg", pa.float64(), metadata={"unit": "rad"})]
    table = pa.table([[1], [1.2], [0.1]], schema=pa.schema([*fields, pa.field("dec_deg", pa.float64())]))
    write_table(str(tmp_path / "list.fits"), table)
    with pytest.raises(ObjectListError, match="ra_deg: its name says degrees, its unit is rad"):
        opened(config(tmp_path / "list.fits", where=None))


LIMITS = {"a": (1, 5), "b": (2.0, 2.0), "t": ("c", "m"), "yes": (True, True), "mixed": (False, True)}


@pytest.mark.parametrize(
    ("where", "possible"),
    [
        ("a < 1", False), ("a <= 1", True), ("a > 5", False), ("a >= 5", True), ("a == 6", False), ("a == 3", True),
        ("b != 2", False), ("a != 1", True), ("not b == 2", False), ("not a == 1", True), ("not a < 6", False),
        ("not a >= 1", False), ("not (a > 0 and b > 1)", False), ("not (a > 0 and b > 2)", True),
        ("a > 5 or b > 1", True), ("a > 5 or b > 2", False), ("a > 4 and b > 2", False), ("(a > 4) & (b > 1)", True),
        ("(a > 5) | (b > 2)", False), ("1 < a < 3", True), ("5 < a < 9", False), ("not (0 < a < 9)", False),
        ("a in [0, 6]", False), ("a in [0, 3]", True), ("a not in [0, 6]", True), ("not a not in [0, 6]", False),
        ("a in []", False), ("t == 'a'", False), ("t > 'd'", True), ("t < 3", True), ("yes", True), ("not yes", False),
        ("mixed", True), ("not mixed", True), ("c > 3", True), ("a > c", True), ("b > a", True), ("a < b - 5", True),
        ("a > -1", True), ("a < -1", False), ("b < a", True), ("b > -(3)", True),
    ],
)  # fmt: skip
def test_an_expression_is_compared_with_the_limits_of_columns(where, possible):
    assert may_be_true(where, LIMITS) == possible


def test_no_row_is_lost_by_limits(tmp_path):
    """Of random expressions over rows with nulls and NaN, the limits never exclude one that is true for a row."""
    rng = np.random.default_rng(11)
    values = rng.integers(0, 6, (3, 200)).astype(float)
    values[rng.uniform(size=values.shape) < 0.2] = np.nan
    columns = {
        "x": pa.array(values[0], pa.float32()),
        "y": pa.array(values[1], from_pandas=True),
        "z": pa.array(values[2], pa.int8(), from_pandas=True),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=4)

    def expression(depth):
        if depth and rng.uniform() < 0.7:
            parts = expression(depth - 1), expression(depth - 1)
            return [f"({parts[0]} and {parts[1]})", f"({parts[0]} or {parts[1]})", f"not {parts[0]}"][
                rng.integers(3)
            ]
        column, operator = (
            rng.choice(list("xyz")),
            rng.choice(["<", "<=", ">", ">=", "==", "!=", "in", "not in"]),
        )
        other = "[1, 3]" if "in" in operator else rng.choice(["0", "2", "-1", "5", "2.5", "x", "y"])
        return f"{column} {operator} {other}"

    groups = [
        (g.read(list("xyz")), g.limits(list("xyz"))) for g in parquet.row_groups(str(tmp_path / "a.parquet"))
    ]
    excluded = 0
    for where in (expression(3) for _ in range(40)):
        for table, limits in groups:
            possible = may_be_true(where, limits)
            excluded += not possible
            if not possible:
                columns = dict(zip("xyz", table.columns, strict=True))
                assert not select_rows(columns, len(table), where).any(), where
    assert excluded > 200
