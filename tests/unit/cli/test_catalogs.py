"""The commands that read a catalog, called in this process as a user calls them."""

from __future__ import annotations

import io
import json
import shutil
import sys
import tempfile
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.table import Table

import galbatch.cli
from galbatch.cli.printing import print_csv
from galbatch.execution import RunResult
from galbatch.models import Audit
from tests.unit.api.conftest import IDS, write_catalog, write_store

FIRST = str(IDS[0])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("cli") / "catalog")
    write_store(str(Path(path).parent / "cutouts.zarr"), write_catalog(path))
    return path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Call galbatch; return exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["galbatch", *map(str, arguments)])
        code = 0
        try:
            galbatch.cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands believe that they print to a terminal of 80 columns."""

    for name, value in (("TTY_COMPATIBLE", "1"), ("COLUMNS", "80"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)


CENTER = ("150.1", "-2.2")


@pytest.mark.parametrize("center", [CENTER, ("10:00:24", "-02:12:00"), (FIRST,), ("10 00 24 -02 12 00",)])
def test_a_cone_is_csv_in_a_pipe_the_nearest_first(call, small: str, center: tuple[str, ...]) -> None:
    code, printed, errors = call("cone", small, *center, "10", "--columns", "object_id,net_re_arcsec_q500")
    assert (code, errors) == (0, "")
    frame = pd.read_csv(io.StringIO(printed))
    assert frame.columns.tolist() == ["object_id", "net_re_arcsec_q500", "separation_arcsec"]
    assert frame["object_id"].tolist() == [IDS[0], IDS[1]]
    assert frame["separation_arcsec"].tolist() == pytest.approx([0, 3.6 * np.cos(np.deg2rad(2.2))], abs=1e-4)


def test_a_row_with_vectors_is_one_line_of_csv(capsys: pytest.CaptureFixture[str]) -> None:
    """NumPy's own text of an array breaks after a dozen numbers and leaves out those in the middle of long ones."""
    vectors = [[0.5 * n for n in range(2000)], None, [None] * 2000]
    rows = {
        "object_id": pa.array([2**62 + 1, None, 3]),
        "v": pa.array(vectors, pa.list_(pa.float16(), 2000)),
        "raw": pa.array([b"\x00a", None, b""]),
    }
    print_csv(pa.table(rows))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    frame = pd.read_csv(io.StringIO("\n".join(lines)), dtype=str, keep_default_na=False)
    assert frame["object_id"].tolist() == [str(2**62 + 1), "", "3"]
    assert json.loads(frame["v"][0]) == vectors[0]
    assert (frame["v"][1], json.loads(frame["v"][2])) == ("", [None] * 2000)
    assert frame["raw"].tolist() == ["0061", "", ""]


def test_a_radius_may_have_its_unit_as_a_word(call, small: str) -> None:
    assert call("cone", small, *CENTER, "1", "arcmin") == call("cone", small, *CENTER, "60")


def test_options_may_stand_anywhere(call, small: str, tmp_path: Path) -> None:
    for number, arguments in enumerate(
        [
            ("-o", "{}", small, *CENTER, "1arcmin"),
            (small, *CENTER, "-o", "{}", "60"),
            (small, *CENTER, "60", "-o", "{}"),
        ]
    ):
        path = tmp_path / f"{number}.ecsv"
        assert call("cone", *(word.format(path) for word in arguments))[0] == 0
        table = Table.read(path)
        assert list(table["object_id"]) == list(IDS[:2])
        assert table["net_re_arcsec_q500"].unit == "arcsec"
        assert table["net_re_arcsec_q500"].meta["ucd"] == "phys.angSize;stat.median"


