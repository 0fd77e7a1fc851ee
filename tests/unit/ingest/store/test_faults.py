"""What a write that is killed, fails or runs out of space leaves: nothing that counts as done."""

import errno
import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import s3fs

from galbatch import ingest, storage
from galbatch.core.pixels import Partition
from galbatch.core.types import BLOCK_OBJECTS, CutoutBlock, Grid
from galbatch.errors import OutputError
from galbatch.storage import publishing

pytestmark = pytest.mark.slow

GRID = Grid(64, 0.168)
PARTITION = Partition(5, 7123, 0, 600)


def blocks_of(seed, *, grid=GRID, n_objects=600):
    """Cutouts whose every pixel is a number of its own, from `seed`."""
    for start in range(0, n_objects, BLOCK_OBJECTS):
        n = min(BLOCK_OBJECTS, n_objects - start)
        shape = (n, 1, grid.size_px, grid.size_px)
        first = seed * 10**6 + np.arange(start, start + n, dtype=np.float32).reshape(-1, 1, 1, 1)
        yield CutoutBlock(
            grid=grid,
            bands=("g",),
            object_id=np.arange(start, start + n),
            ra_deg=np.zeros(n),
            dec_deg=np.zeros(n),
            image=np.broadcast_to(first, shape),
            mask=np.zeros(shape, np.uint16),
            variance=np.ones(shape, np.float32),
            crpix=np.zeros((n, 2)),
            crval=np.zeros((n, 2)),
            cd=np.zeros((n, 2, 2)),
            tile=np.array(["a"] * n),
            coverage=np.ones((n, 1), np.float32),
            sky_sigma_njy=np.ones((n, 1), np.float32),
            psf_fwhm_arcsec=np.ones((n, 1), np.float32),
            noise_correlation=np.ones((n, 1), np.float32),
            flags=np.zeros(n, np.int32),
        )


def write(store, seed, *, blocks=None):
    ingest.create_groups(store, attributes={}, partitions=[PARTITION], grids=[GRID])
    ingest.write_partition(
        store,
        PARTITION,
        GRID,
        blocks_of(seed) if blocks is None else blocks,
        planes=("image", "mask"),
        fingerprint={"seed": seed},
    )


def state_of(store):
    """The seed of the finished group, all of whose pixels are then right; None if it is not finished."""
    done = ingest.read_done(store, PARTITION, GRID)
    if done is None:
        return None
    seed = done["fingerprint"]["seed"]
    assert done["n_objects"] == 600
    found = list(ingest.read_blocks(store, PARTITION, GRID, planes=("image", "mask")))
    for block, expected in zip(found, blocks_of(seed), strict=True):
        np.testing.assert_array_equal(block.image, expected.image)
        np.testing.assert_array_equal(block.object_id, expected.object_id)
    return seed


