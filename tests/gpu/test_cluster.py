"""Workers on the GPUs of this machine, through dask-cuda; skips where there are none."""

import os

import numpy as np
import pandas as pd
import pytest

from galbatch import catalog, cluster, config, execution, models
from galbatch.cluster.kinds import local_cuda
from galbatch.config import ClusterConfig
from galbatch.errors import ClusterError

LOCAL_CUDA = ClusterConfig(kind="local-cuda", dashboard_address="127.0.0.1:0")


def missing():
    """What this machine lacks; the tests are skipped before a fixture simulates a survey for them."""
    try:
        cluster.require(LOCAL_CUDA)
    except ClusterError as error:
        return str(error)
    return ""


MISSING = missing()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(280),
    pytest.mark.skipif(bool(MISSING), reason=f"needs a CUDA GPU and dask-cuda: {MISSING}"),
]


@pytest.fixture(scope="module")
def started():
    with cluster.connect(LOCAL_CUDA) as client:
        yield client


def test_each_gpu_has_one_worker_that_computes_on_it(started):
    pool = cluster.Pool.of(started)
    identities = started.run(models.gpu_identity, workers=pool.able("cuda"))
    assert len(set(identities.values())) == len(identities) == len(local_cuda.visible_gpus())
    assert pool.able("cuda") == sorted(identities)
    assert {pool.threads[one] for one in identities} == {2}
    # Those that cut see no GPU.
    cutting = sorted(set(pool.threads) - set(identities))
    assert len(cutting) == local_cuda.cutting_workers(len(identities))
    assert set(started.run(os.environ.get, "CUDA_VISIBLE_DEVICES", workers=cutting).values()) == {""}


def test_more_workers_than_gpus_are_refused(started):
    too_many = LOCAL_CUDA.model_copy(update={"workers": len(local_cuda.visible_gpus()) + 1})
    with pytest.raises(ClusterError, match="workers are asked for"):
        cluster.require(too_many)


def test_a_run_on_gpus_gives_what_the_cpu_gives(started, client, write_run, tmp_path):
    """Same draws, so equal to float32 rounding: far less than a posterior standard deviation."""
    posterior = '8\nengine = "torchscript"\nprecision = "float32"'
    frames = {}
    for kind, workers in (("local", client), ("local-cuda", started)):
        parsed = config.read_config(write_run(tmp_path / kind, passes=posterior)).with_cluster(
            kind=kind, workers=1
        )
        result = execution.execute(parsed, execution.prepare(parsed), workers)
        assert result.failed == {}
        assert result.complete
        frames[kind] = catalog.read_catalog(parsed.catalog.path).to_pandas().sort_values("object_id")
    here, there = frames.values()
    pd.testing.assert_series_equal(here["gampen_passes"], there["gampen_passes"], check_index=False)
    difference = (here["gampen_bt_q500"].to_numpy() - there["gampen_bt_q500"].to_numpy()) / here[
        "gampen_bt_std"
    ]
    assert np.nanmax(np.abs(difference)) < 0.01