def test_where_nothing_is_found_it_says_so(call, small: str) -> None:
    code, printed, errors = call("cone", small, "150.1", "2.2", "10")
    assert code == 0
    assert printed.splitlines()[0].startswith("_healpix_29,object_id")
    assert len(printed.splitlines()) == 1
    assert errors == "no object within 10 arcsec of 150.10000 +2.20000 (10:00:24.00 +02:12:00.0)\n"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            ("cone", "{}", "150", "2", "--radius", "5"),
            "--radius: no such option; galbatch cone --help lists them",
        ),
        (("cone", "{}", "150"), "expected a position and then RADIUS_ARCSEC"),
        (("cone", "{}", "150", "2", "-5"), "RADIUS_ARCSEC -5: expected 0 or more"),
        (("cone", "{}", "150", "95", "5"), "a declination within -90..90"),
        (("cone", "{}", "M", "31", "5"), "which excludes M 31; expected right ascension"),
        (("cone", "{}", *CENTER, "5", "--columns", "net_re"), "no column net_re"),
        (("cone", "{}", *CENTER, "5", "-o", "x.xlsx"), "x.xlsx: unknown kind of table"),
        (("show", "{}", "12"), "no object has the id 12"),
        (
            ("show", "{}", FIRST, "-5", "--thumbnail", "x.png"),
            "--thumbnail x.png: expected one object, found 2",
        ),
        (
            ("flags", "{}", "1", "--column", "bits"),
            "--column bits: the columns of flags are flags, net_flags",
        ),
        (("columns", "{}", "bulge"), "no column's name contains bulge"),
        (("cutout", "{}", FIRST), "expected -o FILE.fits or --png FILE.png, or both"),
        (("cutout", "{}", FIRST, "-o", "x.fits", "--north-up", "--like", "y.fits"), "exclude each other"),
        (("cutout", "{}", FIRST, "-o", "x.jpg"), "x.jpg: cutouts are written as FITS"),
        (("cutout", "{}", FIRST, "-o", "x.fits", "--store", "none.zarr"), "none.zarr: no cutout store"),
    ],
)
def test_wrong_usage_is_named(call, small: str, arguments: tuple[str, ...], problem: str) -> None:
    code, printed, errors = call(*(word.format(small) for word in arguments))
    assert code in (1, 2)
    assert printed == ""
    assert problem in errors
    assert "Traceback" not in errors


def test_a_terminal_gets_a_table_that_fits(call, small: str, on_terminal: None) -> None:
    code, printed, _ = call("cone", small, *CENTER, "10")
    lines = printed.splitlines()
    assert code == 0
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["object_id", "separation_arcsec", "ra_deg", "dec_deg"]
    assert lines[1].split() == [FIRST, "0", "150.10000", "-2.20000"]
    assert lines[-1] == "12 more columns: name some by --columns, or write all by -o FILE"
    names = "ra_deg,net_re_arcsec_q500,net_re_arcsec_q15865,net_flags,z_best"
    wide = call("cone", small, *CENTER, "10", "--columns", f"object_id,{names}")[1].splitlines()
    assert max(map(len, wide)) <= 80
    # What does not fit follows in a second block, with the ids again.
    assert [line.split()[0] for line in wide if line.strip()].count("object_id") == 2
    assert all(name in " ".join(wide) for name in names.split(","))


