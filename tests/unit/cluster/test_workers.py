"""Workers that start when they are first needed, and functions mapped over them."""

import pytest

from galbatch import cluster
from galbatch.config import ClusterConfig
from galbatch.errors import TileError
from tests.unit.cluster.scripted import Scripted, worker


def test_workers_that_nobody_asks_for_do_not_start(monkeypatch):
    def refuse(config, notify):
        raise AssertionError("workers were started")

    monkeypatch.setattr("galbatch.cluster.workers.connect", refuse)
    with cluster.on_demand(ClusterConfig(workers=2)):
        pass


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
