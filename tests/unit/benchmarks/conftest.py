"""The benchmarks as modules, for their tests at toy size."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def load_benchmark(monkeypatch, tmp_path):
    """Import a benchmark by its name; what it measures is written into `tmp_path`/results."""

    def load(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(BENCHMARKS))
        module = importlib.import_module(name)
        for one in (sys.modules["harness"], module):
            if hasattr(one, "RESULTS"):
                monkeypatch.setattr(one, "RESULTS", tmp_path / "results")
        return module

    return load
