"""Inputs that are replaced while a run goes: tiles on a disk and on S3, and bundles."""

import os
import shutil

import fsspec
import pytest
from distributed import Client

from galbatch import config, execution, models, storage
from galbatch.errors import BundleError, FingerprintError, MissingBundleError, TileError
from galbatch.execution import tasks


def ingest(parsed, plan, part):
    task = execution.ingest_task(plan, part, cutouts=parsed.cutouts, flags=parsed.flags)
    return tasks.ingest_partition(task)


def replaced_tile(plan):
    """The image of the first tile, whose band every partition near it needs."""
    return plan.tiles[0].image.path


@pytest.fixture
def copied(survey, write_run, tmp_path):
    """A run of a copy of the survey, planned."""
    shutil.copytree(survey, tmp_path / "survey")
    run_toml = write_run(tmp_path, max_objects=12, passes=4, survey=tmp_path / "survey")
    parsed = config.read_config(run_toml)
    return run_toml, parsed, execution.prepare(parsed)


def test_a_tile_that_is_replaced_fails_its_partitions_with_both_identities(copied):
    run_toml, parsed, plan = copied
    path = replaced_tile(plan)
    before = os.stat(path)
    with Client(
        processes=False, n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0"
    ) as client:
        # The same pixels, written once more: who replaces a file changes its time.
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        result = execution.execute(parsed, plan, client)
        touched = {part.partition.name for part in plan.partitions if 0 in part.tiles}
        assert set(result.failed) <= touched
        assert result.failed
        done = [part for part in plan.partitions if part.partition.name not in result.failed]
        assert result.n_inferred == sum(part.partition.n_objects for part in done) > 0
        size, at = before.st_size, before.st_mtime_ns
        for reason in result.failed.values():
            assert (
                f"{path} was replaced: it is {size} bytes, version {at + 1} now, and was {size} bytes, version {at}"
                in reason
            )
        # A new plan knows the new file; cutouts near it that do not use it are of another fingerprint now.
        parsed = config.read_config(run_toml)
        again = execution.prepare(parsed)
        if any(part.partition.name in touched for part in done):
            with pytest.raises(FingerprintError, match="tiles"):
                execution.execute(parsed, again, client)
        else:
            assert execution.execute(parsed, again, client).complete


def test_a_tile_on_s3_that_is_replaced_is_refused_with_both_etags(s3, survey, write_run, tmp_path):
    files = fsspec.filesystem("s3")
    files.put(str(survey), f"{s3}/survey", recursive=True)
    store = f'[cutouts]\nstore = "{s3}/cutouts.zarr"\n[cluster]'
    run_toml = write_run(tmp_path, max_objects=12, survey=f"{s3}/survey", replace=[("[cluster]", store)])
    parsed = config.read_config(run_toml)
    plan = execution.prepare(parsed)
    path, before = replaced_tile(plan), dict(plan.tiles[0].files)[replaced_tile(plan)]
    part = next(part for part in plan.partitions if 0 in part.tiles)
    ingest(parsed, plan, part)
    # A block of zeros behind the last HDU: a whole FITS file of other bytes.
    files.pipe_file(path, files.cat_file(path) + bytes(2880))
    now = files.info(path)["ETag"].strip('"')
    with pytest.raises(TileError, match="was replaced") as refused:
        ingest(parsed, plan, part)
    assert f"{before.size_bytes + 2880} bytes, version {now} now" in str(refused.value)
    assert f"was {before.size_bytes} bytes, version {before.version} when" in str(refused.value)


def test_identities_come_from_the_tile_index_as_well(copied):
    _, parsed, plan = copied
    again = execution.prepare(parsed)
    assert [tile.files for tile in again.tiles] == [tile.files for tile in plan.tiles]
    assert all(tile.files for tile in again.tiles)


def test_a_bundle_that_is_replaced_or_gone_is_refused(survey, write_run, tmp_path, monkeypatch):
    bundle = tmp_path / "net.pt"
    shutil.copy(models.bundle_path("demo:gampen"), bundle)
    named = [('bundle = "demo:gampen"', f'bundle = "{bundle}"')]
    parsed = config.read_config(write_run(tmp_path, max_objects=60, replace=named))
    plan = execution.prepare(parsed)
    task = execution.infer_task(
        plan,
        plan.partitions[0],
        store=parsed.cutouts.store,
        catalog_path=parsed.catalog.path,
        posterior=parsed.posterior,
    )
    # Workers that have the bundle in memory go on with it; one that starts now reads the file.
    monkeypatch.setattr("galbatch.models.bundle.files._loaded", {})
    (sha256,) = plan.models[0].sha256
    shutil.copy(models.bundle_path("demo:sfnet"), bundle)
    (found,) = plan.models[1].sha256
    with pytest.raises(BundleError, match="the file has changed") as refused:
        tasks.infer_partition(task)
    assert f"{bundle}: sha256 is {found[:12]}.., expected {sha256[:12]}.." in str(refused.value)
    bundle.unlink()
    with pytest.raises(MissingBundleError, match="there is no such bundle"):
        tasks.infer_partition(task)


def write_over_at_the_first_read(monkeypatch, write_over):
    """Call `write_over` once, after the first window of the tile was read: the file is open then, and windows are left."""
    from galbatch.ingest.pixels import TileReader

    read_into, left = TileReader.read_into, [write_over]

    def reading(self, tile, box, *, out):
        covered = read_into(self, tile, box, out=out)
        if left:
            left.pop()(tile.image.path)
        return covered

    monkeypatch.setattr(TileReader, "read_into", reading)


def test_a_tile_that_is_written_over_while_it_is_open_is_refused(copied, monkeypatch):
    """Its cutouts may have old pixels and new ones: the group stays undone."""
    _, parsed, plan = copied
    part = plan.partitions[0]

    def write_over(path):
        with open(path, "r+b") as file:
            file.seek(-5000, os.SEEK_END)
            file.write(bytes(5000))
        changed.append(path)

    changed = []
    write_over_at_the_first_read(monkeypatch, write_over)
    with pytest.raises(TileError, match="was replaced: it is") as refused:
        ingest(parsed, plan, part)
    assert changed[0] in str(refused.value)
    assert not storage.list_files(parsed.cutouts.store, suffix="_done.json")


def test_a_tile_on_s3_that_is_replaced_while_it_is_open_is_refused(
    s3, survey, write_run, tmp_path, monkeypatch
):
    files = fsspec.filesystem("s3")
    files.put(str(survey), f"{s3}/survey", recursive=True)
    store = f'[cutouts]\nstore = "{s3}/cutouts.zarr"\n[cluster]'
    run_toml = write_run(tmp_path, max_objects=12, survey=f"{s3}/survey", replace=[("[cluster]", store)])
    parsed = config.read_config(run_toml)
    plan = execution.prepare(parsed)
    data = {tile.image.path: files.cat_file(tile.image.path) for tile in plan.tiles}
    write_over_at_the_first_read(
        monkeypatch, lambda path: files.pipe_file(path, data[path][:-2880] + bytes(2880))
    )
    with pytest.raises(TileError, match="was replaced: it is"):
        ingest(parsed, plan, plan.partitions[0])
    assert not storage.list_files(parsed.cutouts.store, suffix="_done.json")
