"""The news that a run's process sends to the scheduler's page."""

import pickle
import time
from types import SimpleNamespace

import pytest

from galbatch import dashboard
from galbatch.dashboard import broadcast


class Kept(dashboard.Silent):
    def __init__(self):
        self.events, self.lines = [], []

    def record(self, event):
        self.events.append(event)

    def note(self, line):
        self.lines.append(line)


class Client:
    """A connection that keeps what is sent."""

    status = "running"

    def __init__(self, fault=None):
        self.sent, self.fault = [], fault

        self.scheduler = SimpleNamespace(galbatch_news=None)

    def sync(self, function, news):
        if self.fault:
            raise self.fault
        self.sent.append(pickle.loads(news))


def inferred(number, n_objects=40, **flags):
    sample = dashboard.Sample(str(number), b"png", (("gampen bt", "0.4"),))
    numbers = {"objects": n_objects}
    return dashboard.Event("infer", "..", f"Npix={number}", None, numbers, flags=flags, samples=(sample,))


def test_the_last_message_has_all_that_happened():
    client, sink = Client(), Kept()
    with dashboard.Broadcast(sink, client, name="wide") as news:
        news.start("ingest", 1000, 100)
        news.start("infer", 1000, 0)
        news.advance("ingest", 50)
        for number in range(12):
            news.record(inferred(number, LOW_SNR=2))
        news.record(dashboard.Event("retry", "..", "Npix=3", None, {"step": "infer", "reason": "no GPU"}))
        for number in range(60):
            numbers = {"step": "ingest", "reason": f"tile {number}"}
            news.record(dashboard.Event("failed", "..", f"Npix={number}", None, numbers))
        news.note("the disk is full")
    last = client.sent[-1]
    assert (last.name, last.state) == ("wide", "finished")
    assert [(one.name, one.done, one.total, one.before) for one in last.stages] == [
        ("ingest", 150, 1000, 100),
        ("infer", 0, 1000, 0),
    ]
    assert (last.n_inferred, last.n_retries, last.n_failed) == (480, 1, 60)
    assert last.flags == (("LOW_SNR", 24),)
    assert [one.object_id for one in last.samples] == [str(number) for number in range(11, 2, -1)]
    assert len(last.failures) == 50
    assert (last.failures[0].partition, last.failures[0].reason) == ("Npix=59", "ingest: tile 59")
    assert [line for _, line in last.notes] == ["the disk is full"]
    # The other sink got everything, too.
    assert len(sink.events) == 12 + 1 + 60
    assert sink.lines == ["the disk is full"]


def test_the_scheduler_knows_of_a_run_before_it_does_anything(monkeypatch):
    monkeypatch.setattr(broadcast, "MAX_WAIT_S", 600.0)

    class Slow(Client):
        def sync(self, function, news):
            # The thread that sends is behind, so that a run that did not wait would begin first.
            time.sleep(0.2)
            super().sync(function, news)

    client = Slow()
    with dashboard.Broadcast(Kept(), client, name="wide"):
        [first] = client.sent[:1]
        assert (first.name, first.state, first.stages) == ("wide", "running", ())


def test_a_run_that_ends_with_an_error_says_so():
    client = Client()
    with pytest.raises(ValueError, match="no such tile"), dashboard.Broadcast(Kept(), client, name="x"):
        raise ValueError("no such tile")
    assert client.sent[-1].state == "ended: no such tile"


@pytest.mark.parametrize(
    "fault", [OSError("the scheduler is gone"), RuntimeError("closed")], ids=["os", "runtime"]
)
def test_faults_of_sending_end_nothing(fault):
    with dashboard.Broadcast(Kept(), Client(fault), name="x") as news:
        news.start("infer", 5, 0)
    assert news.news().state == "finished"


def test_nothing_is_sent_while_the_connection_is_lost():
    lost = SimpleNamespace(status="connecting")
    with dashboard.Broadcast(Kept(), lost, name="x") as news:
        news.note("one")
