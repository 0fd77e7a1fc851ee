"""On a terminal of 80 and of 60 columns no line is longer, no word is cut and none is missing."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer.main

import galbatch.cli
from galbatch.cli import app as cli
from galbatch.cli import printing
from galbatch.cli.printing import lines
from galbatch.core.texts import continued, fill
from tests.unit.api.conftest import IDS, write_catalog

ANSI = re.compile(r"\x1b\[[0-9;]*m")
WIDTHS = (80, 60)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch):
    """Let rich and click believe that they print to a terminal of a width."""

    def of_width(width: int | None) -> None:
        if width is None:
            monkeypatch.setenv("TTY_COMPATIBLE", "0")
            return
        for name, value in (("TTY_COMPATIBLE", "1"), ("COLUMNS", str(width)), ("TERM", "xterm")):
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("TTY_INTERACTIVE", raising=False)
        # rich reads COLUMNS when a console is made, which a process of several tests may have set before it.
        for console in (lines.out, lines.errors):
            monkeypatch.setattr(console, "_width", width)

    return of_width


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def run(words: list[str]) -> str:
        monkeypatch.setattr(sys, "argv", ["galbatch", *words])
        with pytest.raises(SystemExit):
            galbatch.cli.main()
        shown = capsys.readouterr()
        return ANSI.sub("", shown.out + shown.err)

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog of three objects, an object list with what a check names, and a truth table."""
    folder = tmp_path_factory.mktemp("t")
    write_catalog(str(folder / "catalog"))
    ids = np.arange(40_000_000_000_000_001, 40_000_000_000_000_021)
    frame = pd.DataFrame({"object_id": ids, "ra": 150 + 1e-5 * np.arange(20), "dec": 2.0})
    frame.assign(isprimary=ids % 2 == 0, i_cmodel_mag=22.5, i_extendedness_value=1.0).to_csv(
        folder / "list.csv", index=False
    )
    pd.DataFrame({"object_id": list(IDS), "re_arcsec": [1.5, 3.0, 1.0]}).to_parquet(folder / "truth.parquet")
    return folder


COMMANDS = {
    "cone": "cone catalog 150.1 -2.2 200",
    "cone with columns": "cone catalog 150.1 -2.2 200 --columns object_id,net_re_arcsec_q500,net_flags,z_best,net_re_arcsec_q15865",
    "nothing found": "cone catalog 150.1 2.2 10",
    "show": f"show catalog {IDS[0]} {IDS[1]} {IDS[2]}",
    "columns": "columns catalog",
    "flags": "flags catalog 1023",
    "counts of flags": "flags catalog",
    "compare": "compare catalog --with truth.parquet --flagged",
    "compare in bins": "compare catalog --with truth.parquet --flagged --bins re_arcsec:0,2,4",
    "models list": "models list",
    "models show": "models show demo:sfnet",
    "models show --full": "models show demo:gampen --full",
    "an error": "cone catalog 150.1 -2.2 5 --columns net_re",
    "a usage error": "cone catalog 150.1",
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("command", COMMANDS)
def test_output_fits_the_terminal(call, terminal, folder, monkeypatch, command: str, width: int) -> None:
    monkeypatch.chdir(folder)
    words = COMMANDS[command].split()
    # Of a terminal wider than any line all words are there; a pipe may get another form.
    terminal(2000)
    wide = call(words)
    terminal(width)
    shown = call(words)
    # The 64 digits of a hash are one word.
    too_long = [line for line in shown.splitlines() if len(line) > width and len(line.split()) > 3]
    assert too_long == []
    # Blocks of a table repeat their first column. Of a circle a narrow terminal shows fewer columns, and says how many.
    if command != "cone":
        assert set(shown.split()) == set(wide.split())
    assert "…" not in shown


@pytest.mark.parametrize("width", WIDTHS)
def test_a_check_of_a_list_fits_but_for_its_toml(call, terminal, folder, monkeypatch, width: int) -> None:
    monkeypatch.chdir(folder)
    terminal(2000)
    wide = call(["objects", "check", "list.csv"])
    terminal(width)
    shown = call(["objects", "check", "list.csv"])
    report, _, toml = shown.partition("To paste into run.toml\n")
    assert max(map(len, report.splitlines())) <= width
    assert report.split() == wide.partition("To paste into run.toml\n")[0].split()
    assert toml == wide.partition("To paste into run.toml\n")[2]


def helps(command=None, words=()):
    command = command or typer.main.get_command(cli.app)
    inner = getattr(command, "commands", {})
    return [list(words)] + [found for key, child in inner.items() for found in helps(child, (*words, key))]


@pytest.mark.parametrize("width", WIDTHS)
def test_every_help_fits(call, terminal, width: int) -> None:
    assert len(helps()) > 25
    for words in helps():
        terminal(200)
        wide = call([*words, "--help"])
        terminal(width)
        shown = call([*words, "--help"])
        usage = re.compile(r"Usage:.*?\n\n", re.DOTALL)
        assert [line for line in shown.splitlines() if len(line) > width] == [], words
        # Lists of commands show the beginning of a help text; click also breaks lines after hyphens.
        begun, known = (
            {word.removesuffix("...") for word in re.split(r"[\s-]+", usage.sub("", text))}
            for text in (shown, wide)
        )
        cut = {word for word in begun - known if not any(one.startswith(word) for one in known)}
        assert cut == set(), words


def test_a_pipe_gets_whole_lines(call, terminal, folder, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    terminal(None)
    lines = call(["columns", "catalog"]).splitlines()
    assert len(lines) == 1 + 15
    assert max(map(len, lines)) > 100
    assert "\x1b" not in "".join(lines)
    assert len(call(["models", "list"]).splitlines()) == 4


def test_lines_break_between_words() -> None:
    assert (
        fill("  failed: a-very-long-word of this line", 20)
        == "  failed:\n    a-very-long-word\n    of this line"
    )
    assert fill("first line\nsecond", 80) == "first line\nsecond"
    path = "/" + "x" * 100
    assert fill(f"written: {path} now", 60).split() == ["written:", path, "now"]


def test_commands_can_be_pasted_where_they_are_continued() -> None:
    command = "  galbatch draws /data/catalog 40004200000000007 --plot corner.png"
    shown = continued(command, 40)
    assert max(map(len, shown.splitlines())) <= 40
    assert shown.replace(" \\\n", " ").split() == command.split()
    assert continued(command, 80) == command


def test_prose_stands_below_its_row_where_it_has_no_room(terminal, capsys) -> None:
    rows = [("a_long_name_of_a_column_that_takes_it_all", "float", "Words of a text that is rather long.")]
    terminal(60)
    printing.print_table(("column", "type", "meaning"), rows, prose=True)
    assert ANSI.sub("", capsys.readouterr().out).splitlines() == [
        "column                                     type   meaning",
        "a_long_name_of_a_column_that_takes_it_all  float",
        "    Words of a text that is rather long.",
    ]
    terminal(80)
    printing.print_table(("column", "type", "meaning"), rows, prose=True)
    assert ANSI.sub("", capsys.readouterr().out).splitlines()[1:] == [
        "a_long_name_of_a_column_that_takes_it_all  float  Words of a text that is rather",
        "                                                  long.",
    ]
