"""The benchmark of checksums, at toy size: each contender does what its name says, and all write the same pixels."""

import contextlib
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
    for name, context in {"synced": contextlib.nullcontext, "unsynced": checksums.unsynced}.items():
        synced.clear()
        with context(), checksums.timed_checksums() as spent_s:
            checksums.write(data, tmp_path / f"{name}.zarr", ("image", "mask", "variance"))
        assert bool(synced) == (name == "synced")
        group = Path(
            zarr_groups.group_path(str(tmp_path / f"{name}.zarr"), Partition(0, 0, 0, 20), "24px_0.168arcsec")
        )
        files = json.loads((group / "object_id" / "_done.json").read_text())["files"]
        # Each file has one checksum, and one more is of the text of _done.json.
        assert len(spent_s) >= len(files) > 10
        assert all(size > 0 for size, _ in files.values())
    blocks = [
        next(ingest.read_blocks(str(tmp_path / f"{name}.zarr"), Partition(0, 0, 0, 20), Grid(24, 0.168)))
        for name in ("synced", "unsynced")
    ]
    np.testing.assert_array_equal(*(block.image for block in blocks))
    shares = checksums.measure(data, tmp_path / "store.zarr", "toys", planes=("image",), rounds=1)
    assert sorted(shares) == ["checksums", "syncing"]
    assert 0 < shares["checksums"] < 1
    kept = {one.name: json.loads(one.read_text())["measured"] for one in (tmp_path / "results").iterdir()}
    assert {name: [row["name"] for row in rows] for name, rows in kept.items()} == {
        "processor_time_of_checksums_of_toys_at_239_px.json": ["cutting and writing", "checksums"],
        "syncing_of_toys_at_239_px.json": ["without syncing", "with syncing"],
    }
