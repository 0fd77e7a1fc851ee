"""The kinds of heads: each is a file of its own, plays the protocol, and refuses what is not its own."""

import subprocess
import sys
import typing

import pytest

from galbatch.errors import BundleError
from galbatch.models import HEADS, HeadInfo, ParameterInfo, head_of
from galbatch.models.heads import Head, head_problems
from galbatch.models.metadata import HeadOptions

PARAMETERS = (ParameterInfo("x", "", "x", "identity"), ParameterInfo("y", "", "y", "identity"))
OPTIONS = {
    "binned": {"edges": ((0.0, 1.0), (0.0, 1.0, 2.0))},
    "mixture": {"components": 2},
    "vector": {"length": 3},
}


def parameters_of(kind):
    """Two parameters; a vector is one."""
    return PARAMETERS[:1] if kind == "vector" else PARAMETERS


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_is_one_file_that_has_its_name(kind):
    head = HEADS[kind]
    assert head.kind == kind
    assert type(head).__module__ == f"galbatch.models.heads.{kind}"
    assert set(typing.get_type_hints(Head)) <= set(dir(head))
    options = {field: getattr(HeadOptions(), field) for field in head.options}
    assert set(options) == set(OPTIONS.get(kind, {}))


@pytest.mark.parametrize("kind", HEADS)
def test_options_of_other_kinds_are_refused(kind):
    own = OPTIONS.get(kind, {})
    assert head_problems(HeadInfo(kind, **own), parameters_of(kind)) == []
    for other, options in OPTIONS.items():
        if other != kind:
            (problem,) = head_problems(HeadInfo(kind, **own, **options), parameters_of(kind))
            name = next(iter(options))
            verb = "belong" if name.endswith("s") else "belongs"
            assert problem == f"head {kind}: {name} {verb} to head {other}, and to no other"


@pytest.mark.parametrize("kind", OPTIONS)
def test_options_that_are_missing_are_named(kind):
    (problem,) = head_problems(HeadInfo(kind), parameters_of(kind))
    assert problem.startswith(f"head {kind}: {next(iter(OPTIONS[kind]))}")


def test_an_unknown_kind_fails_by_name():
    message = f"head tent: not known; known are {', '.join(HEADS)}"
    assert head_problems(HeadInfo("tent"), PARAMETERS) == [message]
    with pytest.raises(BundleError, match=message):
        head_of(HeadInfo("tent"))


def test_heads_load_without_torch():
    code = "import sys, galbatch.models.heads; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
