"""The objects that the kind "kubernetes" asks the operator of dask-kubernetes for, and what pods say of themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from galbatch.cluster.base import Device
from galbatch.cluster.pool import GPU
from galbatch.config import KubernetesConfig

__all__ = ["API", "adaptive", "dask_cluster", "is_ready", "pod_states", "worker_group"]

API = "kubernetes.dask.org/v1"

GPU_OF_NODE = "nvidia.com/gpu"
"""The resource under which NVIDIA's device plugin offers the GPUs of a node, and the taint that keeps other pods off these nodes."""

SCHEDULER_MEMORY = "4Gi"
"""Memory of the scheduler's pod: the queue holds a few tasks a worker, and 512 workers take 2 GB of it."""

SCHEDULER_ENV = {"DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH": "10"}
"""Dask keeps the last 1000 messages of each connection for its developers, 2 GB where 512 workers join."""

KEPT_BY_MALLOC = 2**28

WORKER_ENV = {
    "OMP_NUM_THREADS": "1",
    "DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON": repr(
        {
            "MALLOC_TRIM_THRESHOLD_": KEPT_BY_MALLOC,
            "MALLOC_MMAP_THRESHOLD_": KEPT_BY_MALLOC,
            "OMP_NUM_THREADS": 1,
        }
    ),
}
"""Nannies start workers that keep the freed memory of a pass for the next one, as `local.kept_by_malloc` says."""


def dask_cluster(
    name: str, options: KubernetesConfig, *, device: Device, n_workers: int, idle_s: float
) -> dict[str, Any]:
    """Return the DaskCluster of a run: a scheduler, and the workers that infer.

    Parameters
    ----------
    name : str
        Of the cluster; its pods, services and worker groups begin with it.
    options : KubernetesConfig
        The ``[cluster.kubernetes]`` section.
    device : "cpu" or "cuda"
        With cuda each worker has a GPU.
    n_workers : int
        Number of workers at first.
    idle_s : float
        The operator ends the cluster when it was idle for this time, in seconds, as its run is dead then.
    """
    scheduler = {
        "name": "scheduler",
        "args": ["dask", "scheduler", "--host", "0.0.0.0"],
        "resources": resources(cpus=1, memory=SCHEDULER_MEMORY),
        "ports": [
            {"name": "tcp-comm", "containerPort": 8786, "protocol": "TCP"},
            {"name": "http-dashboard", "containerPort": 8787, "protocol": "TCP"},
        ],
        "readinessProbe": {"httpGet": {"port": "http-dashboard", "path": "/health"}, "periodSeconds": 2},
        "livenessProbe": {
            "httpGet": {"port": "http-dashboard", "path": "/health"},
            "initialDelaySeconds": 60,
            "periodSeconds": 20,
            "timeoutSeconds": 30,
        },
    }
    return {
        "apiVersion": API,
        "kind": "DaskCluster",
        "metadata": {"name": name},
        "spec": {
            "idleTimeout": round(idle_s),
            "worker": workers(options, device=device, n_workers=n_workers),
            "scheduler": {"spec": pod(scheduler, SCHEDULER_ENV, options), "service": service(name)},
        },
    }


def worker_group(cluster_name: str, options: KubernetesConfig, *, n_workers: int) -> dict[str, Any]:
    """Return the DaskWorkerGroup of workers without a GPU, which cut for those that have one."""
    name = f"{cluster_name}-cpu"
    return {
        "apiVersion": API,
        "kind": "DaskWorkerGroup",
        "metadata": {"name": name, "labels": {"dask.org/cluster-name": cluster_name}},
        "spec": {
            "cluster": cluster_name,
            "worker": workers(options, device="cpu", n_workers=n_workers, beside=True),
        },
    }


def adaptive(cluster_name: str, *, minimum: int, maximum: int) -> dict[str, Any]:
    """Return the DaskAutoscaler that keeps between `minimum` and `maximum` of the workers that infer."""
    return {
        "apiVersion": API,
        "kind": "DaskAutoscaler",
        "metadata": {"name": cluster_name, "labels": {"dask.org/cluster-name": cluster_name}},
        "spec": {"cluster": cluster_name, "minimum": minimum, "maximum": maximum},
    }


