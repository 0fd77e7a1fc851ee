"""Faults of workers: which task goes where, who gets none, and what ends a run that nobody can go on with."""

import dataclasses
import itertools
import threading
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from distributed import Client, LocalCluster, WorkerPlugin, get_worker

from galbatch import catalog, cluster, config, execution, models
from galbatch.cluster import kept_by_malloc
from galbatch.errors import BundleError
from galbatch.execution import tasks
from galbatch.execution.submission import boundary


@contextmanager
def workers_here(**changes):
    """Workers in this process, and their client; one with three threads and a GPU that is made up, unless told otherwise."""
    options = {"n_workers": 1, "threads_per_worker": 3, "resources": {"GPU": 1}, "processes": False} | changes
    with (
        kept_by_malloc(),  # as a process that starts workers keeps the environment of the first for all others
        LocalCluster(host="127.0.0.1", protocol="tcp", dashboard_address="127.0.0.1:0", **options) as running,
        Client(running) as client,
    ):
        yield running, client


@pytest.fixture(scope="module")
def one_gpu():
    with workers_here() as here:
        yield here


POSTERIOR = '"adaptive"\nmin_passes = 8\nmax_passes = 16\nbatch = 64'


@pytest.fixture(scope="module")
def listed(survey, tmp_path_factory):
    """The first objects of the survey: enough for a few partitions."""
    path = tmp_path_factory.mktemp("listed") / "objects.parquet"
    pq.write_table(pq.read_table(survey / "objects.parquet").slice(0, 40), path)
    return path


@pytest.fixture(scope="module")
def plain(write_run, listed, tmp_path_factory):
    """The run without any fault."""
    folder = tmp_path_factory.mktemp("plain")
    parsed = config.read_config(write_run(folder, max_objects=12, passes=POSTERIOR, objects=listed))
    with workers_here(threads_per_worker=1) as (_, client):
        assert execution.execute(parsed, execution.prepare(parsed), client).complete
    return parsed


@pytest.fixture
def local(write_run, listed, tmp_path):
    """The same run elsewhere, to be done, and its plan."""
    parsed = config.read_config(write_run(tmp_path, max_objects=12, passes=POSTERIOR, objects=listed))
    return parsed, execution.prepare(parsed)


def joining(parsed, running, **changes):
    """The run on the GPUs of a scheduler."""
    changes = {
        "kind": "scheduler",
        "scheduler": running.scheduler_address,
        "device": "cuda",
        "wait_s": 1.0,
    } | changes
    return parsed.model_copy(update={"cluster": parsed.cluster.model_copy(update=changes)})


@pytest.fixture
def ready(local, one_gpu):
    parsed, plan = local
    return joining(parsed, one_gpu[0]), plan


def require_equal(parsed, plain, *, to_rounding=False):
    """The same rows, passes, flags, and values: the same bits, or equal as far as float32 goes."""
    frames = [
        catalog.read_catalog(one.catalog.path).to_pandas().sort_values("object_id") for one in (parsed, plain)
    ]
    assert list(frames[0].columns) == list(frames[1].columns)
    assert "gampen_passes" in frames[0].columns
    for name in frames[0].columns:
        found, expected = (frame[name].reset_index(drop=True) for frame in frames)
        if to_rounding and found.dtype.kind == "f":
            # 1 for columns that are all missing.
            scale = np.nanmax([1.0, *np.abs(expected)])
            np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5 * scale, err_msg=name)
        else:
            pd.testing.assert_series_equal(found, expected, check_exact=True)


class Notes:
    """A sink that keeps what it is told, and calls `when` after each step."""

    def __init__(self, when=lambda stage: None):
        self.lines, self.when = [], when

    def start(self, stage, total, done):
        pass

    def advance(self, stage, n):
        self.when(stage)

    def note(self, line):
        self.lines.append(line)

    def record(self, event):
        pass


