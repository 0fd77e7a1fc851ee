"""Workers in pods: the objects that the operator is asked for, a run on a made-up API, and errors where something is missing."""

import json
from copy import deepcopy

import dask
import kr8s
import pytest

from galbatch import cluster, config
from galbatch.cluster.kinds import kubernetes, kubernetes_objects
from galbatch.config import ClusterConfig
from galbatch.errors import ClusterError, ConfigError
from tests.unit.cluster.contract import Contract
from tests.unit.cluster.kinds.fake_kubernetes import problems_of, serve

IMAGE = "registry.example.org/galbatch:1"

FULL = {
    "image": IMAGE,
    "memory": "24Gi",
    "cpus": 8,
    "cpu_workers": 3,
    "min_workers": 1,
    "service_account": "survey",
    "env": {"AWS_DEFAULT_REGION": "us-east-1", "OMP_NUM_THREADS": "2"},
    "secrets": ["object-store"],
    "volumes": {"/data": "survey", "/out": "results", "/scratch": "results"},
    "node_selector": {"pool": "gpu"},
}


def parsed(workers=2, wait_s=600, device="cpu", **section):
    return config.parse_strictly(
        ClusterConfig,
        {
            "kind": "kubernetes",
            "workers": workers,
            "wait_s": wait_s,
            "device": device,
            "kubernetes": {"image": IMAGE, **section},
        },
        "[cluster]",
    )


@pytest.fixture
def api(tmp_path, monkeypatch):
    """A made-up cluster of its own for a test, which is the current one."""
    server = serve()
    server.write_kubeconfig(tmp_path / "kubeconfig")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    # kr8s keeps connections for a process, whatever KUBECONFIG says later.
    monkeypatch.setattr(kr8s.Api, "_instances", {})
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(kubernetes, "POLL_S", 0.05)
    monkeypatch.setattr(kubernetes, "API_TIMEOUT_S", 600.0)
    yield server
    server.stop()


class TestKubernetes(Contract):
    @pytest.fixture(scope="class")
    @classmethod
    def connected(cls, tmp_path_factory):
        server = serve()
        path = tmp_path_factory.mktemp("kube") / "kubeconfig"
        server.write_kubeconfig(path)
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("KUBECONFIG", str(path))
            environment.setattr(kr8s.Api, "_instances", {})
            environment.setattr(kubernetes, "API_TIMEOUT_S", 600.0)
            asked = parsed()
            with cluster.connect(asked) as client:
                yield asked, client
        server.stop()


def test_a_run_asks_for_its_cluster_and_deletes_it(api):
    messages = []
    asked = parsed(workers=2, device="cuda", cpu_workers=1, min_workers=2, env={"A": "b"})
    with cluster.connect(asked, notify=messages.append) as client:
        client.wait_for_workers(3, timeout=600)
        pool = cluster.Pool.of(client)
        assert sorted(pool.threads.values()) == [1, 4, 4]
        assert len(pool.gpus) == 2
        assert client.dashboard_link.startswith("http://127.0.0.1:")
    assert [one["kind"] for one in api.created] == ["DaskCluster", "DaskWorkerGroup", "DaskAutoscaler"]
    name = api.created[0]["metadata"]["name"]
    assert api.created[2]["spec"] == {"cluster": name, "minimum": 2, "maximum": 2}
    assert api.deleted == [f"/apis/kubernetes.dask.org/v1/namespaces/galaxies/daskclusters/{name}"]
    assert messages[0] == f"Dask cluster {name} asked for in namespace galaxies"
    # The token of the account is in nothing that the cluster was told.
    assert "planted-token" not in json.dumps(api.created)


