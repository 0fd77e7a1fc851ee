"""Workers of a scheduler that runs already."""

from contextlib import contextmanager

import pytest
from distributed import LocalCluster

from galbatch import cluster, storage
from galbatch.cluster.kinds import scheduler as joined
from galbatch.config import ClusterConfig
from galbatch.errors import ClusterError
from tests.unit.cluster.contract import Contract


@contextmanager
def running_scheduler(**changes):
    """A scheduler with workers in this process that listens on the loopback, and its address."""
    options = {"n_workers": 2, "threads_per_worker": 1} | changes
    with LocalCluster(
        processes=False,
        protocol="tcp",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=50,
        **options,
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


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("tcp://127.0.0.1:1", "no Dask scheduler answers there"),
        ("tcp://127.0.0.1", "no Dask scheduler answers there"),
        ("nonsense", "no Dask scheduler answers there"),
        ("http://127.0.0.1:8787", "no Dask scheduler answers there"),
    ],
)
def test_an_address_where_nothing_answers_is_told(address, message, monkeypatch):
    monkeypatch.setattr(joined, "CONNECT_S", 0.5)
    wrong = ClusterConfig(kind="scheduler", scheduler=address)
    with pytest.raises(ClusterError, match=f"{address}: {message}"), cluster.connect(wrong):
        pass


def test_workers_are_waited_for_so_long_and_no_longer():
    with running_scheduler(n_workers=0) as running:
        asked = ClusterConfig(kind="scheduler", scheduler=running.scheduler_address, wait_s=0.3)
        messages = []
        with (
            pytest.raises(
                ClusterError, match=r"no workers are there, 1 asked for, after 0.3 s.*dask worker tcp://"
            ),
            cluster.connect(asked, notify=messages.append),
        ):
            pass
        assert messages == [f"{asked.scheduler}: no workers are there; waiting up to 0.3 s for 1"]
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
    joined.require_alike(Versions(without_torch, a=near), "tcp://s")


def test_versions_that_matter_are_told_as_a_table():
    old = VERSIONS | {"torch": "2.6.0", "python": "3.12.1.final.0"}
    client = Versions(VERSIONS | {"galbatch": None}, a=old, b=VERSIONS, c=old, d=old, e=old)
    with pytest.raises(ClusterError) as refused:
        joined.require_alike(client, "tcp://s")
    assert str(refused.value).splitlines() == [
        "tcp://s: not all is like here: install the same on the scheduler and its workers",
        "package   here   there    on",
        "galbatch  0.1.0  missing  scheduler",
        "python    3.11   3.12     a, c, d and more",
        "torch     2.13   2.6      a, c, d and more",
    ]
    assert set(joined.refused_workers(client)) == {"a", "c", "d", "e"}
    assert joined.refused_workers(client)["a"] == "python 3.12 there, 3.11 here, torch 2.6 there, 2.13 here"
