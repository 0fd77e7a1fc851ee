"""A new kind of cluster is one class and one entry in the registry: a run, its plan and its checks follow."""

from contextlib import contextmanager

import pyarrow.parquet as pq
import pytest
from distributed import Client, LocalCluster

from galbatch import catalog, cluster, config, execution
from galbatch.demo import N_PARTITIONS, write_run_toml
from galbatch.errors import ClusterError


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
def toys(monkeypatch, survey, tmp_path):
    """The run.toml that `galbatch demo` writes, on a few objects of a survey like the demo's, to be run on toys."""
    monkeypatch.setitem(cluster.KINDS, Toy.name, Toy)
    monkeypatch.setattr(Toy, "checked", ())
    (tmp_path / "survey").mkdir()
    (tmp_path / "survey" / "deepCoadd-results").symlink_to(survey / "deepCoadd-results")
    pq.write_table(
        pq.read_table(survey / "objects.parquet").slice(0, 20), tmp_path / "survey" / "objects.parquet"
    )
    parsed = config.read_config(write_run_toml(tmp_path, n_objects=20, workers=1))
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
    assert len(plan.partitions) >= N_PARTITIONS
    passes = catalog.read_catalog(toys.catalog.path, columns=["gampen_passes", "sfnet_passes"])
    assert len(passes) == 20
    for name in passes.column_names:
        found = set(passes.column(name).to_pylist())
        assert found <= {0, *range(32, 401)}
        assert min(found - {0}) < 400, (
            "every object took the largest number of passes, so they were not adaptive"
        )


def test_its_number_of_workers_stands_in_the_plan(toys):
    plan = execution.prepare(toys)
    rows = dict(execution.measure_rates(toys, plan).rows(plan, toys))
    assert rows["time to infer"].endswith("with 3 toys")


def test_what_it_misses_is_said_before_anything_starts(toys, monkeypatch):
    monkeypatch.setattr(Toy, "problem", "no toys here")
    with pytest.raises(ClusterError, match="no toys here"):
        cluster.require(toys.cluster)
