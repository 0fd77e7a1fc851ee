"""Bars in a notebook, which show HTML in place of what they showed before."""

import sys
import types

from galbatch.dashboard import Event, NotebookBars, in_notebook
from galbatch.dashboard.notebook import LAST_LINES


def test_bars_show_counts_rate_and_time_left():
    shown, now = [], [0.0]
    bars = NotebookBars(shown.append, clock=lambda: now[0])
    bars.start("infer", 120, 20)
    assert "20 of 120<" in shown[-1]
    now[0] = 10.0
    bars.advance("infer", 50)
    # 50 objects in 10 s, and 50 are left.
    assert "70 of 120, 5.0/s, 0 min 10 s left" in shown[-1]
    assert "max='120' value='70'" in shown[-1]
    # What comes within half a second is shown with the next update.
    bars.advance("infer", 30)
    assert len(shown) == 2
    bars.refresh()
    assert "100 of 120" in shown[-1]


def test_failures_and_the_last_notes_are_shown():
    shown = []
    clock = iter(range(1000))
    bars = NotebookBars(shown.append, clock=lambda: next(clock))
    for number in range(LAST_LINES + 2):
        bars.note(f"note <{number}>")
    bars.record(Event("failed", "Norder=5/Npix=7: no space"))
    bars.record(Event("infer", "Norder=5/Npix=8: done"))
    assert "note &lt;3&gt;" in shown[-1]
    assert "note &lt;2&gt;" not in shown[-1]
    assert "no space" in shown[-1]
    assert "done" not in shown[-1]


def test_without_a_kernel_this_is_no_notebook(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not in_notebook()
    kernel = types.ModuleType("IPython")
    shell = type("ZMQInteractiveShell", (), {})()
    kernel.get_ipython = lambda: shell
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    assert in_notebook()


def test_what_was_shown_last_stays(monkeypatch):
    shown = []
    handle = types.SimpleNamespace(update=shown.append)
    display = types.ModuleType("IPython.display")
    display.HTML = lambda html: html
    display.display = lambda html, display_id: handle
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    with NotebookBars.shown() as bars:
        bars.start("cut", 10, 0)
        bars.advance("cut", 10)
    assert "10 of 10" in shown[-1]