class OnTheCpu:
    """`tasks.infer_partition` on a GPU that is made up: computes on the cpu, and counts."""

    def __init__(self):
        self.function = tasks.infer_partition
        self.lock = threading.Lock()
        self.now, self.most, self.where, self.devices = 0, 0, [], set()

    def __reduce__(self):
        return getattr, (tasks, "infer_partition")

    def __call__(self, task):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.where.append(get_worker().address)
            self.devices.add(task.device)
        try:
            return self.function(dataclasses.replace(task, device="cpu"))
        finally:
            with self.lock:
                self.now -= 1


@pytest.fixture
def gpu(monkeypatch):
    """Torch and its executors, as if there were a GPU."""
    on_cpu, executor = OnTheCpu(), models.executor
    monkeypatch.setattr(tasks, "infer_partition", on_cpu)
    monkeypatch.setattr(models, "executor", lambda bundle, engine, device: executor(bundle, engine, "cpu"))
    monkeypatch.setattr(models, "gpu_identity", lambda: "GPU-aaaa")
    return on_cpu


def test_one_inference_at_a_time_on_a_gpu_of_three_threads(ready, one_gpu, gpu, plain):
    parsed, plan = ready
    result = execution.execute(parsed, plan, one_gpu[1])
    assert result.complete
    assert len(gpu.where) == len(plan.partitions) > 3
    assert (gpu.most, gpu.devices) == (1, {"cuda"})
    require_equal(parsed, plain)


def test_a_result_whose_worker_left_before_it_was_fetched_is_waited_for(local, plain, monkeypatch):
    parsed, plan = local
    lost = []
    with workers_here(n_workers=2, threads_per_worker=1, resources={}) as (running, client):
        gather = client.gather

        async def fetch(futures, options):
            result = await gather(futures, **options)
            if lost or not futures[0].key.startswith("infer"):
                return result
            lost.append(futures[0].key)
            # The task ended, and its worker leaves with the result: Dask runs it again on the other one.
            await next(w for w in running.workers.values() if futures[0].key in w.data).close()
            return await gather(futures, **options)

        monkeypatch.setattr(client, "gather", lambda futures, **options: fetch(futures, options))
        result = execution.execute(parsed, plan, client)
    assert result.complete
    assert result.failed == {}
    assert len(lost) == 1
    assert result.n_new == len(plan.objects)
    require_equal(parsed, plain)


def test_a_gpu_that_leaves_is_waited_for_and_the_rest_is_done_by_running_again(ready, one_gpu, gpu, plain):
    parsed, plan = ready
    running, client = one_gpu

    def leave(stage):
        if stage == "infer":
            running.scale(0)
            running.sync(running._correct_state)

    sink = Notes(leave)
    try:
        result = execution.execute(parsed, plan, client, sink=sink)
    finally:
        running.scale(1)
        client.wait_for_workers(1, timeout=30)
    assert not result.complete
    assert 0 < result.n_inferred < len(plan.objects)
    assert sink.lines[-1] == "no workers are there: waiting up to 1 s for one that can continue"
    assert result.failed
    for reason in result.failed.values():
        assert "no workers are there after 1 s; start workers with dask cuda worker tcp://" in reason
    again = execution.execute(parsed, plan, client)
    assert again.complete
    assert again.failed == {}
    require_equal(parsed, plain)


def test_workers_without_a_gpu_cut_and_the_rest_is_given_up(ready, one_gpu, gpu, monkeypatch):
    parsed, plan = ready
    monkeypatch.setattr("galbatch.cluster.kinds.scheduler.RunningScheduler.require_device", lambda *_: None)
    with workers_here(resources={}, threads_per_worker=1) as (_, client):
        result = execution.execute(parsed, plan, client)
    assert not gpu.where
    told = {reason.partition(" after")[0] for reason in result.failed.values()}
    assert told == {"infer: 1 worker is there, none with the resource GPU"}
    state = execution.read_progress(parsed, plan)
    assert state.ingested
    assert state.failed == result.failed


