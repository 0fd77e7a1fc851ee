"""galbatch compare, called in this process as a user calls it."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest
from astropy.table import Table

import galbatch
import galbatch.cli
from galbatch.cli.printing import with_error
from tests.unit.api.conftest import IDS, write_catalog


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A catalog of three objects, two of them with a radius, and a table with a bias of -0.25 arcsec."""
    folder = tmp_path_factory.mktemp("compare")
    write_catalog(str(folder / "catalog"))
    table = Table({"objid": [*IDS, 99], "RA": [150.1, 150.101, 150.1, 10.0], "Dec": [-2.2, -2.2, -2.25, 0.0]})
    table["R_e"] = [1.5 / 60, 3.25 / 60, 1 / 60, 1 / 60]
    table["R_e"].unit = "arcmin"
    table.write(folder / "other.fits")
    return str(folder / "catalog"), str(folder / "other.fits")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: tuple[str, str]):
    def run(*arguments: object) -> tuple[int, str, str]:
        words = ["galbatch", "compare", files[0], "--with", files[1], *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", words)
        code = 0
        try:
            galbatch.cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("match", [(), ("--match", "sky", "--radius", "0.02arcmin")])
def test_counts_and_a_table_are_printed(call, files: tuple[str, str], match: tuple[str, ...]) -> None:
    code, printed, errors = call("--flagged", "--bins", "none", *match)
    assert (code, errors) == (0, "")
    lines = printed.splitlines()
    assert lines[:4] == [
        "matched: 3 objects",
        f"only in {files[0]}: 0",
        f"only in {files[1]}: 1",
        "ambiguous, left out: 0 and 0",
    ]
    assert lines[5] == "net re_arcsec and R_e (arcsec):"
    # Two objects have values, and both differ by 0.25: there is no error.
    assert lines[7].split()[:4] == ["all", "2", "-0.25", "0"]
    assert max(map(len, lines[5:])) <= 80


@pytest.mark.parametrize("suffix", ["ecsv", "csv", "parquet"])
def test_table_and_figure_are_written(call, tmp_path: Path, suffix: str) -> None:
    table, figure = tmp_path / f"t.{suffix}", tmp_path / "f.png"
    code, printed, _ = call("--bins", "re_arcsec:0,2,4", "-o", table, "--plot", figure)
    assert code == 0
    assert printed.splitlines()[-2:] == [f"table: {table}", f"figure: {figure}"]
    assert figure.stat().st_size > 10_000
    rows = pd.read_parquet(table) if suffix == "parquet" else Table.read(table).to_pandas()
    # The first object is flagged as bad at its center, the last has no value.
    assert rows["n"].tolist() == [1, 0, 1]
    assert rows["bias"].tolist()[::2] == pytest.approx([-0.25, -0.25])
    assert rows["bin_high"].tolist()[1:] == [2, 4]
    assert rows["unit"].tolist() == ["arcsec"] * 3


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--column", "R_e"), "--column R_e: expected QUANTITY=COLUMN, such as re_arcsec=R_e"),
        (("--column", "re=R_e"), "--column re: the catalog's quantities are re_arcsec"),
        (("--column", "re_arcsec=R_e:kpc"), "column R_e: is in kpc, which does not become arcsec"),
        (("--match", "place"), "--match place: expected id or sky"),
        (("--match", "sky", "--radius", "0"), "expected an angle above 0"),
        (("--bins", "mag"), "--bins mag: no quantity or column mag"),
        (("-o", "x.xlsx"), "x.xlsx: unknown kind of table"),
        (("--plot", "x.gif"), "x.gif: unknown kind of picture"),
        (("--id", "name"), "no column name"),
    ],
)
def test_wrong_usage_is_named(call, arguments: tuple[str, ...], problem: str) -> None:
    code, printed, errors = call(*arguments)
    assert (code, printed) == (2, "")
    assert problem in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [
        ((0.10312, 0.0117), "0.103±0.012"),
        ((-0.00004, 0.0117), "0.000±0.012"),
        ((12345.6, 321.0), "12346±321"),
        ((0.25, None), "0.25"),
        ((0.25, 0.0), "0.25"),
        ((None, None), ""),
        ((0.7312, 0.0117, 100.0), "73.1±1.2"),
    ],
)
def test_errors_have_two_digits(numbers, shown) -> None:
    assert with_error(*numbers) == shown


def test_the_function_is_public() -> None:
    assert galbatch.compare.__module__ == "galbatch.reporting.comparison.comparing"
