"""Signals that interrupt a command: at once, but after an import or a model of pydantic that they meet."""

import signal
import sys
import threading
import time

import pydantic
import pytest
from pydantic_core import core_schema

from galbatch.core.process import signals_interrupt
from galbatch.core.process.stopping import Interrupted

PATIENCE_S = 60.0

IMPORTED = """
import os, signal, time
for name in {names}:
    os.kill(os.getpid(), getattr(signal, name))
time.sleep(0.2)
done = True
"""


def import_and_wait(module):
    __import__(module)
    wait()


def wait():
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.fixture
def write_module(tmp_path, monkeypatch):
    """Write a module that sends signals while it is imported; return its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(*names):
        module = f"galbatch_test_that_gets_{'_'.join(names).lower()}"
        (tmp_path / f"{module}.py").write_text(IMPORTED.format(names=names))
        return module

    yield write
    for name in [one for one in sys.modules if one.startswith("galbatch_test_that_gets_")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_interrupts_at_once(name):
    before = signal.getsignal(signal.Signals[name])
    with pytest.raises(Interrupted, match=name), signals_interrupt():
        signal.raise_signal(signal.Signals[name])
    assert signal.getsignal(signal.Signals[name]) == before


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_during_an_import_waits_for_its_end(name, write_module):
    module = write_module(name)
    with pytest.raises(Interrupted, match=name), signals_interrupt():
        import_and_wait(module)
    assert sys.modules[module].done


def test_signals_that_wait_for_an_import_do_not_outlast_the_context(write_module):
    module, came = write_module("SIGTERM", "SIGINT", "SIGTERM"), []
    before = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        with signals_interrupt():
            _import_with_timers_held(module)
        time.sleep(0.2)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert sys.modules[module].done
    assert came == []
    assert not [one for one in threading.enumerate() if isinstance(one, threading.Timer)]


def _import_with_timers_held(module):
    """Import a module while timers that it starts do not run out."""
    run, threading.Timer.run = threading.Timer.run, lambda timer: timer.finished.wait(PATIENCE_S)
    try:
        __import__(module)
    finally:
        threading.Timer.run = run


class Signaled:
    """A type that sends a signal while pydantic makes a model of it."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler):
        signal.raise_signal(signal.SIGTERM)
        return core_schema.any_schema()


def test_a_signal_while_pydantic_makes_a_model_waits_for_its_end():
    made = []

    def make_and_wait():
        made.append(pydantic.TypeAdapter(Signaled))
        wait()

    with pytest.raises(Interrupted), signals_interrupt():
        make_and_wait()
    assert made


class SignaledAtItsEnd:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_where_python_ignores_exceptions_comes_again():
    hook = sys.unraisablehook

    def end_one_and_wait():
        SignaledAtItsEnd()
        wait()

    with pytest.raises(Interrupted), signals_interrupt():
        end_one_and_wait()
    assert sys.unraisablehook is hook


def test_other_exceptions_that_python_ignores_are_told_as_before(monkeypatch):
    class Broken:
        def __del__(self):
            raise ValueError("broken")

    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda ignored: told.append(str(ignored.exc_value)))
    with signals_interrupt():
        Broken()
    assert told == ["broken"]


def test_a_command_that_runs_within_an_import_is_interrupted(tmp_path, monkeypatch):
    """As a script that is imported: all of it has frames of the import system below it."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "galbatch_test_that_runs.py").write_text(
        "import signal\n"
        "from galbatch.core.process import signals_interrupt\n"
        "with signals_interrupt():\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
    )
    with pytest.raises(Interrupted):
        __import__("galbatch_test_that_runs")
