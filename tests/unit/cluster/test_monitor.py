"""The monitor of workers: who is waited for, given up, refused, started again."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from galbatch import cluster
from galbatch.config import ClusterConfig
from galbatch.errors import SchedulerLost
from tests.clocks import replace_clock
from tests.unit.cluster.scripted import Scripted, worker

JOINED = ClusterConfig(kind="scheduler", scheduler="tcp://s:1", device="cuda", wait_s=100)


def test_who_is_missing_is_waited_for_and_then_given_up(clock, monkeypatch):
    client, messages = Scripted(a=worker()), []
    monitor = cluster.WorkerMonitor(client, JOINED, messages.append)
    assert monitor.given_up("cpu") is None
    assert monitor.given_up("cuda") is None
    clock[0] += 99
    assert monitor.given_up("cuda") is None
    assert messages == [
        "1 worker is there, none with the resource GPU: waiting up to 100 s for one that can continue"
    ]
    clock[0] += 2
    assert monitor.given_up("cuda") == (
        "1 worker is there, none with the resource GPU after 100 s; start workers with dask cuda worker tcp://s:1 "
        '--resources "GPU=1" --nthreads 2 --memory-limit 0 and run again'
    )
    monkeypatch.setattr("galbatch.cluster.kinds.scheduler.refused_workers", lambda client: {})
    client.workers["b"] = worker(4, gpu=True)
    monitor.look()
    assert monitor.given_up("cuda") is None
    assert monitor.max_submitted == 7
    del client.workers["b"]
    clock[0] += 2
    monitor.look()
    assert monitor.given_up("cuda") is None  # the wait begins again


def test_workers_started_here_that_cannot_are_not_waited_for(clock):
    monitor = cluster.WorkerMonitor(Scripted(a=worker()), ClusterConfig(), print)
    monitor.refuse("a", "no engine")
    assert monitor.given_up("cpu") == "1 worker is there; a is refused: no engine"
    away = cluster.WorkerMonitor(Scripted(), ClusterConfig(), print)
    assert away.given_up("cpu") is None  # their nannies may be starting them again
    clock[0] += 121
    assert away.given_up("cpu") == "no workers are there after 120 s"


def test_newcomers_unlike_this_process_get_no_work(clock, monkeypatch):
    client, messages = Scripted(a=worker()), []
    monitor = cluster.WorkerMonitor(client, JOINED, messages.append)
    monkeypatch.setattr(
        "galbatch.cluster.kinds.scheduler.refused_workers", lambda client: {"b": "torch 2.6 there, 2.13 here"}
    )
    client.workers["b"] = worker()
    monitor.look()
    assert monitor.able("cpu") == ["a"]  # looked a moment ago
    clock[0] += 2
    monitor.look()
    assert monitor.able("cpu") == ["a"]
    assert messages == ["worker b gets no work: torch 2.6 there, 2.13 here"]


def test_only_workers_with_a_nanny_are_started_again(clock):
    client, messages = Scripted(a=worker(), b=worker(nanny=None)), []
    monitor = cluster.WorkerMonitor(client, JOINED, messages.append)
    monitor.restart("a")
    monitor.restart("b")
    assert client.restarted == ["a"]
    assert messages == [
        "worker a was started again: OK",
        "worker b has no nanny that could start it again; it continues as it is",
    ]


def test_a_worker_that_has_ended_meanwhile_counts_as_started_again(monkeypatch):
    """Dask raises KeyError for an address that it does not know any more."""
    client, messages = Scripted(a=worker()), []

    def unknown(workers, **_):
        raise KeyError(workers[0])

    monkeypatch.setattr(client, "restart_workers", unknown)
    monitor = cluster.WorkerMonitor(client, JOINED, messages.append)
    monitor.look()
    assert monitor.restart("a")
    assert messages == ["worker a was started again: it had ended already"]


@dataclass(frozen=True)
class Task:
    key: str
    processing_on: SimpleNamespace | None = field(compare=False)


def test_tasks_that_run_are_told_with_their_time_so_far(clock, monkeypatch):
    """Also of worker b, which is stopped, and has not reported for 100 s: one task that it executes, and one that it never began."""
    client = Scripted(a=worker(), b=worker())
    a, b = (
        SimpleNamespace(address="a", last_seen=5000.0, executing={}),
        SimpleNamespace(address="b", last_seen=4900.0, executing={}),
    )
    tasks = {
        key: Task(key, processing_on=on)
        for key, on in (("runs", a), ("ready", a), ("hangs", b), ("never-began", b), ("waits", None))
    }
    a.executing[tasks["runs"]] = 7.0
    b.executing[tasks["hangs"]] = 3.0
    client.state = SimpleNamespace(tasks=tasks)
    replace_clock(monkeypatch, "galbatch.cluster.monitor", time=lambda: 5000.0)
    monitor = cluster.WorkerMonitor(client, JOINED, print)
    assert monitor.running([*tasks, "forgotten"]) == {
        "runs": ("a", 7.0),
        "ready": ("a", 0.0),
        "hangs": ("b", 103.0),
        "never-began": ("b", 100.0),
    }
    assert monitor.running(["hangs"]) == {"hangs": ("b", 103.0)}
    client.state = None  # not asked about nothing
    assert monitor.running([]) == {}
    client.lost = True
    assert monitor.running(["runs"]) == {}


def test_workers_that_are_missing_are_asked_for_every_five_seconds(clock, monkeypatch):
    client, told, asked = Scripted(a=worker(), b=worker()), [], []
    monkeypatch.setattr(
        "galbatch.cluster.kinds.local.Local.replace_workers", lambda self, client: asked.append(clock[0]) or 1
    )
    monitor = cluster.WorkerMonitor(client, ClusterConfig(), told.append)
    clock[0] += 2
    monitor.look()
    assert asked == []
    del client.workers["b"]
    for _ in range(12):
        clock[0] += 1
        monitor.look()
    assert asked == [1004.0, 1009.0, 1014.0]
    assert told == 3 * ["1 worker gone for good: started again"]
    client.workers["b"] = worker()
    for _ in range(12):
        clock[0] += 1
        monitor.look()
    assert len(asked) == 3


def test_news_of_workers_that_are_still_to_come_are_told_when_they_change(clock, monkeypatch):
    told, news = [], iter(["2 jobs pending (Resources)"] * 3 + ["", "1 job pending (Priority)"])
    monkeypatch.setattr("galbatch.cluster.kinds.local.Local.news", lambda self, client: next(news))
    monitor = cluster.WorkerMonitor(Scripted(a=worker()), ClusterConfig(), told.append)
    for _ in range(24):
        clock[0] += 1
        monitor.look()
    assert told == ["2 jobs pending (Resources)", "1 job pending (Priority)"]
    # Every five seconds, and five times by now.
    assert next(news, "asked for all") == "asked for all"


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


def test_of_the_workers_that_hold_results_the_silent_ones_are_told(clock, monkeypatch):
    replace_clock(monkeypatch, "galbatch.cluster.monitor", time=lambda: 1000.0)
    a, b = SimpleNamespace(address="a", last_seen=999.0), SimpleNamespace(address="b", last_seen=999.5)
    tasks = {
        "x": SimpleNamespace(who_has=[a]),
        "y": SimpleNamespace(who_has=[b]),
        "z": SimpleNamespace(who_has=None),
    }
    client = Scripted(a=worker(), b=worker())
    client.state = SimpleNamespace(tasks=tasks)
    monitor = cluster.WorkerMonitor(client, JOINED, print)
    assert monitor.holders([]) == []
    assert monitor.holders(["x", "y", "z", "forgotten"]) == ["a", "b"]
    b.last_seen = 980.0
    assert monitor.holders(["x", "y"]) == ["b"]
    assert monitor.holders(["x"]) == ["a"]
