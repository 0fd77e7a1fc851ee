"""The table of what came of the faults, and faults that come too late."""

from types import SimpleNamespace

import numpy as np

from tests.faults import table, test_faults
from tests.faults.kinds import KINDS, Case, Expected, Kind


def line(seed, fault, **changes):
    return {"seed": seed, "fault": fault, "struck": True, "passed": True, "lost": 0} | changes


def test_only_faults_that_struck_count_and_of_each_seed_the_last_line():
    first, second, third = (kind.name for kind in KINDS[:3])
    made = table.table(
        [
            line(0, first, passed=False, lost=3),
            line(0, first),
            line(39, first),
            line(1, second, struck=False),
            line(2, third, passed=False, lost=2),
        ]
    )
    assert "2 faults struck runs or their outputs, of 1 kinds" in made
    assert "2 objects were lost. 1 others failed a check" in made
    rows = {row.split(" | ")[0].removeprefix("| "): row for row in made.splitlines() if row.startswith("| ")}
    assert rows[first].endswith("| 2 | 0 |")
    assert rows[second].endswith("| 0 | |")
    assert len(rows) == len(KINDS) + 1
    assert "failed" not in table.table([line(0, first)])


class Outputs:
    """Outputs that count how often they were cleared."""

    def __init__(self):
        self.n_cleared = 0

    def clear(self):
        self.n_cleared += 1


def played(monkeypatch, late):
    """Play a kind that comes too late `late` times; the case, and how often it was tried."""
    outputs, tries = Outputs(), []
    case = Case(np.random.default_rng(0), None, outputs, {}, None, n_steps=24)
    ended = SimpleNamespace(code=0)
    monkeypatch.setattr(Case, "start", lambda self: SimpleNamespace(end=lambda: ended))

    def strike(case):
        tries.append(1)
        case.has_struck = len(tries) > late

    kind = Kind("made up", ("disk",), Expected.HEALS, strike)
    assert test_faults.struck_at_work(kind, case, None) is ended
    return case, len(tries)


def test_what_comes_too_late_is_played_again_with_new_outputs(monkeypatch):
    case, n_tries = played(monkeypatch, late=1)
    assert (case.has_struck, n_tries, case.outputs.n_cleared) == (True, 2, 1)


def test_what_always_comes_too_late_counts_as_not_played(monkeypatch):
    case, n_tries = played(monkeypatch, late=9)
    assert (case.has_struck, n_tries) == (False, test_faults.TRIES)
    # The last outputs stay: they are verified as all others.
    assert case.outputs.n_cleared == test_faults.TRIES - 1
