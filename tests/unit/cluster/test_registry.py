"""Kinds of cluster: known by name in the config and in the registry."""

from typing import get_args

import pytest

from galbatch import cluster, config
from galbatch.config import ClusterConfig
from galbatch.errors import ClusterError, ConfigError


def test_an_unknown_kind_fails_by_name():
    unknown = ClusterConfig().model_copy(update={"kind": "tent"})
    with pytest.raises(ClusterError, match=f"'tent': not known; known are {', '.join(cluster.KINDS)}"):
        cluster.require(unknown)
    with cluster.on_demand(unknown) as workers, pytest.raises(ClusterError, match="'tent': not known"):
        _ = workers.client


def test_the_kinds_of_the_config_are_those_of_the_registry():
    assert get_args(ClusterConfig.model_fields["kind"].annotation) == tuple(cluster.KINDS)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kind": "scheduler"}, "name its address"),
        ({"scheduler": "tcp://a:1"}, "leave one of them out"),
        (
            {"device": "cuda"},
            "kind = 'local' infers on the cpu; kind = 'local-cuda' on the GPUs of this machine",
        ),
        ({"kind": "scheduler", "scheduler": "tcp://a:1", "device": "gpu"}, "'cpu' or 'cuda'"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        config.parse_strictly(ClusterConfig, keys, "[cluster]")


@pytest.mark.parametrize(
    ("keys", "n_workers", "called"),
    [
        ({"workers": 1}, 1, "1 worker"),
        ({"workers": 8}, 8, "8 workers"),
        ({"kind": "local-cuda"}, 2, "2 GPU workers"),
        ({"kind": "local-cuda", "workers": 1}, 1, "1 GPU worker"),
        ({"kind": "scheduler", "scheduler": "tcp://a:1"}, 1, "1 worker of tcp://a:1"),
        ({"kind": "slurm", "slurm": {"cores": 4, "memory": "8 GiB"}}, 4, "4 workers in 1 SLURM job"),
        ({"kind": "scheduler", "scheduler": "tcp://a:1", "workers": 4, "device": "cuda"}, 4, "4 GPU workers of tcp://a:1"),
    ],
)  # fmt: skip
def test_a_plan_names_the_workers_it_counts_on(gpus, keys, n_workers, called):
    assert cluster.kind_of(ClusterConfig(**keys)).workers_planned() == (n_workers, called)
