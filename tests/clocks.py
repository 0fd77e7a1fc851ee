"""Clocks that tests move by hand, of one module alone."""

import time
from types import SimpleNamespace
from typing import Any

import pytest


def replace_clock(monkeypatch: pytest.MonkeyPatch, module: str, **functions: Any) -> None:
    """Give one module other functions of `time`, such as ``monotonic``, until the test ends.

    To replace ``time.monotonic`` itself would move the clock of every event loop in the process. A timer that is set meanwhile waits until the
    machine has been up for as long as that clock said: Dask's client of all tests then sends nothing any more.
    """
    monkeypatch.setattr(f"{module}.time", SimpleNamespace(**{**vars(time), **functions}))
