"""The kind "kubernetes": a scheduler and workers in pods, which the operator of dask-kubernetes starts and this run ends."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distributed import Client

from galbatch.cluster.base import Device, Notify, count_of
from galbatch.cluster.kinds.kubernetes_objects import (
    API,
    adaptive,
    dask_cluster,
    is_ready,
    pod_states,
    worker_group,
)
from galbatch.cluster.kinds.scheduler import RunningScheduler, require_alike
from galbatch.config import KubernetesConfig
from galbatch.core.process import require
from galbatch.errors import ClusterError

__all__ = ["Kubernetes"]

WHERE = "[cluster] kind = 'kubernetes'"

INSTALL_OPERATOR = "helm install --repo https://helm.dask.org --create-namespace -n dask-operator --generate-name dask-kubernetes-operator"

RIGHTS = (
    ("kubernetes.dask.org", "daskclusters", "create"),
    ("kubernetes.dask.org", "daskclusters", "delete"),
    ("kubernetes.dask.org", "daskworkergroups", "create"),
    ("kubernetes.dask.org", "daskautoscalers", "create"),
    ("", "pods", "list"),
    ("", "services", "get"),
)
"""API group, resource and verb of what a run does; deploy/kubernetes/rights.yaml grants it."""

API_TIMEOUT_S = 30.0
"""The longest time for Kubernetes' API to answer, in seconds; without a limit a firewall that drops packets would hang the run."""

POLL_S = 1.0

IDLE_S = 1800.0
"""The cluster of a run that was killed ends so long after its last task, in seconds, and after the longest pause of a run."""


class Kubernetes(RunningScheduler):
    """Pods of one run: those that infer, one worker each, and with GPUs others that cut for them.

    The scheduler is asked and checked as one that ran already; only its start and its end are this run's.
    """

    name = "kubernetes"
    only_for_runs = True

    @property
    def options(self) -> KubernetesConfig:
        """The ``[cluster.kubernetes]`` section."""
        section = self.config.kubernetes
        assert section is not None, "parsing refuses this kind without its section"
        return section

    @property
    def n_workers(self) -> int:
        """The largest number of workers that infer."""
        return self.config.workers or 1

    @property
    def address(self) -> str:
        return "Kubernetes"

    def workers_planned(self) -> tuple[int, str]:
        noun = "GPU worker" if self.device == "cuda" else "worker"
        return self.n_workers, f"{count_of(self.n_workers, noun)} in pods"

    def require(self) -> None:
        with told_errors():
            api = _api(self.options.namespace)
            _require_operator(api)
            _require_rights(api)

    @contextmanager
    def connect(self, notify: Notify) -> Iterator[Client]:
        name = f"galbatch-{uuid.uuid4().hex[:8]}"
        with contextlib.ExitStack() as stack:
            with told_errors():
                namespace = _api(self.options.namespace).namespace
                self._create(name, namespace, stack)
                notify(f"Dask cluster {name} asked for in namespace {namespace}")
                _wait_for_scheduler(name, namespace, self.config.wait_s, notify=notify)
                joined = stack.enter_context(_joined(name, namespace))
            client = stack.enter_context(Client(joined))
            n_first = max(1, self.options.min_workers or 0) if self._is_adaptive else self.n_workers
            self._wait_for(client, "cpu", n_workers=n_first, notify=notify)
            require_alike(client, name)
            yield client

    @property
    def _is_adaptive(self) -> bool:
        return self.options.min_workers is not None

    def _create(self, name: str, namespace: str, stack: contextlib.ExitStack) -> None:
        """Create the objects of the run; the cluster is deleted with `stack`, and with it all that belongs to it."""
        n_first = self.n_workers if self.options.min_workers is None else max(1, self.options.min_workers)
        wanted = [
            dask_cluster(
                name,
                self.options,
                device=self.device,
                n_workers=n_first,
                idle_s=self.config.pause_limit + IDLE_S,
            )
        ]
        if self.options.cpu_workers:
            wanted.append(worker_group(name, self.options, n_workers=self.options.cpu_workers))
        if self.options.min_workers is not None:
            wanted.append(adaptive(name, minimum=self.options.min_workers, maximum=self.n_workers))
        for number, values in enumerate(wanted):
            made = _object(values, namespace)
            made.create()
            if number == 0:
                # The operator owns what follows from the cluster, and Kubernetes deletes it with its owner.
                stack.callback(_delete, made)

    def missing_workers_hint(self, client: Client, device: Device) -> str:
        cluster: Any = client.cluster
        with told_errors():
            states = _pods(cluster.name, cluster.namespace, "worker")
        return f"{states}; see kubectl describe pods -n {cluster.namespace} -l dask.org/cluster-name={cluster.name}"

    def how_to_start(self, device: Device) -> str:
        return ""


