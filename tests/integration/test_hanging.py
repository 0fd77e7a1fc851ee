"""Tasks that hang: a worker that is stopped, a mount that never answers, a bundle that loops; with shortened limits."""

import os
import signal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from distributed import WorkerPlugin
from torch import Tensor, nn

from galbatch import cluster, config, execution
from galbatch.execution.submission import queue, timing
from galbatch.models import (
    AuxiliaryInput,
    BundleMetadata,
    HeadInfo,
    InputInfo,
    ParameterInfo,
    save_bundle,
    script_of,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RUN_TOML = """
[survey]
layout = "hsc"
tiles = "{survey}/deepCoadd-results/**/calexp-*.fits"
bands = ["g"]
[objects]
path = "{objects}"
[plan]
max_objects_per_partition = 8
[[models]]
name = "toy"
bundle = "{bundle}"
[posterior]
passes = 4
[cluster]
workers = 2
retries = 1
dashboard_address = "127.0.0.1:0"
"""

LOOPS_FROM = 1e8


class Loops(nn.Module):
    """Says the central pixel, and never ends where the auxiliary input is large."""

    @torch.jit.export
    def prefix(self, images: Tensor, auxiliary: Tensor) -> Tensor:
        n = 0
        while bool((auxiliary > 1e8).any()):
            n += 1
        return torch.cat([images[:, :, 8, 8], auxiliary], dim=1)

    @torch.jit.export
    def sample(self, features: Tensor, keys: Tensor) -> Tensor:
        return torch.stack([features[:, 0], torch.full_like(features[:, 0], -2.0)], dim=1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "loops.pt"
    metadata = BundleMetadata(
        name="loops",
        version="0",
        architecture="toy",
        input=InputInfo(("g",), 16, 0.168, "nJy", 31.4, auxiliary_inputs=(AuxiliaryInput("marker"),)),
        head=HeadInfo("gaussian"),
        parameters=(ParameterInfo("center_njy", "nJy", "the central pixel", "identity"),),
        dropout_rate=0.0,
    )
    save_bundle(str(path), script_of(Loops()), metadata)
    return path


@pytest.fixture
def planned(survey, bundle, tmp_path, monkeypatch):
    """Return a function that plans a run of 40 objects, of which the one with this number loops."""
    # Long enough for a first import of torch on a busy machine, which may take half a minute.
    monkeypatch.setattr(timing, "MIN_LIMIT_S", 60.0)
    monkeypatch.setattr(timing, "CUT_S_PER_OBJECT", 1.0)
    monkeypatch.setattr(timing, "INFER_S_PER_PASS", 0.25)  # of 4 passes: a second per object as well
    monkeypatch.setattr(queue, "OVERDUE_LOOK_S", 0.5)

    def plan(*, looping=None):
        objects = pq.read_table(survey / "objects.parquet").slice(0, 40)
        marker = [2 * LOOPS_FROM if number == looping else 0.0 for number in range(len(objects))]
        pq.write_table(objects.append_column("marker", pa.array(marker)), tmp_path / "objects.parquet")
        text = RUN_TOML.format(survey=survey, objects=tmp_path / "objects.parquet", bundle=bundle)
        (tmp_path / "run.toml").write_text(text)
        parsed = config.read_config(tmp_path / "run.toml")
        return parsed, execution.prepare(parsed)

    return plan


class Notes:
    """A sink that keeps its lines, and calls `when` after each step."""

    def __init__(self, when=lambda: None):
        self.lines, self.when = [], when

    def start(self, stage, total, done):
        pass

    def advance(self, stage, n):
        self.when()

    def note(self, line):
        self.lines.append(line)

    def record(self, event):
        pass


def test_a_bundle_that_loops_fails_its_partition_and_no_other(planned):
    parsed, plan = planned(looping=17)
    sink = Notes()
    with cluster.connect(parsed.cluster) as client:
        result = execution.execute(parsed, plan, client, sink=sink)
    assert len(result.failed) == 1, result.failed
    (name,) = result.failed
    assert result.failed[name].startswith("infer: hung on worker tcp://127.0.0.1:")
    assert "([cluster] task_timeout = 20)" in result.failed[name]
    (part,) = [part for part in plan.partitions if part.partition.name == name]
    looping = plan.objects.take(part.partition.start, part.partition.stop).table.inputs["marker"]
    assert looping.max() > LOOPS_FROM
    assert result.n_inferred == 40 - part.partition.n_objects
    # Once more than `retries`, each time on a worker that is started again.
    assert sum("hung on" in line for line in sink.lines) == 2
    assert sum("was started again: OK" in line for line in sink.lines) == 2


class MountHangs(WorkerPlugin):
    """The first file that is opened, of all workers, never answers."""

    name = "mount-hangs"

    def __init__(self, folder):
        self.folder = str(folder)

    def setup(self, worker):
        from galbatch.ingest.pixels import reader

        opened, folder = reader.opened_fits, self.folder

        def hanging(path, *arguments, **options):
            try:
                os.mkfifo(f"{folder}/never")
            except FileExistsError:
                return opened(path, *arguments, **options)
            with open(f"{folder}/never", "rb") as never:  # until somebody opens it for writing
                return never.read()

        reader.opened_fits = hanging


def test_a_mount_that_never_answers_is_left_and_the_partition_done_elsewhere(planned, tmp_path):
    parsed, plan = planned()
    sink = Notes()
    with cluster.connect(parsed.cluster) as client:
        client.register_plugin(MountHangs(tmp_path))
        result = execution.execute(parsed, plan, client, sink=sink)
    assert (result.complete, result.failed) == (True, {})
    assert (tmp_path / "never").exists()
    assert sum(": ingest: hung on worker" in line for line in sink.lines) == 1


def test_a_stopped_worker_is_started_again_and_its_partition_done_elsewhere(planned):
    parsed, plan = planned()
    with cluster.connect(parsed.cluster) as client:
        stopped = []

        def stop():
            if not stopped:
                worker, pid = max(client.run(os.getpid).items())
                stopped.append(worker)
                os.kill(pid, signal.SIGSTOP)

        sink = Notes(stop)
        result = execution.execute(parsed, plan, client, sink=sink)
        client.wait_for_workers(2, timeout=300)
        after = set(cluster.Pool.of(client).threads)
    assert (result.complete, result.failed) == (True, {})
    assert stopped[0] not in after
    assert any(f"worker {stopped[0]} was started again: OK" in line for line in sink.lines)


def test_a_worker_that_is_stopped_with_a_result_is_started_again(planned, monkeypatch):
    """Its connection stays, and Dask would wait five minutes for the result of the finished task."""
    monkeypatch.setattr(queue, "RESULT_S", 2.0)
    parsed, plan = planned()
    stopped = []
    with cluster.connect(parsed.cluster) as client:
        pids, gather = client.run(os.getpid), client.gather

        async def fetch(futures, options):
            results = await gather(futures, **options)
            if stopped or not futures[0].key.startswith("infer"):
                return results
            stopped.append(results[0].worker)
            os.kill(pids[stopped[0]], signal.SIGSTOP)
            return await gather(futures, **options)

        monkeypatch.setattr(client, "gather", lambda futures, **options: fetch(futures, options))
        sink = Notes()
        result = execution.execute(parsed, plan, client, sink=sink)
    assert (result.failed, result.complete) == ({}, True)
    assert f"worker {stopped[0]} does not answer" in sink.lines
    assert result.n_new == len(plan.objects)
