"""Where workers come from: what holds for each kind, and what is missing where one cannot be had."""

import dataclasses
import os
import sys
import threading
import time
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import get_args

import pytest
from distributed import LocalCluster, get_worker
from distributed.comm import CommClosedError

from galbatch import cluster, config, models, storage
from galbatch.cluster import local_cuda
from galbatch.cluster import scheduler as joined
from galbatch.config import ClusterConfig
from galbatch.errors import BundleError, ClusterError, ConfigError, SchedulerLost, TileError

TWO_GPUS = ("GPU-aaaa", "GPU-bbbb")


def name_of_worker(_):
    time.sleep(0.01)  # long enough that one worker alone is not done before the other is asked
    return get_worker().address


def fail(number):
    raise TileError(f"tile {number}")


class Contract:
    """What holds for workers of any kind: subclasses give `connected`, the config and a client of two workers."""

    device = "cpu"

    def test_two_workers_come_and_both_work(self, connected):
        parsed, client = connected
        pool = cluster.Pool.of(client)
        assert len(pool.threads) == 2
        workers = cluster.Workers(parsed)
        workers._client = client
        assert set(workers.map(name_of_worker, range(40))) == set(pool.threads)

    def test_results_keep_their_order_and_errors_come_back(self, connected):
        parsed, client = connected
        workers = cluster.Workers(parsed)
        workers._client = client
        assert list(workers.map(str, range(30))) == [str(number) for number in range(30)]
        with pytest.raises(TileError, match="tile 0"):
            list(workers.map(fail, range(8)))

    def test_the_window_holds_a_task_for_each_thread_and_one_more_for_each_worker(self, connected):
        pool = cluster.Pool.of(connected[1])
        assert pool.max_submitted == sum(pool.threads.values()) + 2

    def test_the_device_is_the_kinds(self, connected):
        parsed, client = connected
        assert cluster.kind_of(parsed).device == self.device
        assert len(cluster.Pool.of(client).able(self.device)) == 2

    def test_workers_are_there_whatever_the_client_notes_meanwhile(self, connected, monkeypatch):
        """A timer of the client's notes the scheduler without its workers, every few seconds."""
        client = connected[1]
        sync = client.sync

        def sync_before_the_timer(function, *arguments, **options):
            found = sync(function, *arguments, **options)
            sync(client._update_scheduler_info)
            return found

        monkeypatch.setattr(client, "sync", sync_before_the_timer)
        assert len(cluster.Pool.of(client).threads) == 2

    def test_nobody_is_given_up(self, connected):
        parsed, client = connected
        monitor = cluster.WorkerMonitor(client, parsed, print)
        monitor.look()
        assert monitor.given_up(self.device) is None
        assert monitor.is_connected


class TestLocal(Contract):
    @pytest.fixture(scope="class")
    @classmethod
    def connected(cls, client):
        return ClusterConfig(workers=2), client

    def test_functions_run_in_other_processes_with_one_thread_each(self, connected):
        client = connected[1]
        assert os.getpid() not in client.run(os.getpid).values()
        assert set(cluster.Pool.of(client).threads.values()) == {1}
        environments = client.run(lambda: dict(os.environ)).values()
        assert {e["OMP_NUM_THREADS"] for e in environments} == {"1"}
        assert {e["MALLOC_TRIM_THRESHOLD_"] for e in environments} == {str(2**28)}


@contextmanager
def running_scheduler(**changes):
    """A scheduler with workers in this process that listens on the loopback, and its address."""
    options = {"n_workers": 2, "threads_per_worker": 1} | changes
    with LocalCluster(
        processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=None, silence_logs=50, **options
    ) as running:
        yield running