def test_a_worker_without_the_engine_gets_no_work_and_others_do_it(ready, one_gpu, gpu, monkeypatch):
    parsed, plan = ready
    running, client = one_gpu
    executor, refusing = models.executor, []

    def refuse_on_the_first(bundle, engine, device):
        refusing[:] = refusing or [get_worker().address]
        if get_worker().address in refusing:
            raise BundleError("torch has no compiler here")
        return executor(bundle, engine, device)

    monkeypatch.setattr(models, "executor", refuse_on_the_first)
    running.scale(2)
    client.wait_for_workers(2, timeout=30)
    monkeypatch.setattr("galbatch.cluster.kinds.scheduler.RunningScheduler.require_device", lambda *_: None)
    sink = Notes()
    try:
        result = execution.execute(parsed, plan, client, sink=sink)
    finally:
        running.scale(1)
        running.sync(running._correct_state)
    assert result.complete
    assert set(gpu.where).isdisjoint(refusing)
    assert [line for line in sink.lines if "gets no work" in line] == [
        f"worker {refusing[0]} gets no work: worker {refusing[0]} cannot provide the engine {plan.models[0].engine} of gampen "
        "on cuda: torch has no compiler here"
    ]


def test_an_engine_that_no_worker_can_provide_is_named(ready, one_gpu, gpu, monkeypatch):
    parsed, plan = ready

    def refuse(bundle, engine, device):
        raise BundleError("torch has no compiler here")

    monkeypatch.setattr(models, "executor", refuse)
    result = execution.execute(parsed, plan, one_gpu[1])
    assert not gpu.where
    assert result.failed
    for reason in result.failed.values():
        assert f"cannot provide the engine {plan.models[0].engine} of gampen on cuda" in reason


class BrokenGpu:
    """`tasks.infer_partition` with two made-up GPUs, one a worker, of which the first that is met is broken."""

    def __init__(self, function):
        self.function, self.broken, self.n_failed = function, None, 0

    def __reduce__(self):
        return getattr, (tasks, "infer_partition")

    def __call__(self, task):
        here = get_worker().address
        self.broken = self.broken or here
        if here == self.broken:
            self.n_failed += 1
            raise torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered")
        return self.function(dataclasses.replace(task, device="cpu"))


def test_a_broken_gpu_burns_no_partition(local, plain, monkeypatch):
    parsed, plan = local
    broken, executor, sink = BrokenGpu(tasks.infer_partition), models.executor, Notes()
    monkeypatch.setattr(tasks, "infer_partition", broken)
    monkeypatch.setattr(models, "executor", lambda bundle, engine, device: executor(bundle, engine, "cpu"))
    # Outside of tasks both workers of this process are asked for theirs.
    asked, here = itertools.count(), boundary._address
    monkeypatch.setattr(models, "gpu_identity", lambda: f"GPU-{here() or next(asked)}")
    restarted = []
    # Workers of this process have no nanny: this one goes on as it is.
    monkeypatch.setattr(cluster.WorkerMonitor, "restart", lambda _, worker: restarted.append(worker) or True)
    with workers_here(n_workers=2, threads_per_worker=2) as (running, client):
        no_retries = joining(parsed, running, retries=0, wait_s=60.0)
        result = execution.execute(no_retries, plan, client, sink=sink)
    assert result.failed == {}
    assert result.complete
    assert broken.n_failed == 2
    assert restarted == [broken.broken]
    (refused,) = [line for line in sink.lines if "gets no work" in line]
    assert refused.startswith(f"worker {broken.broken} gets no work: its GPU fails again: GPU ")
    assert refused.endswith(f"GPU-{broken.broken} fails: CUDA error: uncorrectable ECC error encountered")
    require_equal(parsed, plain)


class Shortage:
    """`models.infer_block` on a device with room for `most` rows at a time."""

    def __init__(self, most):
        self.most, self.function, self.batches = most, models.infer_block, []

    def __call__(self, network, cutouts, *, posterior, **options):
        self.batches.append(posterior.batch)
        if posterior.batch > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.function(network, cutouts, posterior=posterior, **options)


