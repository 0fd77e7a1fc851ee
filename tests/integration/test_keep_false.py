"""``[cutouts] keep = false``: a partition's cutouts go once its leaf is there, and nothing else changes."""

import os
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from galbatch import catalog, config, execution, ingest

KEEP_FALSE = ("[flags]", "[cutouts]\nkeep = false\n[flags]")


@pytest.fixture
def run_toml(write_run, tmp_path):
    return write_run(tmp_path, replace=[KEEP_FALSE])


def execute(run_toml, client, **changes):
    parsed = config.read_config(run_toml)
    return parsed, execution.execute(parsed, execution.prepare(parsed), client, **changes)


def cli(*arguments):
    command = [sys.executable, "-m", "galbatch", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=250)


def columns_of(folder):
    """Data columns of every leaf, by the leaf's path."""
    leaves = sorted((folder / "catalog" / "dataset").rglob("Npix=*.parquet"))
    return {
        str(leaf.relative_to(folder)): pq.read_table(leaf, partitioning=None).to_pydict().__repr__()
        for leaf in leaves
    }


def shards(folder):
    return [path for path in (folder / "cutouts.zarr").rglob("*") if "/c/" in str(path) and path.is_file()]


@pytest.fixture(scope="module")
def kept(write_run, client, tmp_path_factory):
    """The same run with its cutouts kept."""
    folder = tmp_path_factory.mktemp("kept")
    _, result = execute(write_run(folder), client)
    assert result.complete
    assert shards(folder)
    return folder


def test_the_catalog_is_the_same_and_the_store_ends_empty(run_toml, kept, client):
    folder = run_toml.parent
    parsed, result = execute(run_toml, client)
    assert result.complete
    assert shards(folder) == []
    assert ingest.list_pixels(parsed.cutouts.store) == set()
    assert columns_of(folder) == columns_of(kept)
    assert len(columns_of(folder)) > 4
    assert catalog.verify(parsed.catalog.path) == []
    assert execution.verify_against(parsed, parsed.catalog.path) == []

    before = {path: path.stat().st_mtime_ns for path in (folder / "catalog" / "dataset").rglob("Npix=*")}
    _, again = execute(run_toml, client)
    assert (again.n_passes, again.n_inferred) == (0, len(execution.prepare(parsed).objects))
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert shards(folder) == []

    status = cli("status", run_toml)
    assert status.returncode == 0, status.stderr
    report = cli("report", folder / "catalog", "-o", folder / "report.html")
    assert report.returncode == 0, report.stderr
    assert (folder / "report.html").stat().st_size > 10_000


def test_stages_apart_keep_them_until_a_run_of_all(run_toml, kept, client):
    folder = run_toml.parent
    parsed, _ = execute(run_toml, client, stage="ingest")
    cut = shards(folder)
    assert sum("/image/c/" in str(path) for path in cut) == len(execution.prepare(parsed).partitions)
    _, result = execute(run_toml, client, stage="infer")
    assert result.complete
    # The photometry that networks' flags take is measured before them, and stands beside the cutouts.
    assert {path for path in shards(folder) if "_photometry/" not in str(path)} == set(cut)
    assert columns_of(folder) == columns_of(kept)
    _, result = execute(run_toml, client)
    assert result.n_passes == 0
    assert ingest.list_pixels(parsed.cutouts.store) == set()


def test_infer_without_cutouts_says_what_to_do(run_toml, client):
    _, result = execute(run_toml, client, stage="infer")
    assert result.failed
    assert all(
        "no cutouts there; run galbatch run --stage ingest first" in why for why in result.failed.values()
    )


def test_killed_between_leaf_and_removal(run_toml, kept, client, monkeypatch):
    folder = run_toml.parent
    parsed = config.read_config(run_toml)
    plan = execution.prepare(parsed)
    left = [part.partition for part in plan.partitions[:3]]
    monkeypatch.setattr(ingest, "remove_partition", lambda store, partition: None)
    assert execution.execute(parsed, plan, client).complete
    monkeypatch.undo()
    # One whole, one whose removal was stopped after its mark, and one of which a single shard is left.
    for partition in left[1:]:
        for mark in (folder / "cutouts.zarr" / partition.path).rglob("_done.json"):
            mark.unlink()
    for path in (folder / "cutouts.zarr" / left[2].path).rglob("zarr.json"):
        path.unlink()
    assert ingest.list_pixels(parsed.cutouts.store) == {part.partition.pixel for part in plan.partitions}
    result = execution.execute(parsed, plan, client)
    assert (result.n_passes, result.complete) == (0, True)
    assert ingest.list_pixels(parsed.cutouts.store) == set()
    assert columns_of(folder) == columns_of(kept)


@pytest.mark.slow
def test_killed_after_some_leaves(run_toml, kept, client, shorten_locks):
    folder = run_toml.parent
    process = subprocess.Popen(
        [sys.executable, "-m", "galbatch", "run", run_toml],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 200
    while process.poll() is None and len(list(folder.glob("catalog/dataset/**/Npix=*.parquet"))) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    shorten_locks(folder)
    _, result = execute(run_toml, client)
    assert result.complete
    assert shards(folder) == []
    assert columns_of(folder) == columns_of(kept)
