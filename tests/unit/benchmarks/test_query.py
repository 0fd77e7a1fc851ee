"""The benchmark of queries, at toy size: all contenders give the same rows, and only what is needed is read."""

import json

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def query(load_benchmark):
    return load_benchmark("query")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_all_find_the_same_and_little_is_read(query, tmp_path):
    made = query.make(tmp_path / "made", 20_000, leaf_objects=1000)
    counted = query.count(made)
    # A circle of 1 arcmin has about 870 of the 20,000 objects, which a square of 0.02 square degrees has.
    assert 0 < counted["cone"].leaves <= 8
    assert counted["cone"].leaves < counted["all"].leaves
    # Leaves of 1000 objects have one row group; each id has one, which is read once.
    assert counted["ids"].groups == counted["ids"].leaves <= 100
    # The harness compares after `compare_*` has checked that all contenders find the same objects.
    query.measure(tmp_path / "made", 20_000, leaf_objects=1000, rounds=1)
    kept = {path.name: json.loads(path.read_text()) for path in (tmp_path / "results").iterdir()}
    assert sorted(kept) == [
        "100_ids_in_0_02_million_rows.json",
        "100_ids_in_0_02_million_rows__read_from_the_disk.json",
        "a_cone_of_1_arcmin_in_0_02_million_rows.json",
        "one_id_in_0_02_million_rows.json",
    ]
    names = [row["name"] for row in kept["one_id_in_0_02_million_rows.json"]["measured"]]
    assert names == [
        "galbatch, index",
        "galbatch, all leaves",
        "LSDB, our index",
        "pandas, one file, filters",
        "pandas, all leaves, filters",
        "pandas, all leaves",
        "LSDB, all leaves",
    ]
