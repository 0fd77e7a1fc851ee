"""The reference holds every command, config key, column and flag: docs/from_code.py makes them where a page asks for them."""

import dataclasses
import importlib.util
import re
from pathlib import Path

import pytest
import typer.main

from galbatch import cli, models
from galbatch.config import RunConfig
from galbatch.core.flags import MaskBit, ModelFlag, PixelFlag
from galbatch.models import HEADS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def from_code():
    spec = importlib.util.spec_from_file_location("from_code", DOCS / "from_code.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(from_code):
    """Name of a page -> its Markdown with the generated parts."""
    return {
        str(path.relative_to(DOCS)): from_code.filled(path.read_text(encoding="utf-8"))
        for path in DOCS.rglob("*.md")
    }


def command_names(command, name="galbatch"):
    if not hasattr(command, "commands"):
        return [name]
    visible = [item for item in command.commands.items() if not item[1].hidden]
    return [full for key, child in visible for full in command_names(child, f"{name} {key}")]


def test_every_command_has_its_heading(pages):
    names = command_names(typer.main.get_command(cli.app.app))
    assert len(names) > 15
    assert re.findall(r"^## `(galbatch .*)`$", pages["reference/commands.md"], re.MULTILINE) == names


def keys_of(section):
    for key, field in section.model_fields.items():
        inner = next(
            (a for a in (field.annotation, *getattr(field.annotation, "__args__", ())) if is_section(a)), None
        )
        yield from keys_of(inner) if inner else (key,)


def is_section(kind):
    return hasattr(kind, "model_fields")


def test_every_config_key_has_its_row(pages):
    rows = re.findall(r"^\| `(\w+)` \|", pages["reference/config.md"], re.MULTILINE)
    keys = list(keys_of(RunConfig))
    assert len(keys) > 60
    assert sorted(rows) == sorted(keys)


def test_every_training_setting_has_its_row(pages):
    rows = re.findall(r"^\| `(\w+)` \|", pages["reference/training.md"], re.MULTILINE)
    # The options of heads, which are inherited and taken by keyword, stand last.
    fields = sorted(dataclasses.fields(models.TrainingSettings), key=lambda field: field.kw_only)
    assert rows == [field.name for field in fields]


@pytest.mark.parametrize(
    ("page", "flags"),
    [("flags", PixelFlag), ("flags", ModelFlag), ("store", MaskBit)],
)
def test_every_flag_has_its_row(pages, page, flags):
    for flag in flags:
        assert re.search(rf"^\| \d+ \| {flag.name} \|", pages[f"reference/{page}.md"], re.MULTILINE), (
            flag.name
        )


def test_every_head_has_its_row(pages):
    rows = re.findall(r"^\| `(\w+)` \| .+ \| .+ \| .*\|$", pages["reference/bundles.md"], re.MULTILINE)
    assert rows == list(HEADS)


def test_the_columns_of_the_demo_bundles_have_their_rows(pages):
    rows = re.findall(r"^\| `(\w+)` \|", pages["reference/columns.md"], re.MULTILINE)
    assert {"gampen_bt_q500", "gampen_passes", "gampen_flags", "sfnet_feature_0"} <= set(rows)
    assert len(rows) == len(set(rows))


def test_every_generated_part_stands_on_a_page(from_code):
    text = "".join(path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md"))
    assert sorted(from_code.PLACE.findall(text)) == sorted(from_code.GENERATED)