KILLED = """
import importlib.util, os, shutil, signal, sys

spec = importlib.util.spec_from_file_location("faults", sys.argv[1])
faults = importlib.util.module_from_spec(spec)
spec.loader.exec_module(faults)
WATCHED = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"}


def rewrite(store, die_at):
    seen = 0

    def count(event, arguments):
        nonlocal seen
        if event in WATCHED:
            if seen == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

    sys.addaudithook(count)
    faults.write(store, seed=2)


folder, before = sys.argv[2:]
for die_at in range(0, 1000, 16):
    store = os.path.join(folder, str(die_at))
    child = os.fork()
    if child == 0:
        shutil.copytree(before, store)
        rewrite(store, die_at)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


def test_killed_at_any_step_of_a_rewrite(tmp_path):
    """SIGKILL before every sixteenth operation on files while a finished group is written again."""
    before = tmp_path / "before"
    write(str(before), seed=1)
    (tmp_path / "killed").mkdir()
    command = [sys.executable, "-c", KILLED, __file__, str(tmp_path / "killed"), str(before)]
    subprocess.run(command, check=True, timeout=600)
    stores = sorted((tmp_path / "killed").iterdir(), key=lambda path: int(path.name))
    states = [state_of(str(store)) for store in stores]
    # The old cutouts until their mark goes, then nothing, and the new ones once their mark is there.
    changes = [state for state, _ in itertools.groupby(states)]
    assert changes == [1, None, 2]
    assert states.count(None) > 6
    write(str(stores[len(stores) // 2]), seed=3)
    assert state_of(str(stores[len(stores) // 2])) == 3


def test_killed_at_random_moments(tmp_path):
    store = str(tmp_path / "store")
    program = (
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('faults', sys.argv[1])\n"
        "faults = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(faults)\n"
        "for seed in range(1000): faults.write(sys.argv[2], seed); print(seed, flush=True)\n"
    )
    rng = np.random.default_rng(5)
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", program, __file__, store], stdout=subprocess.PIPE, start_new_session=True
        )
        process.stdout.readline()
        time.sleep(rng.uniform(0.05, 0.5))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        state_of(store)  # nothing, or all of one seed's pixels


class Failing:
    """A function that raises at call number `at`, counted from 0."""

    def __init__(self, function, at, error):
        self.function, self.at, self.error, self.calls = function, at, error, 0

    def __call__(self, *arguments, **keywords):
        self.calls += 1
        if self.calls - 1 == self.at:
            raise self.error
        return self.function(*arguments, **keywords)


@pytest.mark.parametrize("at", [0, 3, 4, 7, 8, 20, 34])
def test_an_error_in_any_write(tmp_path, monkeypatch, at):
    """Calls: the root and 3 groups above, 4 shards of image and mask; the rest small arrays and metadata."""
    store = str(tmp_path / "store")
    write(store, seed=1)
    failing = Failing(publishing.write_file, at, OSError(errno.EIO, "broken"))
    monkeypatch.setattr(publishing, "write_file", failing)
    with pytest.raises(OSError, match="broken"):
        write(store, seed=2)
    # Before the group itself is touched, the old cutouts stay.
    assert state_of(store) == (1 if at < 4 else None)
    monkeypatch.undo()
    write(store, seed=2)
    assert state_of(store) == 2


def test_an_error_in_the_last_step(tmp_path, monkeypatch):
    store = str(tmp_path / "store")
    write(store, seed=1)
    monkeypatch.setattr(publishing, "publish_file", Failing(publishing.publish_file, 0, OSError("broken")))
    with pytest.raises(OSError, match="broken"):
        write(store, seed=2)
    assert state_of(store) is None


@pytest.mark.parametrize("at", [0, 4, 7, 20, 36])
def test_an_error_in_any_put(s3, monkeypatch, at):
    """PUTs on S3, in order: the root and 3 groups, 4 shards, 29 other files (all at once)."""
    store = f"{s3}/store"
    write(store, seed=1)
    failing = Failing(s3fs.S3FileSystem._pipe_file, at, OSError(errno.EIO, "broken"))

    async def put(*arguments, **keywords):
        return await failing(*arguments, **keywords)

    monkeypatch.setattr(s3fs.S3FileSystem, "_pipe_file", put)
    with pytest.raises(OSError, match="broken"):
        write(store, seed=2)
    assert state_of(store) == (1 if at < 4 else None)
    failing.at = -1
    failing.calls = 0
    write(store, seed=2)
    assert state_of(store) == 2
    assert failing.calls == 37


def test_no_space_is_said_and_not_tried_again(tmp_path, monkeypatch):
    store = str(tmp_path / "store")
    # Call 6 is the second shard of the image, in the writer's thread, after four groups.
    monkeypatch.setattr(
        publishing,
        "write_file",
        Failing(publishing.write_file, 6, OSError(errno.ENOSPC, "No space left on device")),
    )
    with pytest.raises(OutputError, match="no space left; free some and run again: done work is kept"):
        write(store, seed=1)
    assert state_of(store) is None
    monkeypatch.undo()
    write(store, seed=2)
    assert state_of(store) == 2


def test_a_shard_that_the_file_system_cuts_off(tmp_path):
    """A real fault in the middle of a shard: the process may not write files above 1 MB."""
    store = str(tmp_path / "store")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, before[1]))
    try:
        with pytest.raises(OutputError, match="the file is larger than its file system or a limit allows"):
            write(store, seed=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert state_of(store) is None
    shards = [p for p in Path(store).rglob("*") if p.is_file() and "image" in p.parts]
    assert shards == []
    write(store, seed=2)
    assert state_of(store) == 2


def test_files_that_another_process_removed_in_between(tmp_path):
    """A task that was taken for dead still writes when its successor clears the group."""
    store = str(tmp_path / "store")

    def disturbed():
        first, second, third = blocks_of(1)
        yield first
        yield second  # with it the first shard is whole
        shard = Path(store) / PARTITION.path / GRID.label / "image/c/0/0/0/0"
        deadline = time.monotonic() + 20
        while not shard.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        shard.unlink()
        yield third

    with pytest.raises(
        OSError, match=r"1 of \d+ files that were written are not there, such as image/c/0/0/0/0"
    ):
        write(store, seed=1, blocks=disturbed())
    assert state_of(store) is None


def write_counted(store, cut):
    def counted():
        for block in blocks_of(1):
            cut.append(len(block))
            yield block

    ingest.create_groups(store, attributes={}, partitions=[PARTITION], grids=[GRID])
    ingest.write_partition(store, PARTITION, GRID, counted(), planes=("image",), fingerprint={})


def test_an_error_stops_the_cutting(tmp_path, monkeypatch):
    store, cut = str(tmp_path / "store"), []
    monkeypatch.setattr(publishing, "write_file", Failing(publishing.write_file, 4, OSError("broken")))
    with pytest.raises(OSError, match="broken"):
        write_counted(store, cut)
    assert cut == [256, 256]  # which fill the first shard
    assert state_of(store) is None


def test_on_s3_a_block_is_written_while_the_next_is_cut(s3, monkeypatch):
    store = f"{s3}/store"
    third_is_cut = threading.Event()
    original = storage.S3FileSystem.write_files

    def slow(system, folder, contents):
        if any(name.startswith("image/c/0/") for name in contents):
            assert third_is_cut.wait(20)
        original(system, folder, contents)

    def watched():
        for number, block in enumerate(blocks_of(1)):
            if number == 2:
                third_is_cut.set()
            yield block

    monkeypatch.setattr(storage.S3FileSystem, "write_files", slow)
    write(store, seed=1, blocks=watched())
    assert state_of(store) == 1


def test_on_s3_an_error_of_the_thread_is_raised(s3, monkeypatch):
    store, cut = f"{s3}/store", []
    original = storage.S3FileSystem.write_files

    def failing(system, folder, contents):
        if any(name.startswith("image/c/0/") for name in contents):
            raise OSError("broken")
        original(system, folder, contents)

    monkeypatch.setattr(storage.S3FileSystem, "write_files", failing)
    with pytest.raises(OSError, match="broken"):
        write_counted(store, cut)
    assert state_of(store) is None
