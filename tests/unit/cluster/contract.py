"""The contract of all kinds of cluster: what holds for workers of any kind."""

import time

import psutil
import pytest
from distributed import get_worker

from galbatch import cluster
from galbatch.errors import TileError


def name_of_worker(_):
    time.sleep(0.01)  # long enough that one worker alone is not done before the other is asked
    return get_worker().address


def fail(number):
    raise TileError(f"tile {number}")


def listening():
    """Return the addresses at which this process and those below it listen for connections."""
    this = psutil.Process()
    processes = [this, *this.children(recursive=True)]
    found = [one for process in processes for one in process.net_connections("inet")]
    return {one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN}


class Contract:
    """What holds for workers of any kind: subclasses give `connected`, the config and a client of two workers."""

    device, n_workers = "cpu", 2

    def test_two_workers_come_and_both_work(self, connected):
        parsed, client = connected
        pool = cluster.Pool.of(client)
        assert len(pool.threads) == self.n_workers
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
        assert pool.max_submitted == sum(pool.threads.values()) + self.n_workers

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
        assert len(cluster.Pool.of(client).threads) == self.n_workers

    def test_nobody_is_given_up(self, connected):
        parsed, client = connected
        monitor = cluster.WorkerMonitor(client, parsed, print)
        monitor.look()
        assert monitor.given_up(self.device) is None
        assert monitor.is_connected
