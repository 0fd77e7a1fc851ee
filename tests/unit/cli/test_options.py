"""Options whose text holds several things."""

import pytest

from galbatch.cli.options import parse_pairs
from galbatch.errors import UsageError


def test_pairs_are_found_by_their_names():
    assert parse_pairs("--band", ["y=i-0.2", " z = r"], "BAND=LIKE") == {"y": "i-0.2", "z": "r"}
    assert parse_pairs("--bundle", ["net=a=b.pt"], "MODEL=FILE") == {"net": "a=b.pt"}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["y"], "--band y: expected BAND=LIKE"),
        (["=i"], "--band =i: expected BAND=LIKE"),
        (["y= "], "--band y= : expected BAND=LIKE"),
        (["y=i", "y=r"], "--band y=r: y is given twice"),
    ],
    ids=["no value", "no name", "empty", "twice"],
)
def test_pairs_that_say_nothing_or_contradict_each_other_are_refused(texts, message):
    with pytest.raises(UsageError, match=message):
        parse_pairs("--band", texts, "BAND=LIKE")
