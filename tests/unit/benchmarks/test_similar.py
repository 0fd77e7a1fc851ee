"""The benchmark of nearest embeddings, at toy size: the catalog's neighbors are those of NumPy, and both times are kept."""

import json


def test_both_find_the_same_and_are_compared(load_benchmark, tmp_path):
    # That both find the same objects is asserted in `measure`.
    load_benchmark("similar").measure(30, 4, rounds=1)
    [kept] = (tmp_path / "results").iterdir()
    assert kept.name == "the_20_nearest_of_30_embeddings_of_4_numbers.json"
    first, other = json.loads(kept.read_text())["measured"]
    assert (first["name"], first["ratio_median"], other["name"]) == (
        "NumPy, vectors in memory",
        1.0,
        "Catalog.similar",
    )
