"""The list of layouts: what config accepts, what is read, what is simulated and what is tested is the same."""

import importlib
import typing
from pathlib import Path

from galbatch.config import SurveyConfig
from galbatch.ingest.layouts import LAYOUTS
from galbatch.simulation import WRITERS
from tests.unit.ingest.layouts.contract import LayoutContract


def test_every_layout_is_under_contract():
    for path in Path(__file__).parent.glob("test_*.py"):
        importlib.import_module(f"tests.unit.ingest.layouts.{path.stem}")
    assert {contract.layout for contract in LayoutContract.__subclasses__()} == set(LAYOUTS)


def test_every_layout_says_what_it_expects():
    assert all(layout.expects and layout.suffixes for layout in LAYOUTS.values())


def test_config_accepts_what_is_read():
    assert typing.get_args(SurveyConfig.model_fields["layout"].annotation) == tuple(LAYOUTS)


def test_what_is_simulated_can_be_read():
    assert set(WRITERS) <= set(LAYOUTS)
