"""`galbatch tiles from-butler` against a Butler that plays the part of lsst.daf.butler."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from galbatch import ingest
from galbatch.cli.app import app
from galbatch.errors import UsageError
from galbatch.objects import read_table
from tests.unit.fake_butler import Butler, OldButler, Ref, ref


def table(**changes):
    asked = {
        "collections": ["LSSTComCam/DP1"],
        "dataset_type": "deep_coadd",
        "bands": ["g", "i"],
        "where": "",
    }
    return ingest.tiles_from_butler("dp1", **asked | changes)


def test_the_table_names_file_band_tract_and_patch(daf_butler):
    daf_butler(ref("file:///repo/b.fits"), ref("s3://embargo@bucket/dp1/a.fits", "g"))
    assert table(where="tract = 10463").to_pylist() == [
        {"path": "s3://bucket/dp1/a.fits", "band": "g", "tile_id": "10463/62"},
        {"path": "/repo/b.fits", "band": "i", "tile_id": "10463/62"},
    ]
    assert Butler.asked == (
        ("dp1", ["LSSTComCam/DP1"]),
        "deep_coadd",
        ["LSSTComCam/DP1"],
        "(tract = 10463) AND band IN ('g', 'i')",
    )


def test_an_old_butler_is_asked_in_its_own_way(daf_butler):
    daf_butler(ref("file:///repo/b.fits")).Butler = OldButler
    assert table().to_pylist() == [{"path": "/repo/b.fits", "band": "i", "tile_id": "10463/62"}]


@pytest.mark.parametrize(
    ("refs", "changes", "message"),
    [
        (
            [],
            {"where": "tract = 1"},
            r"nothing found where \(tract = 1\) AND band IN \('g', 'i'\); butler query-datasets",
        ),
        ([], {"dataset_type": "deep_coad"}, r"the Butler says: dataset type deep_coad does not exist"),
        ([ref("https://host/x.fits")], {}, r"https://host/x.fits is neither a file nor on S3; fetch"),
        ([ref("file:///x.zip#unzip=y")], {}, r"x.zip#unzip=y is neither a file nor on S3"),
        ([ref("several")], {}, r"band i tract 10463 patch 62 is not one file: includes distinct"),
        (
            [Ref({"visit": 1}, "file:///x")],
            {},
            r"its datasets have no 'band'; datasets with band, tract, patch are needed",
        ),
    ],
)
def test_what_cannot_be_used_is_told(daf_butler, refs, changes, message):
    daf_butler(*refs)
    with pytest.raises(UsageError, match=message):
        table(**changes)


def test_no_such_repository(daf_butler):
    daf_butler()
    with pytest.raises(UsageError, match=r"nowhere: deep_coadd in a: the Butler says: no butler.yaml"):
        ingest.tiles_from_butler("nowhere", collections=["a"], dataset_type="deep_coadd", bands=["g"])


def test_the_command_writes_a_table_that_reads_as_tiles(daf_butler, tmp_path, write_calexp, tan, read_tiles):
    path = write_calexp(tmp_path, image=np.zeros((20, 20)), wcs=tan(crpix=(500.5, 600.5)))
    daf_butler(ref(f"file://{path}", "g", 9813, "4,4"))
    output = tmp_path / "tiles.csv"
    arguments = [
        "repo",
        str(output),
        "--collections",
        "HSC/runs/PDR2",
        "--bands",
        "g,r",
        "--dataset-type",
        "deepCoadd",
    ]
    done = CliRunner().invoke(app, ["tiles", "from-butler", *arguments])
    assert (done.exit_code, done.output) == (0, f"1 tile: {output}\n")
    assert read_table(str(output)).column_names == ["path", "band", "tile_id"]
    (tile,) = read_tiles(output, layout="lsst", zero_point_mag=27.0)
    assert (tile.tile_id, tile.band) == ("9813/4,4", "g")


def test_outside_an_lsst_environment_it_says_what_is_missing(tmp_path):
    command = [
        sys.executable,
        "-m",
        "galbatch.cli.app",
        "tiles",
        "from-butler",
        "repo",
        str(tmp_path / "tiles.csv"),
    ]
    done = subprocess.run(
        [*command, "--collections", "a", "--bands", "g"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "lsst.daf.butler cannot be imported" in done.stderr
    assert "setup lsst_distrib" in done.stderr
    assert not (tmp_path / "tiles.csv").exists()