class TestScheduler(Contract):
    @pytest.fixture(scope="class")
    @classmethod
    def connected(cls):
        with running_scheduler() as running:
            parsed = ClusterConfig(kind="scheduler", scheduler=running.scheduler_address, workers=2, wait_s=5)
            with cluster.connect(parsed) as client:
                yield parsed, client

    def test_its_workers_stay_when_the_run_has_ended(self, connected):
        parsed, client = connected
        with cluster.connect(parsed):
            pass
        assert len(cluster.Pool.of(client).threads) == 2

    def test_shared_folders_are_found_shared(self, connected, tmp_path):
        (tmp_path / "tile.fits").write_bytes(b"")
        cluster.require_paths(connected[1], written=[str(tmp_path)], read=[str(tmp_path / "tile.fits")])
        assert [path.name for path in tmp_path.iterdir()] == ["tile.fits"]

    def test_a_file_that_workers_do_not_see_is_named(self, connected, tmp_path):
        with pytest.raises(ClusterError, match=r"2 workers of 2: tcp://.*nowhere\.pt is not there; .*shared"):
            cluster.require_paths(connected[1], written=[], read=[str(tmp_path / "nowhere.pt")])

    def test_another_folder_of_the_same_name_is_refused(self, connected, tmp_path, monkeypatch):
        monkeypatch.setattr(
            storage, "read_json", lambda path: None
        )  # as on a machine with its own disk there
        with pytest.raises(ClusterError, match="is not there, or another folder"):
            cluster.require_paths(connected[1], written=[str(tmp_path)], read=[])
        assert list(tmp_path.iterdir()) == []


@pytest.fixture
def gpus(monkeypatch):
    """A machine with two GPUs and dask-cuda, both made up; returns a function that takes things away."""
    return FakeMachine(monkeypatch)


class FakeMachine:
    """Fakes of pynvml, dask_cuda and what torch says; LocalCUDACluster is a LocalCluster in this process."""

    def __init__(self, monkeypatch):
        self.monkeypatch = monkeypatch
        self.started = []
        self.nvml = self.module("pynvml")
        self.nvml.NVMLError = type("NVMLError", (Exception,), {})
        self.nvml.nvmlInit = lambda: None
        self.has(2)
        self.module("dask_cuda").LocalCUDACluster = self.start
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(models, "torch_cuda", lambda: "13.0", raising=False)
        monkeypatch.setattr(models, "gpu_identity", self.identity, raising=False)
        self.identities = list(TWO_GPUS)

    def module(self, name):
        made = ModuleType(name)
        made.__spec__ = ModuleSpec(name, None)
        self.monkeypatch.setitem(sys.modules, name, made)
        return made

    def has(self, n_gpus):
        self.nvml.nvmlDeviceGetCount = lambda: n_gpus

    def lacks(self, name):
        self.monkeypatch.setitem(sys.modules, name, None)

    def start(self, *, CUDA_VISIBLE_DEVICES, n_workers, **options):
        self.started.append((CUDA_VISIBLE_DEVICES, n_workers, options))
        return LocalCluster(n_workers=n_workers, processes=False, protocol="tcp", **options)

    def identity(self):
        found = self.identities.pop()
        if isinstance(found, Exception):
            raise found
        return found


CUDA = ClusterConfig(kind="local-cuda", dashboard_address="127.0.0.1:0", wait_s=5)


class TestLocalCuda(Contract):
    device = "cuda"

    @pytest.fixture
    def connected(self, gpus):
        with cluster.connect(CUDA) as client:
            yield CUDA, client

    def test_each_worker_has_one_gpu_and_threads_to_feed_it(self, connected, gpus):
        (visible, n_workers, options) = gpus.started[0]
        assert (visible, n_workers) == (["0", "1"], 2)
        assert options["resources"] == {"GPU": 1}
        assert 2 <= options["threads_per_worker"] <= 4
        # Limits of memory, and RMM, are left to dask-cuda: torch uses neither.
        assert not [name for name in options if name.startswith(("rmm", "device_memory", "memory"))]

    def test_one_task_at_a_time_on_a_gpu_and_others_beside_it(self, connected):
        client = connected[1]
        address = cluster.Pool.of(client).able("cuda")[0]
        running, most, lock = [0], [0], threading.Lock()
        cut, release = threading.Event(), threading.Event()

        def infer(_):
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            release.wait(20)
            with lock:
                running[0] -= 1

        Held.functions = (infer, cut.set)
        on_gpu = [
            client.submit(Held(0), i, pure=False, workers=[address], resources={"GPU": 1}) for i in range(4)
        ]
        beside = client.submit(Held(1), pure=False, workers=[address])
        assert cut.wait(20)  # the cutting is done while an inference holds the GPU
        release.set()
        client.gather([*on_gpu, beside])
        assert most[0] == 1


