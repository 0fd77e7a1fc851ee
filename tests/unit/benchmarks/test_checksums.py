"""The benchmark of checksums, at toy size: each contender does what its name says, and all write the same pixels."""

import json
from pathlib import Path

import numpy as np
import pytest

from galbatch import ingest
from galbatch.core.pixels import Partition
from galbatch.core.types import Grid
from galbatch.storage import publishing, zarr_groups

pytestmark = pytest.mark.slow


@pytest.fixture
def checksums(load_benchmark):
    return load_benchmark("checksums")


def test_contenders_do_what_they_say_and_write_the_same(checksums, monkeypatch, tmp_path):
    import ingest_contenders
    import ingest_data

    monkeypatch.setattr(ingest_contenders, "GRID", Grid(24, 0.168))
    # One patch of 4200 px would be 53 MB.
    monkeypatch.setattr(ingest_data, "PATCH_PX", 300)
    monkeypatch.setattr(ingest_data, "STEP_PX", 280)
    synced = []
    monkeypatch.setattr(publishing, "_sync", synced.append)
    data = ingest_contenders.make_data(tmp_path / "tiles", 20)
    unlike = {
        "both": (checksums.contextlib.nullcontext, True, True),
        "checksums": (checksums.without_syncing, True, False),
        "neither": (checksums.without_checksums_and_syncing, False, False),
    }
    for name, (context, has_checksums, syncs) in unlike.items():
        store = tmp_path / f"{name}.zarr"
        synced.clear()
        with context():
            checksums.write(data, store, ("image", "mask", "variance"))
        assert bool(synced) == syncs
        group = Path(zarr_groups.group_path(str(store), Partition(0, 0, 0, 20), "24px_0.168arcsec"))
        files = json.loads((group / "object_id" / "_done.json").read_text())["files"]
        assert all((size > 0) == has_checksums for size, _ in files.values())
    blocks = [
        next(ingest.read_blocks(str(tmp_path / f"{name}.zarr"), Partition(0, 0, 0, 20), Grid(24, 0.168)))
        for name in ("both", "checksums")
    ]
    np.testing.assert_array_equal(*(block.image for block in blocks))
    shares = checksums.measure(data, tmp_path / "store.zarr", "toys", planes=("image",), rounds=1)
    assert sorted(shares) == [
        "checksums",
        "checksums, processor time",
        "syncing",
        "syncing, processor time",
    ]
    [kept] = (tmp_path / "results").iterdir()
    names = [row["name"] for row in json.loads(kept.read_text())["measured"]]
    assert names == ["neither", "checksums", "checksums and syncing"]