def test_credentials_of_the_run_are_in_nothing_that_kubernetes_is_told(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    options = config.KubernetesConfig(**FULL)
    made = [
        kubernetes_objects.dask_cluster("galbatch-1", options, device="cuda", n_workers=1, idle_s=1),
        kubernetes_objects.worker_group("galbatch-1", options, n_workers=1),
    ]
    assert "planted-secret" not in json.dumps(made)
    # The pods get them from the Secret that the section names.
    assert json.dumps(made).count('"secretRef": {"name": "object-store"}') == 3


def test_the_cluster_goes_also_when_the_run_fails(api):
    class BrokenError(Exception):
        pass

    with pytest.raises(BrokenError), cluster.connect(parsed()):
        raise BrokenError
    assert len(api.deleted) == 1


def test_other_namespaces_are_asked_for_by_name(api):
    api.refuses = True
    with (
        pytest.raises(ClusterError, match=r"refuses \(403\): DaskCluster is forbidden.*rights\.yaml"),
        cluster.connect(parsed(namespace="elsewhere")),
    ):
        pass
    assert api.created == []
    assert api.deleted == []


@pytest.mark.parametrize("section", [{"image": IMAGE}, FULL], ids=["least", "full"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_operators_own_schemas_accept_all_objects(section, device):
    options = config.KubernetesConfig(**section)
    objects = [
        kubernetes_objects.dask_cluster("galbatch-1", options, device=device, n_workers=4, idle_s=5400),
        kubernetes_objects.worker_group("galbatch-1", options, n_workers=2),
        kubernetes_objects.adaptive("galbatch-1", minimum=1, maximum=4),
    ]
    for one in objects:
        assert problems_of(one) == []
        # What JSON cannot hold would fail in Kubernetes' client.
        assert json.loads(json.dumps(one)) == one
    objects[0]["spec"]["worker"]["spec"]["containers"][0]["imagee"] = "typo"
    assert "imagee" in problems_of(objects[0])[0]


def test_pods_have_what_the_section_says():
    options = config.KubernetesConfig(**FULL)
    made = kubernetes_objects.dask_cluster("galbatch-1", options, device="cuda", n_workers=4, idle_s=5400.0)
    assert made["spec"]["idleTimeout"] == 5400
    assert made["spec"]["worker"]["replicas"] == 4
    pod = made["spec"]["worker"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == IMAGE
    assert container["resources"] == {
        "requests": {"cpu": "8", "memory": "24Gi"},
        "limits": {"memory": "24Gi", "nvidia.com/gpu": "1"},
    }
    assert container["args"][-4:] == ["--nthreads", "4", "--resources", "GPU=1"]
    assert container["envFrom"] == [{"secretRef": {"name": "object-store"}}]
    assert {one["name"]: one["value"] for one in container["env"]}["OMP_NUM_THREADS"] == "2"
    claims = {one["name"]: one["persistentVolumeClaim"]["claimName"] for one in pod["volumes"]}
    mounted = {one["mountPath"]: claims[one["name"]] for one in container["volumeMounts"]}
    assert mounted == FULL["volumes"]
    assert len(claims) == 2
    assert pod["serviceAccountName"] == "survey"
    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"
    scheduler = made["spec"]["scheduler"]["spec"]
    assert "nvidia.com/gpu" not in json.dumps(scheduler)
    assert "nodeSelector" not in scheduler
    group = kubernetes_objects.worker_group("galbatch-1", options, n_workers=3)
    (beside,) = group["spec"]["worker"]["spec"]["containers"]
    assert beside["resources"]["limits"] == {"memory": "4Gi"}
    assert "GPU=1" not in beside["args"]


def test_nannies_read_the_environment_of_the_pods_as_dask_does():
    (container,) = kubernetes_objects.workers(
        config.KubernetesConfig(image=IMAGE), device="cpu", n_workers=1
    )["spec"]["containers"]
    env = {one["name"]: one["value"] for one in container["env"]}
    found = deepcopy(dask.config.config)
    dask.config.update(found, dask.config.collect_env(env))
    assert dask.config.get("distributed.nanny.pre-spawn-environ", config=found) == {
        **dask.config.get("distributed.nanny.pre-spawn-environ"),
        "MALLOC_TRIM_THRESHOLD_": 2**28,
        "MALLOC_MMAP_THRESHOLD_": 2**28,
        "OMP_NUM_THREADS": 1,
    }


def test_without_the_operator_the_command_that_installs_it_is_told(api):
    api.has_operator = False
    with pytest.raises(ClusterError, match=r"has no kinds of kubernetes.dask.org/v1.*helm install"):
        cluster.require(parsed())


def test_missing_rights_are_listed(api):
    api.denied = {"create daskclusters", "list pods"}
    with pytest.raises(
        ClusterError, match=r"may not create daskclusters, list pods in namespace galaxies; deploy/kubernetes"
    ):
        cluster.require(parsed())
    api.denied = set()
    cluster.require(parsed())


def test_without_a_kubeconfig_it_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setattr(kr8s.Api, "_instances", {})
    with pytest.raises(ClusterError, match=r"no Kubernetes cluster is known here.*KUBECONFIG"):
        cluster.require(parsed())


def test_an_api_that_does_not_answer_is_told(api, monkeypatch):
    api.stop()
    with pytest.raises(ClusterError, match=r"API does not answer.*does kubectl get pods work here"):
        cluster.require(parsed())


def test_an_operator_that_does_nothing_is_told(api):
    api.acts = False
    with (
        pytest.raises(ClusterError, match=r"nothing has come of the DaskCluster galbatch-\w{8} after 0\.2 s"),
        cluster.connect(parsed(wait_s=0.2)),
    ):
        pass
    assert len(api.deleted) == 1


def test_an_image_that_cannot_be_pulled_is_told(api):
    waiting = {"reason": "ImagePullBackOff", "message": f"Back-off pulling image {IMAGE}"}
    api.scheduler_status = {"phase": "Pending", "containerStatuses": [{"state": {"waiting": waiting}}]}
    messages = []
    with (
        pytest.raises(
            ClusterError,
            match=r"not ready after 0\.2 s.*1 pod Pending \(ImagePullBackOff: Back-off pulling image",
        ),
        cluster.connect(parsed(wait_s=0.2), notify=messages.append),
    ):
        pass
    assert sum("ImagePullBackOff" in line for line in messages) == 1
    assert len(api.deleted) == 1


def test_workers_that_no_node_can_have_are_told(api):
    unschedulable = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/4 nodes are available: 4 Insufficient nvidia.com/gpu.",
    }
    api.worker_pods = [
        {"metadata": {"name": f"w{number}"}, "status": {"phase": "Pending", "conditions": [unschedulable]}}
        for number in range(2)
    ]
    api.start_workers = lambda worker, group: None
    with (
        pytest.raises(
            ClusterError,
            match=r"no workers are there, 2 asked for, after 2 s.*2 pods Pending \(Unschedulable: 0/4 nodes.*"
            "kubectl describe pods -n galaxies",
        ),
        cluster.connect(parsed(wait_s=2)),
    ):
        pass


def test_pods_are_counted_by_what_they_wait_for():
    assert kubernetes_objects.pod_states([]) == "no pods"
    running = {"status": {"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}}
    crash = {"waiting": {"reason": "CrashLoopBackOff"}}
    states = [running, {"status": {"phase": "Running", "containerStatuses": [{"state": crash}]}}, running]
    assert kubernetes_objects.pod_states(states) == "2 pods Running; 1 pod Running (CrashLoopBackOff)"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kind": "kubernetes"}, "starts pods of an image: name it"),
        (
            {"kubernetes": {"image": IMAGE}},
            r"\[cluster.kubernetes\] is of kind = .kubernetes.; this kind is .local.",
        ),
        ({"kind": "kubernetes", "kubernetes": {"image": IMAGE, "cpu_workers": 2}}, 'device = "cuda"'),
        (
            {"kind": "kubernetes", "workers": 2, "kubernetes": {"image": IMAGE, "min_workers": 3}},
            "min_workers = 3 is more than workers = 2",
        ),
        ({"kind": "kubernetes", "kubernetes": {"image": IMAGE, "memory": "16 GB"}}, "memory"),
        ({"kind": "kubernetes", "kubernetes": {"image": IMAGE, "namespace": "../x"}}, "namespace"),
        ({"kind": "kubernetes", "kubernetes": {"image": IMAGE, "volumes": {"data": "x"}}}, "volumes"),
        ({"kind": "kubernetes", "kubernetes": {"image": IMAGE, "env": {"A=B": "x"}}}, "env"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        config.parse_strictly(ClusterConfig, keys, "[cluster]")


def test_a_plan_counts_the_pods_without_asking_anybody():
    assert cluster.kind_of(parsed(workers=5)).workers_planned() == (5, "5 workers in pods")
    assert cluster.kind_of(parsed(workers=1, device="cuda")).workers_planned() == (1, "1 GPU worker in pods")
