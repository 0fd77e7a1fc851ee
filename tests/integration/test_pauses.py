"""Disks that fill up, stores that become read-only and object stores that answer 503 pause a run, and fail no partition."""

import errno
import os
import re
import shutil

import pytest
from distributed import Client, WorkerPlugin

from galbatch import cluster, config, execution, models
from galbatch.errors import PausesSpent, UsageError
from galbatch.execution.submission import pausing, queue
from galbatch.storage import publishing
from tests.faults.proxy import Fault, proxy_before


@pytest.fixture(scope="module")
def threads():
    """Workers in this process, so that tests can put faults into what they write."""
    with Client(
        processes=False, n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0"
    ) as client:
        yield client


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(pausing, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(queue, "RETRY_S", 0.01)
    monkeypatch.setattr(queue, "POLL_S", 0.05)


@pytest.fixture
def ready(write_run, tmp_path):
    parsed = config.read_config(write_run(tmp_path, max_objects=12, passes=4))
    return parsed, execution.prepare(parsed)


class Notes:
    """A sink that keeps its lines, and calls `on_note` with each."""

    def __init__(self, on_note=lambda line: None):
        self.lines, self.on_note = [], on_note

    def start(self, stage, total, done):
        pass

    def advance(self, stage, n):
        pass

    def note(self, line):
        self.lines.append(line)
        self.on_note(line)

    def record(self, event):
        pass

    @property
    def kinds(self):
        return ["waiting" if ": waiting" in line else re.match(r"\w+", line)[0] for line in self.lines]


class Disk:
    """Writing through `publishing` fails below `folder` while `number` is set; it is repaired after so many pauses."""

    def __init__(self, monkeypatch, folder, *, number, n_pauses, after=0):
        self.folder, self.number, self.after, self.n_failed = str(folder), number, after, 0
        self.left = n_pauses
        for name in ("publish_file", "write_file"):
            monkeypatch.setattr(publishing, name, self.failing(getattr(publishing, name)))

    def failing(self, function):
        def write(path, *arguments, **options):
            if self.number and str(path).startswith(self.folder) and not re.search("lock|probe", path.name):
                self.after -= 1
                if self.after < 0:
                    self.n_failed += 1
                    raise OSError(self.number, os.strerror(self.number))
            return function(path, *arguments, **options)

        return write

    def repair(self, line):
        self.left -= "waiting" in line
        if self.left <= 0:
            self.number = 0


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EIO])
def test_a_store_that_fails_for_a_while_fails_no_partition(ready, threads, monkeypatch, number):
    parsed, plan = ready
    disk = Disk(monkeypatch, parsed.cutouts.store, number=number, n_pauses=3, after=40)
    sink = Notes(disk.repair)
    result = execution.execute(parsed, plan, threads, sink=sink)
    assert disk.n_failed >= pausing.HANDFUL
    assert (result.complete, result.failed) == (True, {})
    assert result.n_inferred == len(plan.objects)
    # A storm of failures is five lines, however many tasks met it.
    assert sink.kinds == ["paused", "waiting", "waiting", "waiting", "continues"]
    assert all(os.strerror(number) in line for line in sink.lines)
    assert not execution.read_progress(parsed, plan).left


def test_outputs_that_cannot_be_prepared_are_waited_for(ready, threads, monkeypatch):
    parsed, plan = ready
    disk = Disk(monkeypatch, parsed.cutouts.store, number=errno.EROFS, n_pauses=2)
    sink = Notes(disk.repair)
    result = execution.execute(parsed, plan, threads, sink=sink)
    assert (result.complete, result.failed) == (True, {})
    assert sink.kinds == ["waiting", "waiting", "continues"]


def test_a_full_disk_below_the_catalog_stops_leaves_and_the_finish(ready, threads, monkeypatch):
    parsed, plan = ready
    disk = Disk(monkeypatch, f"{parsed.catalog.path}/", number=errno.ENOSPC, n_pauses=2)
    result = execution.execute(parsed, plan, threads, sink=Notes(disk.repair))
    assert (result.complete, result.failed) == (True, {})
    # Only the metadata is written now, by the client: it waits for the disk as well.
    again = Disk(monkeypatch, f"{parsed.catalog.path}/", number=errno.ENOSPC, n_pauses=2)
    sink = Notes(again.repair)
    assert execution.execute(parsed, plan, threads, sink=sink).complete
    assert sink.kinds == ["waiting", "waiting", "continues"]


def test_a_run_ends_when_it_has_paused_as_long_as_it_may(ready, threads, monkeypatch):
    parsed, plan = ready
    cluster = parsed.cluster.model_copy(update={"pause_limit": 0.5})
    parsed = parsed.model_copy(update={"cluster": cluster})
    Disk(monkeypatch, f"{parsed.catalog.path}/dataset", number=errno.EROFS, n_pauses=99)
    sink = Notes()
    result = execution.execute(parsed, plan, threads, sink=sink)
    assert (result.complete, result.finished) == (False, False)
    assert result.failed
    for reason in result.failed.values():
        assert (
            ": Read-only file system, still after 0.5 s of pauses ([cluster] pause_limit); the last task"
            in reason
        )
    assert sink.lines[-1].startswith(
        f"ends after 0.5 s of pauses ([cluster] pause_limit): {len(plan.partitions)} partitions left: "
    )
    monkeypatch.undo()
    assert execution.execute(parsed, plan, threads).complete


