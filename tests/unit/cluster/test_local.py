"""Worker processes on this machine's cores."""

import os

import pytest

from galbatch import cluster
from galbatch.config import ClusterConfig
from tests.unit.cluster.contract import Contract


class TestLocal(Contract):
    @pytest.fixture(scope="class")
    @classmethod
    def connected(cls, client):
        return ClusterConfig(workers=2), client

    def test_functions_run_in_other_processes_with_one_thread_each(self, connected):
        client = connected[1]
        assert os.getpid() not in client.run(os.getpid).values()
        assert set(cluster.Pool.of(client).threads.values()) == {1}
        environments = client.run(lambda: dict(os.environ)).values()
        assert {e["OMP_NUM_THREADS"] for e in environments} == {"1"}
        assert {e["MALLOC_TRIM_THRESHOLD_"] for e in environments} == {str(2**28)}