class Held:
    """A function of the test by reference: Dask pickles even within one process, and locks do not travel."""

    functions = ()

    def __init__(self, number):
        self.number = number

    def __call__(self, *arguments):
        Held.functions[self.number](*arguments)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda m: m.lacks("pynvml"), r'dask-cuda is not installed here: pip install "galbatch\[cuda\]"'),
        (lambda m: m.lacks("dask_cuda"), "dask-cuda is not installed here"),
        (lambda m: m.has(0), "there is no GPU; kind = 'local' runs on the cpu"),
        (
            lambda m: setattr(m.nvml, "nvmlInit", no_driver(m)),
            "no GPU is found here .NVML Shared Library Not",
        ),
        (
            lambda m: m.monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ""),
            "no GPU that CUDA_VISIBLE_DEVICES='' lea",
        ),
        (lambda m: m.monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1,0"), "no GPU that CUDA_VISIBLE_DEVICES"),
        (
            lambda m: m.monkeypatch.setattr(models, "torch_cuda", lambda: None),
            "torch is a build without CUDA",
        ),
    ],
)
def test_what_is_missing_for_gpus_is_told_before_anything_starts(gpus, spoil, told):
    spoil(gpus)
    for ask in (cluster.require, lambda c: cluster.connect(c).__enter__()):
        with pytest.raises(ClusterError, match=told):
            ask(CUDA)
    assert not gpus.started


def no_driver(machine):
    def init():
        raise machine.nvml.NVMLError("NVML Shared Library Not Found")

    return init


def test_bindings_that_are_missing_come_with_the_extra_of_torchs_release(gpus, monkeypatch):
    def load(name):
        if name == "dask_cuda":
            raise ImportError("cannot import name 'bindings' from 'cuda'", name="cuda")
        return sys.modules[name]

    monkeypatch.setattr(local_cuda.importlib, "import_module", load)
    with pytest.raises(ClusterError, match=r"cannot import name 'bindings'.*dask-cuda\[cu13\]"):
        cluster.require(CUDA)


def test_more_workers_than_gpus_are_refused_and_fewer_take_the_first(gpus, monkeypatch):
    with pytest.raises(
        ClusterError, match=r"3 workers are asked for and there are 2 GPUs; .*ask for 2 at most"
    ):
        cluster.require(CUDA.model_copy(update={"workers": 3}))
    assert local_cuda.require_gpus(1) == ["0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with pytest.raises(
        ClusterError, match="2 workers are asked for and there is 1 GPU that CUDA_VISIBLE_DEVICES='1'"
    ):
        cluster.require(CUDA.model_copy(update={"workers": 2}))


