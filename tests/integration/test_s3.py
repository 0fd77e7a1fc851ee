"""The whole run with tiles, object list, store and catalog on S3."""

import subprocess
import sys

import fsspec
import pandas as pd

from galbatch import catalog, config, execution


def cli(*arguments):
    """As a user: a process of its own, whose S3 connections end with it."""
    command = [sys.executable, "-m", "galbatch.cli", *map(str, arguments)]
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
    pd.testing.assert_frame_equal(ours.to_pandas(), theirs.to_pandas(), check_exact=True)
    assert [path.name for path in (tmp_path / "remote").iterdir()] == ["run.toml"]
