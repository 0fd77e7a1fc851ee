"""A new kind of cluster is one class and one entry in the registry: a run, its plan and its checks follow."""

from contextlib import contextmanager

import pyarrow.parquet as pq
import pytest
from distributed import Client, LocalCluster

from galbatch import catalog, cluster, config, execution
from galbatch.errors import ClusterError

pytestmark = pytest.mark.timeout(280)


class Toy(cluster.ClusterKind):
    """One worker in this process, which may be asked to refuse the run."""

    name = "toy"
    checked = ()
    problem = ""

    def workers_planned(self):
        return 3, "3 toys"

    def require(self):
        if self.problem:
            raise ClusterError(self.problem)

    @contextmanager
    def connect(self, notify):
        notify("toys are started")
        with (
            LocalCluster(
                n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
            ) as running,
            Client(running) as client,
        ):
            yield client

    def check_workers(self, client, needs, notify):
        Toy.checked = (*Toy.checked, needs)


@pytest.fixture
def toys(monkeypatch, write_run, survey, tmp_path):
    """The demo's networks on a few objects, to be run on toys."""
    monkeypatch.setitem(cluster.KINDS, Toy.name, Toy)
    monkeypatch.setattr(Toy, "checked", ())
    few = tmp_path / "objects.parquet"
    pq.write_table(pq.read_table(survey / "objects.parquet").slice(0, 20), few)
    parsed = config.read_config(write_run(tmp_path, max_objects=12, passes=4, objects=few))
    return parsed.model_copy(update={"cluster": parsed.cluster.model_copy(update={"kind": Toy.name})})


def test_a_run_is_planned_checked_and_done_on_it(toys):
    plan, messages = execution.prepare(toys), []
    with cluster.on_demand(toys.cluster, notify=messages.append) as workers:
        result = execution.execute(toys, plan, workers.client)
    assert result.complete
    assert messages == ["toys are started"]
    (needs,) = Toy.checked
    assert needs.infers
    assert needs.written == [toys.cutouts.store, toys.catalog.path]
    assert not catalog.verify(toys.catalog.path)
    assert len(catalog.read_catalog(toys.catalog.path)) == 20


def test_its_number_of_workers_stands_in_the_plan(toys):
    plan = execution.prepare(toys)
    rows = dict(execution.measure_rates(toys, plan).rows(plan, toys))
    assert rows["time to infer"].endswith("with 3 toys")


def test_what_it_misses_is_told_before_anything_starts(toys, monkeypatch):
    monkeypatch.setattr(Toy, "problem", "no toys here")
    with pytest.raises(ClusterError, match="no toys here"):
        cluster.require(toys.cluster)
