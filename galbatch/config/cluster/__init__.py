"""The [cluster] section, and a section within it for each kind of cluster that has keys of its own."""

from galbatch.config.cluster.kubernetes import KubernetesConfig
from galbatch.config.cluster.section import ClusterConfig
from galbatch.config.cluster.slurm import SlurmConfig

__all__ = ["ClusterConfig", "KubernetesConfig", "SlurmConfig"]
