from __future__ import annotations

import os

import pytest

from galbatch import cluster
from galbatch.config import ClusterConfig
from galbatch.errors import NotInThisVersion, TileError


def test_workers_that_nobody_asks_for_do_not_start(monkeypatch):
    def refuse(config):
        raise AssertionError("workers were started")

    monkeypatch.setattr(cluster, "connect", refuse)
    with cluster.on_demand(ClusterConfig(workers=2)):
        pass


def test_kinds_to_come_say_so_when_they_are_needed():
    with (
        cluster.on_demand(ClusterConfig(kind="slurm")) as workers,
        pytest.raises(NotInThisVersion, match="slurm"),
    ):
        _ = workers.client


class Pending:
    """Counts what was submitted and is not collected yet."""

    def __init__(self):
        self.now, self.most, self.cancelled = 0, 0, []

    def scheduler_info(self):
        return {"workers": {"a": 1, "b": 2}}

    def submit(self, function, item, **_):
        self.now += 1
        self.most = max(self.most, self.now)
        return Future(self, lambda: function(item))

    def cancel(self, futures):
        self.cancelled = list(futures)


class Future:
    def __init__(self, pending, call):
        self.pending, self.call = pending, call

    def result(self):
        self.pending.now -= 1
        return self.call()


@pytest.fixture
def workers():
    made = cluster.Workers(ClusterConfig())
    made._client = Pending()
    return made


def test_the_window_is_bounded_and_the_order_kept(workers):
    assert list(workers.map(str, range(50))) == [str(number) for number in range(50)]
    assert workers.client.most == 4


def test_after_an_error_the_rest_is_given_up(workers):
    def call(number):
        if number == 3:
            raise TileError("tile 3")
        return number

    found = []
    with pytest.raises(TileError, match="tile 3"):
        found.extend(workers.map(call, range(50)))
    assert len(workers.client.cancelled) == 3


def where(_):
    return os.getpid()


def fail(number):
    raise TileError(f"tile {number}")


def test_functions_run_in_the_workers_and_their_errors_come_back(client):
    workers = cluster.Workers(ClusterConfig())
    workers._client = client
    assert os.getpid() not in set(workers.map(where, range(8)))
    with pytest.raises(TileError, match="tile 0"):
        list(workers.map(fail, range(8)))