def test_an_object_is_shown_with_a_picture(
    call, small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code, printed, _ = call("show", small, FIRST, "-5")
    assert code == 0
    paths = [line.removeprefix("picture: ") for line in printed.splitlines() if line.startswith("picture: ")]
    assert [Path(path).name.partition("_")[2] for path in paths] == [f"{FIRST}.png", "-5.png"]
    assert {matplotlib.image.imread(path).shape for path in paths} == {(72, 72, 3)}
    # A catalog whose store is gone is shown all the same.
    shutil.copytree(small, tmp_path / "alone" / "catalog")
    code, printed, _ = call("show", tmp_path / "alone" / "catalog", FIRST)
    assert code == 0
    assert printed.splitlines()[-1].startswith(
        f"picture: none ({tmp_path}/alone/cutouts.zarr: no cutout store;"
    )


def test_an_object_is_shown_in_words(call, small: str, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    code, printed, _ = call("show", small, FIRST, "--thumbnail", picture)
    assert code == 0
    for line in (
        "position: 150.100000 -2.200000 deg, 10:00:24.00 -02:12:00.0, ICRS",
        "  8 BAD_CENTER (quality): Bad, interpolated or cosmic-ray pixels near the center.",
        "net: 64 passes, Monte Carlo error 0.05 posterior std; flags:",
        "re_arcsec: small",
        f"picture: {picture}",
    ):
        assert line in printed.splitlines()
    assert "re_arcsec   1.250  1.219 to 1.281  1.188 to 1.312  arcsec" in printed
    # Three pixels of the picture for one of the cutout, which is reddish: r has twice the flux of g.
    pixels = matplotlib.image.imread(picture)
    assert pixels.shape == (72, 72, 3)
    red, _, blue = pixels[24, 36, :3]
    assert red > blue


@pytest.mark.parametrize("suffix", ["fits", "vot", "ecsv", "parquet"])
def test_show_writes_rows_with_units_in_every_format(call, small: str, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.{suffix}"
    assert call("show", small, IDS[2], FIRST, "-o", path)[0] == 0
    table = Table.read(path)
    assert list(table["object_id"]) == [IDS[2], IDS[0]]
    column = table["net_re_arcsec_q500"]
    assert (column.unit, column.meta["ucd"]) == ("arcsec", "phys.angSize;stat.median")
    # The first of the two has no value: masked where the format has masks, NaN in Parquet as astropy reads it.
    assert np.ma.is_masked(column[0]) or np.isnan(column[0])


def test_flags_and_columns_are_explained(call, small: str) -> None:
    assert call("flags", small, "72", "--column", "net_flags")[1].splitlines() == [
        "net_flags 72:",
        "  8 NOT_CONVERGED (quality): More passes could still move a quantile by more than the tolerance.",
        "  64 CROP_AT_LIMIT (quality): The network's crop is at its limit: the galaxy may not fit.",
    ]
    assert call("flags", small, "0")[1].splitlines() == ["flags 0:", "  no flag", "net_flags 0:", "  no flag"]
    counted = call("flags", small, "--column", "flags")[1].splitlines()
    assert [line.split()[:3] for line in counted if "BAD_CENTER" in line] == [["1", "8", "BAD_CENTER"]]
    lines = call("columns", small, "q500")[1].splitlines()
    assert lines[1].split() == [
        *("net_re_arcsec_q500", "float", "arcsec"),
        *[
            "posterior",
            "quantile",
            "0.5",
            "of",
            "radius;",
            "null:",
            "no",
            "value,",
            "the",
            "flags",
            "say",
            "why",
        ],
    ]


def test_cutouts_are_written_as_fits_and_pictures(call, small: str, tmp_path: Path) -> None:
    path = tmp_path / "x.fits"
    assert call("cutout", small, FIRST, "-5", "-o", path, "--north-up")[1] == f"2 cutouts: {path}\n"
    with fits.open(path) as hdus:
        assert hdus[0].header["NOBJECTS"] == 2
        assert hdus["IMAGE_G", 2].header["OBJECT"] == "-5"
        assert hdus["IMAGE_G", 2].header["RA_OBJ"] == 150.101
    picture = tmp_path / "x.png"
    assert call("cutout", small, FIRST, "--png", picture, "--like", path)[0] == 0
    assert matplotlib.image.imread(picture).shape == (72, 72, 3)
    both = ("-o", tmp_path / "y.fits", "--png", tmp_path / "y.png")
    assert call("cutout", small, FIRST, *both)[1] == f"1 cutout: {both[1]}, {both[3]}\n"
    assert fits.getval(both[1], "NOBJECTS") == 1
    assert matplotlib.image.imread(both[3]).shape == (72, 72, 3)


def test_verify_tells_on_stderr_of_errors_that_are_larger_than_stated(call, tmp_path, monkeypatch) -> None:
    """A catalog with such an audit: it is good, and its stated errors are not."""
    path = str(tmp_path / "catalog")
    write_catalog(path)
    monkeypatch.setattr("galbatch.execution.verify_outputs", lambda *_: [])
    with (Path(path) / "hats.properties").open("a") as properties:
        properties.write("galbatch_audit_net=150 objects, actual over stated 1.40\n")
        properties.write("galbatch_doubt_net=Monte Carlo errors are 1.40 times those stated\n")
    code, printed, complained = call("verify", path)
    assert code == 0
    assert "audit of net: 150 objects, actual over stated 1.40" in printed
    assert complained.strip() == "net: Monte Carlo errors are 1.40 times those stated"


def test_a_run_tells_on_stderr_of_errors_that_are_larger_than_stated(call, tmp_path, monkeypatch) -> None:
    """After the run, with its exit code; a run that only cuts says nothing of the catalog of an earlier one."""
    run_toml = tmp_path / "run.toml"
    run_toml.write_text(
        '[survey]\nlayout = "hsc"\ntiles = "nowhere"\nbands = ["g"]\n[objects]\npath = "nowhere.parquet"\n'
        '[[models]]\nname = "net"\nbundle = "nowhere.pt"\n[catalog]\npath = "catalog"\n'
    )
    write_catalog(str(tmp_path / "catalog"))
    doubt = Audit((0.16, 0.5), 150, 10, 2, stated=(2.0, 1.0), actual=(4.0, 2.0)).doubt
    with (tmp_path / "catalog" / "hats.properties").open("a") as properties:
        properties.write(f"galbatch_doubt_net={doubt}\n")
    monkeypatch.setattr(
        "galbatch.api.run", lambda *_, stage, **__: RunResult(n_inferred=150, finished=stage != "ingest")
    )
    code, _, complained = call("run", run_toml)
    assert code == 0
    assert complained.startswith("net: Monte Carlo errors are 1.41 times those stated (140 audited objects)")
    assert call("run", run_toml, "--stage", "ingest")[2] == ""
