"""The whole run with tiles, object list, store and catalog on S3."""

import shutil
import subprocess
import sys

import fsspec
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from galbatch import catalog, config, execution, ingest
from galbatch.core.flags import PixelFlag
from galbatch.execution import tasks


def cli(*arguments):
    """As a user: a process of its own, whose S3 connections end with it."""
    command = [sys.executable, "-m", "galbatch", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_on_s3_gives_what_a_local_one_gives(s3, survey, write_run, client, tmp_path):
    local = config.read_config(write_run(tmp_path / "local", max_objects=60, passes=4))
    execution.execute(local, execution.prepare(local), client)

    fsspec.filesystem("s3").put(str(survey), f"{s3}/survey", recursive=True)
    run_toml = write_run(
        tmp_path / "remote",
        max_objects=60,
        passes=4,
        survey=f"{s3}/survey",
        objects=f"{s3}/survey/objects.parquet",
        replace=[
            (
                "[cluster]",
                f'[cutouts]\nstore = "{s3}/cutouts.zarr"\n[catalog]\npath = "{s3}/catalog"\n[cluster]',
            )
        ],
    )
    cli("run", run_toml, "--workers", 1)
    assert "good" in cli("verify", f"{s3}/catalog", "--against", run_toml)
    ours, theirs = (catalog.read_catalog(path) for path in (f"{s3}/catalog", local.catalog.path))
    # Files have other versions there, which identities are made of.
    named = [name for name in theirs.column_names if name.endswith("_identity")]
    assert named
    pd.testing.assert_frame_equal(
        ours.to_pandas().drop(columns=named), theirs.to_pandas().drop(columns=named), check_exact=True
    )
    assert [path.name for path in (tmp_path / "remote").iterdir()] == ["run.toml"]


def ingested(run_toml):
    """The blocks of the store that the run's first stage writes, in this process."""
    parsed = config.read_config(run_toml)
    plan = execution.prepare(parsed)
    planes = parsed.cutouts.planes
    for part in plan.partitions:
        tasks.ingest_partition(execution.ingest_task(plan, part, cutouts=parsed.cutouts, flags=parsed.flags))
        for use in plan.grids:
            yield from ingest.read_blocks(parsed.cutouts.store, part.partition.pixel, use.grid, planes=planes)


@pytest.fixture(scope="module")
def coarse_survey(survey, tmp_path_factory):
    """The simulated survey with pixels that are 1.4 times as wide, so that every cutout is resampled."""
    folder = tmp_path_factory.mktemp("coarse") / "survey"
    shutil.copytree(survey, folder)
    for path in folder.glob("deepCoadd-results/**/calexp-*.fits"):
        with fits.open(path, mode="update") as hdus:
            for header in (hdu.header for hdu in hdus if "CD1_1" in hdu.header):
                for key in ("CD1_1", "CD1_2", "CD2_1", "CD2_2"):
                    header[key] = header.get(key, 0.0) * 1.4
    objects = pq.read_table(folder / "objects.parquet")
    pq.write_table(objects.slice(0, 6), folder / "objects.parquet")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("method", ["adaptive", "exact"])
def test_resampled_on_s3_as_on_a_disk(s3, coarse_survey, write_run, tmp_path, method):
    fsspec.filesystem("s3").put(str(coarse_survey), f"{s3}/survey", recursive=True)
    stores = {}
    for name, root in {"local": tmp_path, "remote": s3}.items():
        cutouts = f'[cutouts]\nstore = "{root}/cutouts.zarr"\nresampling = "{method}"\nplanes = ["image", "mask", "variance"]\n[cluster]'
        tiles = f"{s3}/survey" if name == "remote" else coarse_survey
        run_toml = write_run(
            tmp_path / name,
            max_objects=20,
            survey=tiles,
            objects=f"{tiles}/objects.parquet",
            replace=[("[cluster]", cutouts)],
        )
        stores[name] = list(ingested(run_toml))
    assert len(stores["local"]) == len(stores["remote"]) > 0
    n_resampled = 0
    for ours, theirs in zip(stores["remote"], stores["local"], strict=True):
        assert ours.resampling == method
        for field in ("object_id", "image", "mask", "variance", "flags", "crpix", "crval", "cd", "coverage"):
            np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field), err_msg=field)
        n_resampled += np.count_nonzero(ours.flags & PixelFlag.RESAMPLED)
    assert n_resampled >= 6
