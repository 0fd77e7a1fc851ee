"""Workers that start when they are first needed, and functions mapped over them."""

import threading
from contextlib import contextmanager

import pytest

from galbatch import cluster
from galbatch.config import ClusterConfig, parse_strictly
from galbatch.errors import ClusterError, TileError
from tests.unit.cluster.scripted import Scripted, worker


def test_workers_that_nobody_asks_for_do_not_start(monkeypatch):
    def refuse(config, notify):
        raise AssertionError("workers were started")

    monkeypatch.setattr("galbatch.cluster.workers.connect", refuse)
    with cluster.on_demand(ClusterConfig(workers=2)):
        pass


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("local", "local"),
        ("scheduler", "scheduler"),
        ("slurm", "local"),
        ("kubernetes", "local"),
        ("local-cuda", "local"),
    ],
)
def test_commands_that_look_ask_for_no_job_pod_or_gpu(monkeypatch, kind, expected):
    """Whoever asks for the status of a run whose tile index is gone waits in no queue."""
    keys = {
        "scheduler": {"scheduler": "tcp://10.0.0.1:8786"},
        "slurm": {"slurm": {"cores": 1, "memory": "1 GiB"}},
        "kubernetes": {"kubernetes": {"image": "galbatch", "memory": "1Gi"}, "workers": 500},
    }
    asked = []

    @contextmanager
    def connect(config, notify):
        asked.append(config)
        yield Scripted(a=worker())

    monkeypatch.setattr("galbatch.cluster.workers.connect", connect)
    config = parse_strictly(ClusterConfig, {"kind": kind, **keys.get(kind, {})}, "[cluster]")
    with cluster.to_look(config) as workers:
        assert list(workers.map(str, range(3))) == ["0", "1", "2"]
    assert [one.kind for one in asked] == [expected]
    # Pods are no processes of this machine.
    assert asked[0].workers is None


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


def test_workers_that_are_surely_needed_begin_before_they_are_asked_for(monkeypatch):
    begun, may_end, ended = threading.Event(), threading.Event(), []
    client = Scripted(a=worker())
    client.run = lambda function, *arguments, wait: ended.append((function.__name__, *arguments, wait))

    @contextmanager
    def connect(config, notify):
        begun.set()
        assert may_end.wait(60)
        yield client
        ended.append("workers")

    monkeypatch.setattr("galbatch.cluster.workers.connect", connect)
    with cluster.on_demand(ClusterConfig(workers=2), imports="galbatch.errors") as workers:
        workers.begin()
        assert begun.wait(60)
        may_end.set()
        assert workers.client is client
        workers.begin()  # once is enough
        assert ended == [("_import", "galbatch.errors", False)]
    assert ended[1:] == ["workers"]


def test_only_processes_of_this_machine_begin_early(monkeypatch):
    monkeypatch.setattr("galbatch.cluster.workers.connect", lambda config, notify: pytest.fail("started"))
    with cluster.on_demand(ClusterConfig(workers=2)) as workers:
        workers.begin()  # nothing says that they will be needed
    joined = ClusterConfig(kind="scheduler", scheduler="tcp://127.0.0.1:1")
    with cluster.on_demand(joined, imports="galbatch.errors") as workers:
        workers.begin()


def test_workers_that_cannot_begin_say_so_when_they_are_needed_and_end_quietly_otherwise(monkeypatch):
    def connect(config, notify):
        raise ClusterError("no workers today")

    monkeypatch.setattr("galbatch.cluster.workers.connect", connect)
    with cluster.on_demand(ClusterConfig(workers=2), imports="galbatch.errors") as workers:
        workers.begin()
        with pytest.raises(ClusterError, match="no workers today"):
            workers.client  # noqa: B018  (its use starts workers)
    with cluster.on_demand(ClusterConfig(workers=2), imports="galbatch.errors") as workers:
        workers.begin()
