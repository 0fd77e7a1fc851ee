from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from galbatch.core.types import ObjectTable
from galbatch.errors import ConfigError
from galbatch.objects import select


@pytest.fixture
def objects() -> ObjectTable:
    kept = pa.table(
        {
            "z_best": pa.array([0.1, 0.3, float("nan"), None, 0.25]),
            "n": pa.array([1, 2, 3, None, 5]),
            "kind": ["gal", "star", None, "gal", "qso"],
            "is_good": pa.array([True, False, True, None, True]),
            "odd name": [1, 2, 3, 4, 5],
        }
    )
    dec = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    ids = np.array([43158034708430849, 43158034708430850, 43158034708430851, 4, 5])
    return ObjectTable(ids, np.arange(5.0), dec, np.arange(5), kept)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (None, [1, 1, 1, 1, 1]),
        (" ", [1, 1, 1, 1, 1]),
        ("z_best < 0.25", [1, 0, 0, 0, 0]),
        # What is not known is not selected, whichever way it is asked.
        ("not z_best < 0.25", [0, 1, 0, 0, 1]),
        ("z_best != 0.1", [0, 1, 0, 0, 1]),
        ("z_best < 0.25 or dec_deg > -5", [1, 1, 1, 1, 1]),
        ("0.1 < z_best <= 0.3 and n > 1", [0, 1, 0, 0, 1]),
        ("(z_best < 0.2) | (n == 3)", [1, 0, 1, 0, 0]),
        ("(z_best < 0.28) & ~(n == 1)", [0, 0, 0, 0, 1]),
        ("kind == 'gal'", [1, 0, 0, 1, 0]),
        ("kind in ['gal', 'qso']", [1, 0, 0, 1, 1]),
        ("kind not in ('gal', 'qso')", [0, 1, 0, 0, 0]),
        ("is_good", [1, 0, 1, 0, 1]),
        ("n / 2 > 1", [0, 0, 1, 0, 1]),
        ("-n + 2 ** 2 < 1/2", [0, 0, 0, 0, 1]),
        ("-dec_deg > 0.5", [1, 1, 0, 0, 0]),
        ("1 / dec_deg > -10", [1, 1, 1, 1, 1]),
        ("`odd name` > 3", [0, 0, 0, 1, 1]),
        ("object_id == 43158034708430851", [0, 0, 1, 0, 0]),
        ("object_id in [43158034708430850, 5]", [0, 1, 0, 0, 1]),
    ],
)
def test_what_is_selected(objects: ObjectTable, where: str | None, expected: list[int]) -> None:
    selected = select(objects, where)
    assert selected.dtype == np.bool_
    assert selected.astype(int).tolist() == expected


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (
            "z_bset < 1",
            "no column z_bset; did you mean z_best.; known are object_id, ra_deg, dec_deg, z_best, n",
        ),
        ("z_best <", "is no expression"),
        ("z_best", "is not true or false; compare a column, as in z_best < 0.25"),
        ("1 < 2", "is not true or false"),
        ("kind < 3", "unlike kinds are compared"),
        ("kind + 1 > 2", "unlike kinds"),
        ("n in ['a']", "unlike kinds"),
        ("not n", "unlike kinds"),
        ("__import__('os').system('true')", "is not allowed; compare columns only"),
        ("z_best.__class__ == 1", "z_best.__class__ is not allowed"),
        ("[x for x in kind]", "is not allowed"),
        ("n % 2 == 0", "this operator is not allowed"),
        ("n is 3", "this comparison is not allowed"),
        ("n == None", "None is not allowed; write numbers or text"),
    ],
)
def test_what_cannot_be_selected(objects: ObjectTable, where: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        select(objects, where)