@pytest.fixture
def with_own_bundle(write_run, tmp_path, monkeypatch):
    """A plan whose networks are still to be loaded, and the file of one of them."""
    monkeypatch.setattr("galbatch.models.bundle.files._loaded", {})
    bundle = tmp_path / "net.pt"
    shutil.copy(models.bundle_path("demo:gampen"), bundle)
    replace = [('bundle = "demo:gampen"', f'bundle = "{bundle}"')]
    parsed = config.read_config(write_run(tmp_path, max_objects=12, passes=4, replace=replace))
    return parsed, execution.prepare(parsed, loads=False), bundle


def test_a_bundle_that_is_gone_while_it_is_to_be_loaded_is_waited_for(with_own_bundle, threads, tmp_path):
    """Cutting goes on meanwhile; on a busy machine it is tried again, and said again, before the file is back."""
    parsed, plan, bundle = with_own_bundle
    away = bundle.rename(tmp_path / "away.pt")

    def put_back(line):
        if "A bundle is not there: waiting" in line and away.exists():
            away.replace(bundle)

    sink = Notes(put_back)
    result = execution.execute(parsed, plan, threads, sink=sink)
    assert (result.complete, result.failed) == (True, {})
    *waiting, last = sink.kinds
    assert (set(waiting), last) == ({"waiting"}, "continues")


def test_a_bundle_that_stays_away_ends_the_run_when_it_may_pause_no_more(with_own_bundle, threads, tmp_path):
    parsed, plan, bundle = with_own_bundle
    cluster_config = parsed.cluster.model_copy(update={"pause_limit": 0.2})
    parsed = parsed.model_copy(update={"cluster": cluster_config})
    bundle.rename(tmp_path / "away.pt")
    with pytest.raises(PausesSpent, match=r"gampen: .*still after 0.2 s of pauses \(\[cluster\] pause_limit"):
        execution.execute(parsed, plan, threads, sink=Notes())
    assert not isinstance(PausesSpent(), UsageError)  # exit code 1
    shutil.move(tmp_path / "away.pt", bundle)
    assert execution.execute(parsed, plan, threads).complete


def test_one_bad_tile_fails_its_partitions_and_pauses_nothing(ready, threads, monkeypatch):
    parsed, plan = ready
    bad = plan.tiles[0].image.path
    from galbatch.ingest.pixels import reader

    opened = reader.opened_fits

    def at_a_bad_block(path, *arguments, **options):
        if path == bad:
            raise OSError(errno.EIO, "Input/output error")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(reader, "opened_fits", at_a_bad_block)
    sink = Notes()
    result = execution.execute(parsed, plan, threads, sink=sink)
    touched = {part.partition.name for part in plan.partitions if 0 in part.tiles}
    assert set(result.failed) <= touched
    assert len(result.failed) > pausing.HANDFUL
    done = [part for part in plan.partitions if part.partition.name not in result.failed]
    assert result.n_inferred == sum(part.partition.n_objects for part in done) > 0
    assert bad in next(iter(result.failed.values()))
    assert sink.lines == []


# Those that write are asked to slow down; locks are not, or the run would lose them.
IS_DOWN = Fault("slow down", lambda method, path: method == "PUT" and "lock" not in path)


@pytest.fixture
def proxy(s3_endpoint):
    with proxy_before(s3_endpoint) as running:
        yield running


def test_an_object_store_that_answers_503_for_a_while_fails_no_partition(
    s3, proxy, survey, write_run, threads, monkeypatch, tmp_path
):
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    # Each request once: botocore's own waits are real seconds.
    monkeypatch.setattr("galbatch.storage.s3.ATTEMPTS", 1)
    monkeypatch.setattr("galbatch.storage.s3.S3FS_ATTEMPTS", 1)
    outputs = f'[cutouts]\nstore = "{s3}/cutouts.zarr"\n[catalog]\npath = "{s3}/catalog"\n[cluster]'
    run_toml = write_run(tmp_path, max_objects=40, passes=4, replace=[("[cluster]", outputs)])
    parsed = config.read_config(run_toml)
    plan = execution.prepare(parsed)
    waits = []

    def answer_again(line):
        if "waiting" in line:
            waits.append(line)
            proxy.fault = IS_DOWN if len(waits) < 2 else None

    sink, work = Notes(answer_again), queue.SubmissionQueue.work

    def go_down(self, *arguments, **options):
        proxy.fault = IS_DOWN
        return work(self, *arguments, **options)

    monkeypatch.setattr(queue.SubmissionQueue, "work", go_down)
    result = execution.execute(parsed, plan, threads, sink=sink)
    assert proxy.n_hit >= pausing.HANDFUL
    assert (result.complete, result.failed) == (True, {})
    assert sink.kinds == ["paused", "waiting", "waiting", "continues"]


class OwnDiskIsFull(WorkerPlugin):
    """Of all workers one finds no space for what it writes, also when its nanny has started it again."""

    name = "own-disk-is-full"

    def __init__(self, folder):
        self.claim = f"{folder}/claim"

    def setup(self, worker):
        try:
            with open(self.claim, "x", encoding="utf-8") as file:
                file.write(worker.nanny)
        except FileExistsError:
            with open(self.claim, encoding="utf-8") as file:
                if file.read() != worker.nanny:
                    return

        def full(path, *arguments, **options):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        publishing.publish_file = publishing.write_file = full


def test_a_worker_whose_own_disk_is_full_pauses_nothing_as_others_continue(ready, tmp_path):
    parsed, plan = ready
    sink = Notes()
    with cluster.connect(parsed.cluster) as client:
        client.register_plugin(OwnDiskIsFull(tmp_path))
        result = execution.execute(parsed, plan, client, sink=sink)
    assert (tmp_path / "claim").exists()
    assert (result.complete, result.failed) == (True, {})
    assert result.n_inferred == len(plan.objects)
    assert not [line for line in sink.lines if "paused" in line or "waiting" in line]
