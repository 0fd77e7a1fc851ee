"""The columns that bundles are fed, and the wait for a bundle that is not there."""

import shutil
import time
from contextlib import closing

import pytest

from galbatch import config, execution, models
from galbatch.config import ModelConfig
from galbatch.errors import ConfigError, Stopped
from galbatch.execution.bundles import EngineChoice, fed_columns
from galbatch.models import AuxiliaryInput, InputInfo


def network(name, *columns):
    return ModelConfig(name=name, bundle=("demo:gampen",), auxiliary_inputs=columns)


def taken(*lengths):
    names = ("a", "b")
    return InputInfo(
        auxiliary_inputs=tuple(AuxiliaryInput(n, length=k) for n, k in zip(names, lengths, strict=True))
    )


def test_columns_of_several_networks_are_fed_once_with_their_lengths():
    networks = [network("one"), network("other", "c", "a")]
    assert fed_columns(networks, [taken(None, 4), taken(3, None)]) == {"a": None, "b": 4, "c": 3}


@pytest.mark.parametrize(
    ("lengths", "words"), [((4, 3), "3 numbers .* takes 4;"), ((None, 2), "2 numbers .* takes 1;")]
)
def test_a_column_that_networks_take_with_other_lengths_is_refused(lengths, words):
    first, second = ((length, None) for length in lengths)
    with pytest.raises(ConfigError, match=rf"\[\[models\]\] other: takes column a with {words}"):
        fed_columns([network("one"), network("other")], [taken(*first), taken(*second)])


def test_nobody_waits_for_a_bundle_once_the_choice_is_closed(write_run, tmp_path, monkeypatch):
    monkeypatch.setattr("galbatch.models.bundle.files._loaded", {})
    bundle, notes = tmp_path / "net.pt", []
    shutil.copy(models.bundle_path("demo:gampen"), bundle)
    parsed = config.read_config(
        write_run(tmp_path, replace=[('bundle = "demo:gampen"', f'bundle = "{bundle}"')])
    )
    plan = execution.prepare(parsed, loads=False)
    bundle.rename(tmp_path / "away.pt")
    with closing(EngineChoice(parsed, plan, notes.append)) as choice:
        choice.begin()
        deadline = time.monotonic() + 600
        while not notes:
            assert time.monotonic() < deadline
            choice.require()
            time.sleep(0.01)
    assert "A bundle is not there: waiting" in notes[0]
    # The longest wait of a run is hours: only the end of it lets the thread go.
    with pytest.raises(Stopped, match="the run has ended"):
        choice.plan(lambda: None)
