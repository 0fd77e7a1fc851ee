"""The reference holds every command, config key, column and flag: docs/from_code.py makes them where a page asks for them."""

import dataclasses
import importlib.util
import re
from pathlib import Path

import pytest
import typer.main

from galbatch import cli, models
from galbatch.config import RunConfig, read_config
from galbatch.core.flags import MaskBit, ModelFlag, PixelFlag
from galbatch.models import HEADS
from tests import snippets

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def from_code():
    spec = importlib.util.spec_from_file_location("from_code", DOCS / "from_code.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        # Sphinx finds the modules of this folder by its conf.py.
        patch.syspath_prepend(DOCS)
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


# --- addresses outside ---------------------------------------------------------------------------------------------------

ADDRESS = re.compile(r"https?://[^\s)>\"'`]+")
MADE_UP = ("example.org", "127.0.0.1", "localhost", "//..")


def pages_for_readers():
    """Every page of the site, and the README, but for the page of addresses itself."""
    texts = {str(path.relative_to(DOCS)): path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md")}
    del texts["addresses.md"]
    return texts | {"README.md": (DOCS.parent / "README.md").read_text(encoding="utf-8")}


def test_no_page_has_an_address_of_its_own(from_code):
    known = from_code.addresses().values()
    for name, text in pages_for_readers().items():
        own = [one for one in ADDRESS.findall(text) if not any(host in one for host in MADE_UP)]
        # A command names the address that it calls; a link has the name of a row.
        assert all(
            f"]({one}" not in text and any(one.startswith(k.rstrip("/")) for k in known) for one in own
        ), (
            name,
            own,
        )


def test_links_to_addresses_lead_to_rows_that_say_where_they_were_read(from_code):
    rows = from_code.addresses()
    table = (DOCS / "addresses.md").read_text(encoding="utf-8")
    lines = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| name")]
    assert len(lines) == len(rows) > 25
    assert all(len(line.strip("| ").split(" | ")) == 4 for line in lines)
    linked = [name for text in pages_for_readers().values() for name in from_code.OUTSIDE.findall(text)]
    assert len(linked) > 20
    assert set(linked) <= set(rows)
    assert from_code.filled("[x](../addresses.md#dr10)") == f"[x]({rows['dr10']})"


# --- the flags as a decision -----------------------------------------------------------------------------------------------


def test_every_flag_has_a_decision_and_those_without_a_value_are_out(from_code, pages):
    assert list(from_code.DECISIONS) == [flag.name for flag in (*PixelFlag, *ModelFlag)]
    without_value = ("OUTSIDE_FOOTPRINT", "MODEL_FAILED")
    assert all(set(from_code.DECISIONS[flag]) == {from_code.OUT} for flag in without_value)
    rows = re.findall(
        r"^\| ([A-Z_]+) \| .* \| (quality|information) \|", pages["howto/quality_cuts.md"], re.M
    )
    assert [name for name, _ in rows] == [flag.name for flag in (*PixelFlag, *ModelFlag)]
    assert dict(rows)["MOSAICKED"] == "information"


# --- blocks of code ----------------------------------------------------------------------------------------------------------


def test_every_block_of_code_is_seen():
    """Blocks within lists, and languages of which nobody knows whether they are run, would be in no test."""
    for page in snippets.pages():
        text = (snippets.ROOT / page).read_text(encoding="utf-8")
        blocks = snippets.blocks_of(page)
        assert len(re.findall(r"^\s*(?:```|~~~)", text, re.M)) == 2 * len(blocks), page
        others = {block.language for block in blocks} - set(snippets.CODE) - {"text"}
        assert all(re.fullmatch(r"\{[\w-]+\}.*", language) for language in others), (page, others)


def test_every_block_of_code_is_run_or_says_that_it_is_not():
    unnamed = {
        page: [
            block.text for block in snippets.blocks_of(page) if not block.is_told and page not in snippets.RUN
        ]
        for page in snippets.pages()
    }
    assert {page: texts for page, texts in unnamed.items() if texts} == {}
    marks = [block.reason for page in snippets.pages() for block in snippets.blocks_of(page) if block.reason]
    assert len(marks) > 10
    assert all(reason.endswith(".") for reason in marks)


@pytest.mark.parametrize("page", snippets.pages())
def test_fragments_of_run_toml_are_valid(tmp_path, page):
    for block in snippets.blocks_of(page):
        if block.is_run_toml:
            (tmp_path / "run.toml").write_text(snippets.completed(block.text))
            read_config(tmp_path / "run.toml")
