"""The registry of kinds: names once, all of them played and documented."""

import re
from pathlib import Path

from tests.faults.conftest import SHORT_SEEDS
from tests.faults.kinds import KINDS, of_seed

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "faults.md"


def test_names_are_different():
    assert len({kind.name for kind in KINDS}) == len(KINDS)


def test_as_many_seeds_as_kinds_play_each_once_and_always_the_same():
    for start in (0, len(KINDS), 2 * len(KINDS)):
        played = [of_seed(start + number)[0].name for number in range(len(KINDS))]
        assert sorted(played) == sorted(kind.name for kind in KINDS)
    assert len({of_seed(seed)[0].name for seed in SHORT_SEEDS}) == len(SHORT_SEEDS)
    kind, rng = of_seed(77)
    assert of_seed(77)[0] is kind
    assert of_seed(77)[1].integers(1 << 60) == rng.integers(1 << 60)


def test_the_page_on_faults_has_a_row_for_each_kind_with_how_the_run_comes_through():
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|", PAGE.read_text(encoding="utf-8"), re.M)
    documented = {name: (where, how) for name, where, how in rows if name != "fault"}
    for kind in KINDS:
        where, how = documented.pop(kind.name)
        assert where == ", ".join(kind.where)
        assert how == kind.expected.value
    assert documented == {}