def test_after_lack_of_memory_the_catalog_is_the_same_to_rounding(local, plain, monkeypatch):
    """The batch that was found to fit serves the rest of the run, and is no other run."""
    parsed, plan = local
    shortage, sink = Shortage(most=20), Notes()
    with workers_here(threads_per_worker=1) as (_, client):
        monkeypatch.setattr(models, "infer_block", shortage)
        result = execution.execute(parsed, plan, client, sink=sink)
    assert result.complete
    assert result.failed == {}
    assert set(shortage.batches) == {64, 32, 16}
    first = plan.partitions[0].partition.name
    told = "not enough memory (batch 64): OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
    assert sink.lines[0] == f"partition {first}: {told}; trying batch 32"
    # Others that were under way with the larger batch: the queue of one thread holds two.
    assert len(sink.lines) <= 4 < 2 * len(plan.partitions)
    require_equal(parsed, plain, to_rounding=True)
    assert not execution.read_progress(parsed, plan).left


class OutOfGpuMemory(WorkerPlugin):
    """A GPU that is made up on each worker, with room for 40 rows; a process that once had too little never gets any again."""

    name = "out-of-gpu-memory"

    def setup(self, worker):
        from galbatch.execution.submission import boundary  # what tasks are run by
        from galbatch.execution.tasks import inferring

        tasks_there, models_there = boundary.tasks, boundary.models
        infer, executor, broken = tasks_there.infer_partition, models_there.executor, []

        def on_gpu(task):
            if broken or task.posterior.batch > 40:
                broken.append(True)
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return infer(dataclasses.replace(task, device="cpu"))

        # A task is unpickled by the module that its function is of, not by the door.
        inferring.infer_partition = on_gpu
        models_there.executor = lambda bundle, engine, device: executor(bundle, engine, "cpu")
        models_there.gpu_identity = lambda: worker.address
        models_there.gpu_shortage = lambda error, batch: (
            "41.2 GiB needed on the GPU (batch 64 x 659 MiB), 23.7 GiB there"
        )


@pytest.mark.slow
def test_a_worker_is_started_anew_after_lack_of_gpu_memory(local, plain):
    parsed, plan = local
    sink = Notes()
    with workers_here(processes=True, threads_per_worker=2) as (running, client):
        client.register_plugin(OutOfGpuMemory())
        before = set(cluster.Pool.of(client).threads)
        result = execution.execute(joining(parsed, running, wait_s=60.0), plan, client, sink=sink)
        after = set(cluster.Pool.of(client).threads)
    assert result.complete
    assert result.failed == {}
    assert not before & after
    (worker,) = before
    restarted, halved = sink.lines
    assert restarted == f"worker {worker} was started again: OK"
    # Of two threads that cut, either may be the first.
    where, _, told = halved.partition(": ")
    assert where.removeprefix("partition ") in {part.partition.name for part in plan.partitions[:2]}
    assert told == "41.2 GiB needed on the GPU (batch 64 x 659 MiB), 23.7 GiB there; trying batch 32"
    require_equal(parsed, plain, to_rounding=True)


def test_a_batch_that_was_halved_is_told_and_kept_for_what_follows(ready, one_gpu, gpu, plain):
    parsed, plan = ready
    notes, batches, infer = Notes(), [], gpu.function

    def on_a_small_gpu(task):
        batches.append(task.posterior.batch)
        if task.posterior.batch <= 16:
            return infer(task)
        told = f"partition {task.partition.name}: 0.9 GiB needed on the GPU; trying batch 16"
        smaller = task.posterior.model_copy(update={"batch": 16})
        return dataclasses.replace(infer(dataclasses.replace(task, posterior=smaller)), notes=(told,))

    gpu.function = on_a_small_gpu
    assert execution.execute(parsed, plan, one_gpu[1], sink=notes).complete
    told = [line for line in notes.lines if "trying batch 16" in line]
    assert batches[0] == 64
    assert batches[-1] == 16
    assert len(told) == batches.count(64) < len(plan.partitions)
    require_equal(parsed, plain, to_rounding=True)
