"""No value that is out of range is accepted: every key of run.toml is tried."""

from __future__ import annotations

import copy
import math
import typing
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from pydantic import BaseModel

from galbatch.config import RunConfig, parse_strictly, read_config
from galbatch.core.flags import RENAMED_FLAGS, ModelFlag, PixelFlag
from galbatch.errors import ConfigError
from galbatch.objects import select_rows

RIGHT: dict[str, Any] = {
    "survey": {"layout": "hsc", "tiles": "t", "bands": ["g"]},
    "objects": {"path": "o"},
    "models": [{"name": "m", "bundle": "b"}],
}


def keys_of(section: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Iterate over the paths and types of all keys."""
    for key, field in section.model_fields.items():
        kinds = (field.annotation, *typing.get_args(field.annotation))
        inner = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if inner is not None:
            yield from keys_of(inner, (*path, key))
        else:
            yield (*path, key), str(field.annotation)


NUMBERS = [path for path, kind in keys_of(RunConfig) if "float" in kind or "int" in kind]
LAYOUTS = ("generic", "stamps", "galaxiesml", "multimodaluniverse")


def parsed(path: tuple[str, ...], value: Any) -> RunConfig:
    data = copy.deepcopy(RIGHT)
    node: Any = data
    for key in path[:-1]:
        node = node.setdefault(key, {})
        node = node[0] if isinstance(node, list) else node
    node[path[-1]] = value
    if path[1] in LAYOUTS:
        data["survey"]["layout"] = path[1]
    return parse_strictly(RunConfig, data, source="run.toml")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, 10**30, -(10**30)])
def test_no_number_is_infinite_or_true(value: Any) -> None:
    assert len(NUMBERS) > 30
    for path in NUMBERS:
        for form in (value, {"g": value}, [value]):
            with pytest.raises(ConfigError, match=path[-1]):
                parsed(path, form)


def test_messages_name_section_and_key() -> None:
    for path, value, message in (
        (("flags", "low_snr"), math.nan, r"run\.toml: \[flags\] low_snr: Input should be a finite number \(found nan\)"),
        (("flags", "low_snr"), True, r"run\.toml: \[flags\] low_snr: true is neither number nor text"),
        (("posterior", "seed"), 2**63, r"run\.toml: \[posterior\] seed: 9223372036854775808 is beyond 64 bits"),
        (("survey", "generic", "image"), -1, r"run\.toml: \[survey\.generic\] image: HDUs are counted from 0, found -1"),
        (("survey", "generic", "mask"), {"g": -2}, r"\[survey\.generic\] mask: HDUs are counted from 0, found -2"),
        (("objects", "hdu"), -1, r"run\.toml: \[objects\] hdu: HDUs are counted from 0, found -1"),
        (("survey", "stamps", "pixel_scale_arcsec"), 3601, r"less than or equal to 3600 \(found 3601\)"),
        (("flags", "center_radius_arcsec"), 3601.0, r"less than or equal to 3600 \(found 3601\.0\)"),
        (("cluster", "wait_s"), 1e9, r"\[cluster\] wait_s: Input should be less than or equal to"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            parsed(path, value)
    assert parsed(("posterior", "seed"), 2**63 - 1).posterior.seed == 2**63 - 1
    assert parsed(("posterior", "keep_pass_outputs"), True).posterior.keep_pass_outputs


def test_a_flag_that_was_renamed_is_told_by_its_new_name(tmp_path):
    new = r"the flag NONFINITE_INPUT is called MISSING_PIXELS"
    path = tmp_path / "run.toml"
    path.write_text(
        '[survey]\nlayout = "hsc"\ntiles = "x"\nbands = ["g"]\n[objects]\npath = "x.parquet"\n[[models]]\nname = "m"\n'
        'bundle = "b.pt"\n[flags]\nbad_planes = ["NONFINITE_INPUT"]\n'
    )
    with pytest.raises(ConfigError, match=rf"\[flags.*\] .*{new}"):
        read_config(path)
    with pytest.raises(ConfigError, match=rf"no column NONFINITE_INPUT; {new}"):
        select_rows({"gampen_flags": pa.array([0])}, 1, "NONFINITE_INPUT == 0")
    assert {*RENAMED_FLAGS.values()} <= {flag.name for kind in (PixelFlag, ModelFlag) for flag in kind}
    assert not {*RENAMED_FLAGS} & {flag.name for kind in (PixelFlag, ModelFlag) for flag in kind}
