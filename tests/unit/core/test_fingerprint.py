"""Fingerprints, and the digests they are made of."""

import datetime
import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galbatch.core.fingerprint import Fingerprint, digest, refuse_difference
from galbatch.errors import FingerprintError


def test_a_refusal_shows_both_values():
    mine = Fingerprint({"bundle gampen": "9c07" * 16, "INFER_VERSION": "1"})
    other = Fingerprint({"bundle gampen": "3fa1" * 16, "INFER_VERSION": "1"})
    refuse_difference("catalog", mine.as_json(), mine)
    with pytest.raises(FingerprintError) as caught:
        refuse_difference("catalog", other.as_json(), mine)
    assert str(caught.value) == (
        "catalog was written with bundle gampen 3fa13fa13fa1..; this run uses 9c079c079c07..\n"
        "choose another output path in run.toml, where [cutouts] base and [catalog] base take over what is unchanged, or run "
        "galbatch clean"
    )


@pytest.mark.parametrize(
    ("part", "words"), [("tiles", "a tile .* was replaced or touched"), ("objects", "other ids, positions")]
)
def test_a_difference_of_digests_is_told_in_words(part, words):
    mine, other = Fingerprint({part: "9c07" * 16}), Fingerprint({part: "3fa1" * 16})
    with pytest.raises(
        FingerprintError, match=f"{part} 3fa13fa13fa1..; this run uses 9c079c079c07..: .*{words}"
    ):
        refuse_difference("catalog", other.as_json(), mine)


def test_an_output_without_fingerprint_is_refused():
    with pytest.raises(FingerprintError, match="INFER_VERSION \\(nothing\\)"):
        refuse_difference("catalog", None, Fingerprint({"INFER_VERSION": "1"}))


def test_digests_tell_values_types_and_order_apart():
    assert digest(np.array([1, 2])) != digest(np.array([2, 1]))
    assert digest(np.array([1, 2])) != digest(np.array([1.0, 2.0]))
    assert digest(np.array(["a", "bc"], object)) != digest(np.array(["ab", "c"], object))
    assert digest(pa.table({"z": [0.1, None]})) != digest(pa.table({"z": [0.1, 0.0]}))
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


COLUMNS = {
    "int": pa.array([1, None, 3, 4, None, 6]),
    "float": pa.array([0.1, float("nan"), None, -0.0, 1e300, None], pa.float32()),
    "text": pa.array(["a", None, "", "\u00e9t\u00e9", "b", "c"]),
    "bool": pa.array([True, None, False, True, True, None]),
    "date": pa.array([datetime.date(2020, 1, day) for day in range(1, 7)]),
    "list": pa.array([[1.0], [], None, [2.0, None], [3.0], [4.0]]),
}


@pytest.mark.parametrize("name", COLUMNS)
@settings(max_examples=20)
@given(cuts=st.lists(st.integers(0, 6), max_size=4), start=st.integers(0, 3))
def test_a_table_counts_by_content_not_by_layout(name, cuts, start):
    column = COLUMNS[name]
    whole = pa.table({"c": column})
    bounds = [0, *sorted(cuts), 6]
    chunks = [column.slice(a, b - a) for a, b in itertools.pairwise(bounds)]
    assert digest(pa.table({"c": pa.chunked_array(chunks, column.type)})) == digest(whole)
    copied = pa.table({"c": pa.array(column.to_pylist()[start:], column.type)})
    assert digest(whole.slice(start)) == digest(copied)
    if start:
        assert digest(whole.slice(start)) != digest(whole)


def test_what_lies_below_a_null_does_not_count():
    mask = np.array([False, True])
    a, b = (pa.array(np.array([1, below]), mask=mask) for below in (7, 8))
    assert digest(pa.table({"c": a})) == digest(pa.table({"c": b}))
    assert digest(pa.table({"c": a})) != digest(pa.table({"c": [1, 0]}))


def test_of_a_section_the_keys_that_differ_are_named():
    """A key that is new since is one line, not two whole sections."""
    mine = Fingerprint(
        {
            "posterior": '{"passes": 64, "seed": 1, "new": true}',
            "survey": '[{"bands": ["g"], "generic": {"unit": ""}}]',
        }
    )
    old = Fingerprint(
        {"posterior": '{"passes": 64, "seed": 2}', "survey": '[{"bands": ["g"], "generic": {"unit": "nJy"}}]'}
    )
    with pytest.raises(FingerprintError) as caught:
        refuse_difference("catalog", old.as_json(), mine)
    assert str(caught.value).splitlines()[:-1] == [
        "catalog was written with posterior seed 2; this run uses 1",
        "catalog was written with posterior new (nothing); this run uses true",
        "catalog was written with survey generic.unit nJy; this run uses ",
    ]
