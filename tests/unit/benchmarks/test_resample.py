"""The benchmark of resampling runs, and compares every method."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from galbatch.core.types import Resampling

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.mark.slow
def test_every_method_is_compared(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import resample

    compared = []

    def compare(contenders, rounds):
        for contender in contenders.values():
            contender()
        compared.append(tuple(contenders))

    monkeypatch.setattr(resample, "N_OBJECTS", 1)
    monkeypatch.setattr(resample, "compare", compare)
    monkeypatch.setattr(resample, "report", lambda *args, **kwargs: None)
    resample.main()
    assert len(compared) == 8
    assert compared[1::2] == [get_args(Resampling)] * 4