def workers(
    options: KubernetesConfig, *, device: Device, n_workers: int, beside: bool = False
) -> dict[str, Any]:
    """Return the worker part of a cluster or group; `beside` takes the memory of workers beside those with GPUs."""
    memory = options.cpu_memory if beside else options.memory
    # The limit of memory is the pod's: Dask's own would pause workers that hold no data of its kind. One worker a pod: the operator ends a worker by the name of its pod.
    if device == "cuda":
        threads = max(2, min(4, options.cpus))
        asked = resources(cpus=options.cpus, memory=memory, gpus=1)
        command = ["--nthreads", str(threads), "--resources", f"{GPU}=1"]
    else:
        asked, command = resources(cpus=1, memory=memory), ["--nthreads", "1"]
    container = {
        "name": "worker",
        "args": [
            "dask", "worker", "--name", "$(DASK_WORKER_NAME)", "--dashboard-address", "8788",
            "--memory-limit", "0", *command,
        ],
        "resources": asked,
        "ports": [{"name": "http-dashboard", "containerPort": 8788, "protocol": "TCP"}],
    }  # fmt: skip
    spec = pod(container, WORKER_ENV, options)
    if options.node_selector:
        spec["nodeSelector"] = dict(options.node_selector)
    if device == "cuda":
        spec["tolerations"] = [{"key": GPU_OF_NODE, "operator": "Exists", "effect": "NoSchedule"}]
    return {"replicas": n_workers, "spec": spec}


def resources(*, cpus: int, memory: str, gpus: int = 0) -> dict[str, Any]:
    """Return what a container asks for and is limited to."""
    # Processors are no limit: a worker that prefetches may use what is idle. Memory is one, so that Dask sees it, and GPUs
    # can only be limits.
    limits = {"memory": memory, **({GPU_OF_NODE: str(gpus)} if gpus else {})}
    return {"requests": {"cpu": str(cpus), "memory": memory}, "limits": limits}


def pod(container: dict[str, Any], env: Mapping[str, str], options: KubernetesConfig) -> dict[str, Any]:
    """Return the spec of a pod with one container, and what all pods of the section have."""
    claims = {claim: f"volume-{number}" for number, claim in enumerate(sorted(set(options.volumes.values())))}
    container = container | {
        "image": options.image,
        # The user's environment goes before ours.
        "env": [{"name": name, "value": value} for name, value in ({**env, **options.env}).items()],
    }
    if options.secrets:
        container["envFrom"] = [{"secretRef": {"name": name}} for name in options.secrets]
    spec: dict[str, Any] = {"containers": [container]}
    if claims:
        container["volumeMounts"] = [
            {"name": claims[claim], "mountPath": path} for path, claim in options.volumes.items()
        ]
        spec["volumes"] = [
            {"name": name, "persistentVolumeClaim": {"claimName": claim}} for claim, name in claims.items()
        ]
    if options.service_account:
        spec["serviceAccountName"] = options.service_account
    return spec


def service(cluster_name: str) -> dict[str, Any]:
    """Return the service of the scheduler, which only the cluster's own network reaches."""
    return {
        "type": "ClusterIP",
        "selector": {"dask.org/cluster-name": cluster_name, "dask.org/component": "scheduler"},
        "ports": [
            {"name": "tcp-comm", "protocol": "TCP", "port": 8786, "targetPort": "tcp-comm"},
            {"name": "http-dashboard", "protocol": "TCP", "port": 8787, "targetPort": "http-dashboard"},
        ],
    }


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Return whether a pod runs and has passed its readiness probe."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def pod_states(pods: Iterable[Mapping[str, Any]]) -> str:
    """Return what pods wait for, each kind of waiting once with the number of pods; "no pods" if there are none.

    Parameters
    ----------
    pods : iterable of mapping
        Pods as Kubernetes' API gives them.
    """
    found: dict[str, int] = {}
    for one in pods:
        state = pod_state(one.get("status") or {})
        found[state] = found.get(state, 0) + 1
    counted = [f"{n} pod{'s' if n > 1 else ''} {state}" for state, n in sorted(found.items())]
    return "; ".join(counted) or "no pods"


def pod_state(status: Mapping[str, Any]) -> str:
    """Return the phase of a pod, and the reason why it does not run: of its containers, or of the node that it has not got."""
    phase = str(status.get("phase", "Unknown"))
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason"):
            return _with_message(phase, waiting)
    for condition in status.get("conditions") or ():
        if condition.get("status") == "False" and condition.get("reason") in (
            "Unschedulable",
            "SchedulerError",
        ):
            return _with_message(phase, condition)
    return phase


def _with_message(phase: str, told: Mapping[str, Any]) -> str:
    message = f": {told['message']}" if told.get("message") else ""
    return f"{phase} ({told['reason']}{message})"
