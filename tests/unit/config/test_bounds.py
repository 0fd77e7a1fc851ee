"""Every number of run.toml has bounds on both sides, and an error that names the key."""

from __future__ import annotations

import copy
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from galbatch.config import RunConfig
from galbatch.config.strict import parse_strictly
from galbatch.errors import ConfigError

SURVEY = {"layout": "generic", "tiles": "t", "bands": ["g"]}
RIGHT = {"survey": [SURVEY], "objects": {"path": "a.csv"}, "models": [{"name": "m", "bundle": "b.pt"}]}

# As many numbers of a list as the key takes, where the first is the one that is tried.
LISTS: dict[str, list[Any]] = {
    "circle_deg": [150, 2, 1],
    "box_deg": [149, 151, 1, 3],
    "quantiles": [0.1, 0.5],
}


def numbers(kind: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The keys of all sections that hold a number, or numbers by name in a table."""
    for member in (kind, *_members(kind)):
        if isinstance(member, type) and issubclass(member, BaseModel):
            for name, field in member.model_fields.items():
                yield from numbers(field.annotation, (*path, name))
        elif member in (int, float):
            yield path, member


def _members(kind: Any) -> Iterator[Any]:
    if typing.get_origin(kind) is typing.Literal:
        return
    for argument in typing.get_args(kind):
        yield argument
        yield from _members(argument)


KEYS = sorted({path for path, _ in numbers(RunConfig)})


def with_value(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    data = copy.deepcopy(RIGHT)
    holder: Any = data
    for name in path[:-1]:
        holder = holder.setdefault(name, {})
        holder = holder[0] if isinstance(holder, list) else holder
    name = path[-1]
    holder[name] = [value, *LISTS[name][1:]] if name in LISTS else value
    return data


def test_the_keys_are_found() -> None:
    assert len(KEYS) > 30
    assert ("survey", "generic", "mask_planes") in KEYS
    assert ("posterior", "quantiles") in KEYS


@pytest.mark.parametrize("path", KEYS, ids=".".join)
@pytest.mark.parametrize("value", [1e308, -1e308, 2**62, -(2**62)])
def test_a_number_beyond_all_bounds_is_refused(path: tuple[str, ...], value: float) -> None:
    # Any integer of 64 bits that is not negative is a seed.
    if path == ("posterior", "seed") and value == 2**62:
        value = 2**63
    for given in (value, {"g": value}):
        with pytest.raises(ConfigError) as refused:
            parse_strictly(RunConfig, with_value(path, given), "run.toml")
        assert path[-1] in str(refused.value)
        assert "constrained" not in str(refused.value)


def test_a_value_of_several_kinds_is_explained_by_its_key_alone() -> None:
    with pytest.raises(ConfigError) as refused:
        parse_strictly(RunConfig, with_value(("survey", "zero_point_mag"), 99.0), "run.toml")
    assert str(refused.value).splitlines() == [
        "run.toml: [survey] zero_point_mag: Input should be less than or equal to 50 (found 99.0)",
        "run.toml: [survey] zero_point_mag: Input should be a valid dictionary (found 99.0)",
    ]


@pytest.mark.parametrize("text", ["9" * 400 + " GiB", "1.2.3 GB", "2 EiB", "1..5 GB", "2000000000 GiB"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="max_bytes_per_partition"):
        parse_strictly(RunConfig, with_value(("plan", "max_bytes_per_partition"), text), "run.toml")
