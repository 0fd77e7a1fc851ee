"""A whole run with kind = "kubernetes", through a made-up API whose pods are processes: the catalog is that of a run without it."""

import os
import subprocess
import sys
import time

import pyarrow.dataset
import pytest

from tests.unit.cluster.kinds.fake_kubernetes import problems_of, serve
from tests.unit.cluster.kinds.fake_pods import Pods

pytestmark = pytest.mark.slow

WITHIN_S = 850
"""A ceiling for slow machines."""

LOCAL = '[cluster]\nworkers = 2\ndashboard_address = "127.0.0.1:0"\n'

IN_PODS = """[cluster]
kind = "kubernetes"
workers = 2
wait_s = 800
[cluster.kubernetes]
image = "registry.example.org/galbatch:1"
memory = "2Gi"
env = {GALBATCH_STAND_IN = "1"}
"""

OUTPUTS = '[cutouts]\nstore = "store"\n[catalog]\npath = "catalog"\n'


@pytest.fixture
def cluster(tmp_path):
    folder = tmp_path / "pods"
    folder.mkdir()
    server = serve(Pods(folder))
    server.write_kubeconfig(tmp_path / "kubeconfig")
    yield server
    server.stop()


def started(write_run, folder, cluster, **environment):
    """A run whose outputs lie beside its config, as a process."""
    path = write_run(folder, passes=16)
    text = path.read_text()
    path.write_text(text[: text.index("[cluster]")] + cluster + OUTPUTS)
    environment = {
        name: value for name, value in os.environ.items() if name != "KUBERNETES_SERVICE_HOST"
    } | environment
    with open(folder / "output.txt", "w") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "galbatch", "run", str(path)],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def ended(process, folder):
    assert process.wait(WITHIN_S) == 0, (folder / "output.txt").read_text()


def rows(folder):
    table = pyarrow.dataset.dataset(folder / "catalog" / "dataset", partitioning=None).to_table()
    return table.sort_by([("_healpix_29", "ascending"), ("object_id", "ascending")])


def test_the_catalog_of_a_run_in_pods_of_which_one_is_lost(cluster, write_run, tmp_path):
    folder = tmp_path / "run"
    process = started(write_run, folder, IN_PODS, KUBECONFIG=str(tmp_path / "kubeconfig"))
    try:
        deadline = time.monotonic() + WITHIN_S
        while not list(folder.glob("catalog/dataset/**/*.parquet")):
            assert process.poll() is None, (folder / "output.txt").read_text()
            assert time.monotonic() < deadline, cluster.pods.said()
            time.sleep(0.1)
        if process.poll() is None and cluster.pods.workers:
            cluster.pods.lose("default-1")
        ended(process, folder)
    finally:
        process.kill()
        process.wait()
    # What the operator was asked for is right by its own schemas, and gone with the run.
    assert [one["kind"] for one in cluster.created] == ["DaskCluster"]
    assert [problems_of(one) for one in cluster.created] == [[]]
    assert cluster.pods.workers == {}
    assert cluster.pods.scheduler is None
    assert "Dask cluster galbatch-" in (folder / "output.txt").read_text()
    alone = tmp_path / "alone"
    ended(started(write_run, alone, LOCAL), alone)
    assert len(rows(folder)) > 100
    assert rows(folder).equals(rows(alone))