@pytest.mark.parametrize(
    ("listed", "seen"),
    [
        ("1", ["1"]),
        ("1, 0", ["1", "0"]),
        ("0,0", ["0"]),
        ("0,5,1", ["0"]),  # as CUDA has it: what follows a number that is none is not seen
        ("GPU-aaaa,MIG-bbbb", ["GPU-aaaa", "MIG-bbbb"]),
        ("", []),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(gpus, monkeypatch, listed, seen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert local_cuda.visible_gpus() == seen


@pytest.mark.parametrize(
    ("identities", "told"),
    [
        (["GPU-aaaa", "GPU-aaaa"], "compute on the same GPU, GPU-aaaa: each worker needs one of its own"),
        (["GPU-aaaa", BundleError("torch 2.13, built without CUDA, finds no GPU")], "1 worker with the resource GPU"),
    ],
)  # fmt: skip
def test_workers_that_share_a_gpu_or_have_none_are_refused(gpus, identities, told):
    gpus.identities = identities
    with pytest.raises(ClusterError, match=told), cluster.connect(CUDA):
        pass


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("tcp://127.0.0.1:1", "no Dask scheduler answers there"),
        ("tcp://127.0.0.1", "no Dask scheduler answers there"),
        ("nonsense", "no Dask scheduler answers there"),
        ("http://127.0.0.1:8787", "no Dask scheduler answers there"),
    ],
)
def test_an_address_where_nothing_answers_is_told(address, told, monkeypatch):
    monkeypatch.setattr(joined, "CONNECT_S", 0.5)
    wrong = ClusterConfig(kind="scheduler", scheduler=address)
    with pytest.raises(ClusterError, match=f"{address}: {told}"), cluster.connect(wrong):
        pass


def test_workers_are_waited_for_so_long_and_no_longer():
    with running_scheduler(n_workers=0) as running:
        asked = ClusterConfig(kind="scheduler", scheduler=running.scheduler_address, wait_s=0.3)
        told = []
        with (
            pytest.raises(
                ClusterError, match=r"no workers are there, 1 asked for, after 0.3 s.*dask worker tcp://"
            ),
            cluster.connect(asked, notify=told.append),
        ):
            pass
        assert told == [f"{asked.scheduler}: no workers are there; waiting up to 0.3 s for 1"]
        running.scale(1)
        with cluster.connect(asked.model_copy(update={"wait_s": 20.0})) as client:
            assert len(cluster.Pool.of(client).threads) == 1


def test_workers_without_gpus_are_refused_for_inference_on_them():
    with running_scheduler(n_workers=1) as running:
        asked = ClusterConfig(
            kind="scheduler", scheduler=running.scheduler_address, device="cuda", wait_s=0.3
        )
        with (
            cluster.connect(asked) as client,
            pytest.raises(
                ClusterError, match=r'1 worker is there, none with the resource GPU.*--resources "GPU=1"'
            ),
        ):
            cluster.kind_of(asked).require_device(client, print)


VERSIONS = {
    "python": "3.11.2.final.0", "galbatch": "0.1.0", "dask": "2026.7.1", "distributed": "2026.7.1",
    "torch": "2.13.0+cpu", "numpy": "2.4.0",
}  # fmt: skip


class Versions:
    """A client that knows versions alone."""

    def __init__(self, scheduler=VERSIONS, **workers):
        self.found = {
            "client": {"packages": VERSIONS},
            "scheduler": {"packages": scheduler},
            "workers": {name: {"packages": packages} for name, packages in workers.items()},
        }

    def get_versions(self, packages):
        assert set(packages) == {"galbatch", "torch"}
        return self.found


def test_versions_that_do_not_matter_are_let_pass():
    near = VERSIONS | {"python": "3.11.9.final.0", "torch": "2.13.1+cu130", "numpy": "2.1.0"}
    without_torch = VERSIONS | {"torch": None, "numpy": None}
    joined._require_alike(Versions(without_torch, a=near), "tcp://s")


def test_versions_that_matter_are_told_as_a_table():
    old = VERSIONS | {"torch": "2.6.0", "python": "3.12.1.final.0"}
    client = Versions(VERSIONS | {"galbatch": None}, a=old, b=VERSIONS, c=old, d=old, e=old)
    with pytest.raises(ClusterError) as refused:
        joined._require_alike(client, "tcp://s")
    assert str(refused.value).splitlines() == [
        "tcp://s: not all is like here: install the same on the scheduler and its workers",
        "package   here   there    on",
        "galbatch  0.1.0  missing  scheduler",
        "python    3.11   3.12     a, c, d and more",
        "torch     2.13   2.6      a, c, d and more",
    ]
    assert set(joined.refused_workers(client)) == {"a", "c", "d", "e"}
    assert joined.refused_workers(client)["a"] == "python 3.12 there, 3.11 here, torch 2.6 there, 2.13 here"


def test_workers_that_nobody_asks_for_do_not_start(monkeypatch):
    def refuse(config, notify):
        raise AssertionError("workers were started")

    monkeypatch.setattr("galbatch.cluster.workers.connect", refuse)
    with cluster.on_demand(ClusterConfig(workers=2)):
        pass


def test_an_unknown_kind_fails_by_name():
    unknown = ClusterConfig().model_copy(update={"kind": "tent"})
    with pytest.raises(ClusterError, match=f"'tent': not known; known are {', '.join(cluster.KINDS)}"):
        cluster.require(unknown)
    with cluster.on_demand(unknown) as workers, pytest.raises(ClusterError, match="'tent': not known"):
        _ = workers.client


def test_the_kinds_of_the_config_are_those_of_the_registry():
    assert get_args(ClusterConfig.model_fields["kind"].annotation) == tuple(cluster.KINDS)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"kind": "scheduler"}, "name its address"),
        ({"scheduler": "tcp://a:1"}, "leave one of them out"),
        (
            {"device": "cuda"},
            "kind = 'local' infers on the cpu; kind = 'local-cuda' on the GPUs of this machine",
        ),
        ({"kind": "scheduler", "scheduler": "tcp://a:1", "device": "gpu"}, "'cpu' or 'cuda'"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(keys, told):
    with pytest.raises(ConfigError, match=told):
        config.parse_strictly(ClusterConfig, keys, "[cluster]")


@pytest.mark.parametrize(
    ("keys", "n_workers", "called"),
    [
        ({"workers": 1}, 1, "1 worker"),
        ({"workers": 8}, 8, "8 workers"),
        ({"kind": "local-cuda"}, 2, "2 GPU workers"),
        ({"kind": "local-cuda", "workers": 1}, 1, "1 GPU worker"),
        ({"kind": "scheduler", "scheduler": "tcp://a:1"}, 1, "1 worker of tcp://a:1"),
        ({"kind": "scheduler", "scheduler": "tcp://a:1", "workers": 4, "device": "cuda"}, 4, "4 GPU workers of tcp://a:1"),
    ],
)  # fmt: skip
def test_a_plan_names_the_workers_it_counts_on(gpus, keys, n_workers, called):
    assert cluster.kind_of(ClusterConfig(**keys)).workers_planned() == (n_workers, called)


def test_a_plan_for_gpus_is_made_where_there_are_none(gpus):
    gpus.lacks("pynvml")
    assert cluster.kind_of(CUDA).workers_planned() == (1, "1 GPU worker")


class Scripted:
    """A client whose workers are told, and that notes what is asked of it."""

    status, lost = "running", False

    def __init__(self, **workers):
        self.workers = workers
        self.submitted, self.cancelled, self.restarted = [], [], []
        self.most = 0

    @property
    def scheduler(self):
        return self

    def sync(self, function, **options):
        return function(**options)

    def identity(self, n_workers):
        if self.lost:
            raise CommClosedError("in <TCP (closed)>")
        assert n_workers == -1  # of some only, otherwise
        return {"workers": self.workers}

    def submit(self, function, item, **_):
        self.submitted.append(ScriptedFuture(self, lambda: function(item)))
        self.most = max(self.most, len([one for one in self.submitted if not one.collected]))
        return self.submitted[-1]

    def cancel(self, futures):
        self.cancelled += futures

    def restart_workers(self, workers, **_):
        self.restarted += workers
        return dict.fromkeys(workers, "OK")


@dataclasses.dataclass
class ScriptedFuture:
    client: Scripted
    call: object
    collected: bool = False

    def result(self):
        self.collected = True
        return self.call()


def worker(threads=1, *, gpu=False, nanny="tcp://nanny"):
    return {"nthreads": threads, "resources": {"GPU": 1.0} if gpu else {}, "nanny": nanny}


def scripted_workers(client):
    made = cluster.Workers(ClusterConfig())
    made._client = client
    return made


def test_the_window_of_map_is_bounded():
    client = Scripted(a=worker(), b=worker())
    assert list(scripted_workers(client).map(str, range(50))) == [str(number) for number in range(50)]
    assert client.most == 4


def test_after_an_error_the_rest_is_given_up():
    client = Scripted(a=worker(), b=worker())

    def call(number):
        if number == 3:
            raise TileError("tile 3")
        return number

    with pytest.raises(TileError, match="tile 3"):
        list(scripted_workers(client).map(call, range(50)))
    assert len(client.cancelled) == 3


JOINED = ClusterConfig(kind="scheduler", scheduler="tcp://s:1", device="cuda", wait_s=100)


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the monitor reads, moved by the test."""
    now = [1000.0]
    monkeypatch.setattr("galbatch.cluster.monitor.time.monotonic", lambda: now[0])
    return now


def test_who_is_missing_is_waited_for_and_then_given_up(clock, monkeypatch):
    client, told = Scripted(a=worker()), []
    monitor = cluster.WorkerMonitor(client, JOINED, told.append)
    assert monitor.given_up("cpu") is None
    assert monitor.given_up("cuda") is None
    clock[0] += 99
    assert monitor.given_up("cuda") is None
    assert told == [
        "1 worker is there, none with the resource GPU: waiting up to 100 s for one that can continue"
    ]
    clock[0] += 2
    assert monitor.given_up("cuda") == (
        "1 worker is there, none with the resource GPU after 100 s; start workers with dask worker tcp://s:1 "
        '--resources "GPU=1" --nthreads 4 and run again'
    )
    monkeypatch.setattr("galbatch.cluster.scheduler.refused_workers", lambda client: {})
    client.workers["b"] = worker(4, gpu=True)
    monitor.look()
    assert monitor.given_up("cuda") is None
    assert monitor.max_submitted == 7
    del client.workers["b"]
    clock[0] += 2
    monitor.look()
    assert monitor.given_up("cuda") is None  # the wait begins anew


def test_workers_started_here_that_cannot_are_not_waited_for(clock):
    monitor = cluster.WorkerMonitor(Scripted(a=worker()), ClusterConfig(), print)
    monitor.refuse("a", "no engine")
    assert monitor.given_up("cpu") == "1 worker is there; a is refused: no engine"
    away = cluster.WorkerMonitor(Scripted(), ClusterConfig(), print)
    assert away.given_up("cpu") is None  # their nannies may be starting them anew
    clock[0] += 121
    assert away.given_up("cpu") == "no workers are there after 120 s"


def test_newcomers_unlike_this_process_get_no_work(clock, monkeypatch):
    client, told = Scripted(a=worker()), []
    monitor = cluster.WorkerMonitor(client, JOINED, told.append)
    monkeypatch.setattr(
        "galbatch.cluster.scheduler.refused_workers", lambda client: {"b": "torch 2.6 there, 2.13 here"}
    )
    client.workers["b"] = worker()
    monitor.look()
    assert monitor.able("cpu") == ["a"]  # looked a moment ago
    clock[0] += 2
    monitor.look()
    assert monitor.able("cpu") == ["a"]
    assert told == ["worker b gets no work: torch 2.6 there, 2.13 here"]


def test_only_workers_with_a_nanny_are_started_again(clock):
    client, told = Scripted(a=worker(), b=worker(nanny=None)), []
    monitor = cluster.WorkerMonitor(client, JOINED, told.append)
    monitor.restart("a")
    monitor.restart("b")
    assert client.restarted == ["a"]
    assert told == [
        "worker a was started again: OK",
        "worker b has no nanny that could start it again; it continues as it is",
    ]


def test_a_scheduler_that_is_gone_ends_the_run(clock):
    client = Scripted(a=worker())
    monitor = cluster.WorkerMonitor(client, JOINED, print)
    client.lost = True  # the connection, which the client has not seen yet
    clock[0] += 2
    monitor.look()
    assert monitor.able("cpu") == ["a"]
    client.status = "connecting"
    assert not monitor.is_connected
    client.status = "closed"
    with pytest.raises(SchedulerLost, match="tcp://s:1: the scheduler is gone; what is done stays"):
        monitor.look()
