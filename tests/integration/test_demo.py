"""galbatch demo at a small size, start to end, as a user runs it."""

import json
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

from galbatch import catalog, open_catalog
from galbatch.core.flags import PixelFlag


def galbatch(arguments, folder):
    command = [sys.executable, "-m", "galbatch", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=270)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def said(folder):
    """What the demo prints."""
    return galbatch(["demo", "--objects", "64", "--out", str(folder / "demo")], folder).stdout


def test_it_makes_a_catalog_and_a_report(said, folder):
    assert "http://127.0.0.1:" in said
    assert "/galaxies" in said
    assert "R²" in said
    assert "galbatch cone" in said
    demo = folder / "demo"
    assert (demo / "report.html").stat().st_size > 50_000
    assert catalog.verify(str(demo / "catalog")) == []
    assert len(catalog.list_leaves(str(demo / "catalog"))) >= 8
    logged = [json.loads(line) for line in (demo / "catalog_log.jsonl").read_text().splitlines()]
    assert sum(line["objects"] for line in logged if line["event"] == "infer") >= 64
    assert logged[-1]["event"] == "end"


def test_the_flags_that_it_counts_are_those_of_the_catalog(said, folder):
    flags = catalog.read_catalog(str(folder / "demo" / "catalog"), columns=["flags"]).column(0).to_numpy()
    expected = {flag.name: np.count_nonzero(flags & flag) for flag in PixelFlag if (flags & flag).any()}
    (told,) = re.findall(r"^flags +(\d+) objects flagged: (.*?)^gampen", said, re.DOTALL | re.MULTILINE)
    assert int(told[0]) == np.count_nonzero(flags) > 0
    assert {name: int(n) for n, name in re.findall(r"(\d+)\s+([A-Z_]+)", told[1])} == expected


def test_the_draws_that_it_suggests_are_there(said, folder):
    (line,) = [line for line in said.splitlines() if "galbatch draws" in line]
    drawn = galbatch(shlex.split(line)[1:], folder)
    assert not drawn.stderr
    assert len(list(folder.glob("corner_*.png"))) == 2


def test_run_again_it_goes_on(said, folder):
    galbatch(["demo", "--objects", "64", "--out", str(folder / "demo")], folder)


@pytest.mark.slow
def test_most_of_what_it_makes_is_usable(folder):
    """Its patches are crowded with galaxies, whose light must not count as a sky that is off."""
    galbatch(["demo", "--objects", "400", "--out", str(folder / "crowded")], folder)
    opened = open_catalog(str(folder / "crowded" / "catalog"))
    flags = opened.to_pandas(columns=["flags"])["flags"].to_numpy()
    assert np.isfinite(opened.to_pandas(columns=["sky_level_njy_g"])["sky_level_njy_g"].to_numpy()).any()
    assert np.count_nonzero(flags & PixelFlag.SKY_OFFSET) < 0.05 * len(flags)
    for network in ("gampen", "sfnet"):
        assert len(opened.good(network)) > 0.85 * len(flags)