@contextmanager
def told_errors() -> Iterator[None]:
    """Make errors of Kubernetes' API, and of its absence, errors of the cluster that say what to do.

    Raises
    ------
    ClusterError
    """
    kr8s, httpx = _package("kr8s"), _package("httpx")
    try:
        yield
    except kr8s.ServerError as error:
        code = error.response.status_code if error.response is not None else 0
        remedy = (
            "ask for the rights of deploy/kubernetes/rights.yaml" if code in (401, 403) else "see its log"
        )
        raise ClusterError(f"{WHERE}: Kubernetes refuses ({code}): {error}; {remedy}") from None
    except kr8s.NotFoundError as error:
        raise ClusterError(f"{WHERE}: something was deleted that the run had asked for: {error}") from None
    except (kr8s.APITimeoutError, httpx.HTTPError, OSError) as error:
        raise ClusterError(
            f"{WHERE}: Kubernetes' API does not answer ({type(error).__name__}: {error}); does kubectl get pods work here?"
        ) from None


def _package(module: str) -> Any:
    """Return a module of dask-kubernetes, or of a package that comes with it."""
    return require("dask_kubernetes", module=module, where=WHERE)


def _api(namespace: str) -> Any:
    """Return a connection to Kubernetes' API.

    Raises
    ------
    ClusterError
        No cluster is known here.
    """
    try:
        # kr8s takes None for the context's namespace.
        api = _package("kr8s").api(namespace=namespace or None)
    except (ValueError, KeyError, IndexError) as error:
        # What kr8s says of a missing or broken kubeconfig, such as "Unable to find valid credentials".
        raise ClusterError(
            f"{WHERE}: no Kubernetes cluster is known here ({error}); set KUBECONFIG or write ~/.kube/config, or run in a pod with a "
            "service account; does kubectl get pods work here?"
        ) from None
    api.timeout = API_TIMEOUT_S
    return api


def _object(values: dict[str, Any], namespace: str | None = None, *, namespaced: bool = True) -> Any:
    """Return an object of Kubernetes that is not created yet."""
    objects = _package("kr8s.objects")
    kind = objects.new_class(values["kind"], values["apiVersion"], namespaced=namespaced)
    return kind(values, namespace=namespace) if namespaced else kind(values)


def _require_operator(api: Any) -> None:
    """Raise ClusterError if Kubernetes does not know the operator's kinds of objects."""
    if API not in set(api.api_versions()):
        raise ClusterError(
            f"{WHERE}: this Kubernetes cluster has no kinds of {API}: the operator of dask-kubernetes is not installed; its "
            f"administrator may install it: {INSTALL_OPERATOR}"
        )


def _require_rights(api: Any) -> None:
    """Raise ClusterError if this account may not do what a run does."""
    refused = []
    for group, resource, verb in RIGHTS:
        asked = {"namespace": api.namespace, "group": group, "resource": resource, "verb": verb}
        review = _object(
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "metadata": {},
                "spec": {"resourceAttributes": asked},
            },
            namespaced=False,
        )
        review.create()
        if not review.raw.get("status", {}).get("allowed"):
            refused.append(f"{verb} {resource}")
    if refused:
        raise ClusterError(
            f"{WHERE}: this account may not {', '.join(refused)} in namespace {api.namespace}; deploy/kubernetes/rights.yaml has the "
            "rights of a run"
        )


def _pods(name: str, namespace: str, component: str) -> str:
    """Return the states of the pods of a cluster's component, scheduler or worker."""
    return pod_states(_list_pods(name, namespace, component))


def _list_pods(name: str, namespace: str, component: str) -> list[dict[str, Any]]:
    labels = {"dask.org/cluster-name": name, "dask.org/component": component}
    pods = _package("kr8s.objects").Pod.list(namespace=namespace, label_selector=labels)
    return [pod.to_dict() for pod in pods]


def _wait_for_scheduler(name: str, namespace: str, wait_s: float, *, notify: Notify) -> None:
    """Wait until the scheduler's pod is ready.

    Raises
    ------
    ClusterError
        It is not ready after `wait_s` seconds; says what the pod waits for, or that the operator does nothing.
    """
    deadline, last = time.monotonic() + wait_s, ""
    while not any(map(is_ready, pods := _list_pods(name, namespace, "scheduler"))):
        if (states := pod_states(pods)) != last:
            notify(f"scheduler of {name}: {states}")
            last = states
        if time.monotonic() > deadline:
            if pods:
                raise ClusterError(
                    f"{WHERE}: the scheduler of {name} is not ready after {wait_s:g} s ([cluster] wait_s): {states}"
                )
            raise ClusterError(
                f"{WHERE}: nothing has come of the DaskCluster {name} after {wait_s:g} s ([cluster] wait_s): does the operator run? "
                "See kubectl get pods -A -l app.kubernetes.io/name=dask-kubernetes-operator"
            )
        time.sleep(POLL_S)


@contextmanager
def _joined(name: str, namespace: str) -> Iterator[Any]:
    """Yield the connection of dask-kubernetes to a cluster whose scheduler is ready; outside Kubernetes its port is forwarded."""
    operator = _package("dask_kubernetes.operator")
    joined = operator.KubeCluster.from_name(
        name,
        namespace=namespace,
        quiet=True,
        # Inside, the service's name is known; outside, Dask would look for it for 10 s.
        port_forward_cluster_ip="KUBERNETES_SERVICE_HOST" not in os.environ,
    )
    try:
        yield joined
    finally:
        joined.close()


def _delete(made: Any) -> None:
    """Delete an object, whether it is there still or not."""
    kr8s = _package("kr8s")
    with told_errors(), contextlib.suppress(kr8s.NotFoundError):
        made.delete()
