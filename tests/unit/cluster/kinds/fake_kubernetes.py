"""A made-up Kubernetes API on the loopback with the operator of dask-kubernetes.

Workers are those of a LocalCluster in this process, or, with `pods`, processes of their own.
"""

from __future__ import annotations

import json
import threading
from copy import deepcopy
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import dask_kubernetes
import yaml
from distributed import LocalCluster
from distributed.worker import Worker
from jsonschema import Draft202012Validator

from tests.unit.cluster.kinds.fake_pods import Pods

OPERATOR = "kubernetes.dask.org/v1"

CRDS = Path(dask_kubernetes.__file__).parent / "operator/deployment/helm/dask-kubernetes-operator/crds"


@cache
def schema_of(kind: str) -> dict:
    """The operator's own schema of a kind of object, by which unknown keys are errors."""
    text = (CRDS / f"{kind.lower()}.yaml").read_text(encoding="utf-8")
    # The C loader reads the 8,000 lines of a DaskCluster in half a second.
    (version,) = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]["versions"]
    return strict(version["schema"]["openAPIV3Schema"])


def strict(schema):
    """Refuse keys that an object's schema does not name."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if isinstance(made.get("properties"), dict) and "x-kubernetes-preserve-unknown-fields" not in made:
        made.setdefault("additionalProperties", False)
    return made


def problems_of(values: dict) -> list[str]:
    """What the operator's schema has against an object."""
    schema = deepcopy(schema_of(values["kind"]))
    # Kubernetes itself checks these.
    for key in ("apiVersion", "kind", "metadata"):
        schema["properties"][key] = {}
    errors = Draft202012Validator(schema).iter_errors(values)
    return [f"{error.json_path}: {error.message}" for error in errors]


class FakeKubernetes(ThreadingHTTPServer):
    """The API of a cluster.

    Attributes
    ----------
    has_operator : whether the operator's kinds of objects are known
    acts : whether the operator makes pods of a DaskCluster
    denied : verbs and resources that the account may not use, such as "create daskclusters"
    refuses : whether objects are refused when they are created, whatever reviews say
    scheduler_status : of the scheduler's pod; None for one that is ready
    created, deleted : objects, and the paths of those that were deleted
    pods : starts pods as processes; None: workers are threads of this one
    """

    daemon_threads = True

    def __init__(self, pods: Pods | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.pods = pods
        self.has_operator, self.acts, self.refuses = True, True, False
        self.denied: set[str] = set()
        self.scheduler_status: dict | None = None
        self.worker_pods: list[dict] = []
        self.created: list[dict] = []
        self.deleted: list[str] = []
        self.running: LocalCluster | None = None

    def write_kubeconfig(self, path: Path) -> None:
        """Write a kubeconfig whose current context is this cluster, with namespace galaxies and a token."""
        context = {"cluster": "fake", "user": "me", "namespace": "galaxies"}
        values = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "contexts": [{"name": "fake", "context": context}],
            "clusters": [{"name": "fake", "cluster": {"server": f"http://127.0.0.1:{self.server_port}"}}],
            "users": [{"name": "me", "user": {"token": "planted-token"}}],
        }
        path.write_text(yaml.safe_dump(values))

    def operate(self, values: dict) -> None:
        """Do what the operator does when an object is created."""
        if not self.acts:
            return
        if self.pods is not None:
            if values["kind"] == "DaskCluster":
                self.pods.start_scheduler(values["spec"]["scheduler"]["spec"])
                self.pods.start_workers(values["spec"]["worker"], "default")
            elif values["kind"] == "DaskWorkerGroup":
                self.pods.start_workers(values["spec"]["worker"], "cpu")
        elif values["kind"] == "DaskCluster":
            self.running = LocalCluster(
                n_workers=0,
                processes=False,
                protocol="tcp",
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                silence_logs=50,
            )
            self.start_workers(values["spec"]["worker"], "default")
        elif values["kind"] == "DaskWorkerGroup":
            self.start_workers(values["spec"]["worker"], "cpu")

    def start_workers(self, worker: dict, group: str) -> None:
        running = self.running
        assert running is not None
        (container,) = worker["spec"]["containers"]
        has_gpu = "GPU=1" in container["args"]
        threads = int(container["args"][container["args"].index("--nthreads") + 1])
        options = {"nthreads": threads, "resources": {"GPU": 1} if has_gpu else {}, "dashboard": False}
        for number in range(worker["replicas"]):
            running.worker_spec[f"{group}-{number}"] = {"cls": Worker, "options": options}
        running.sync(running._correct_state)

    def pods_labeled(self, labels: str) -> list[dict]:
        if "worker" in labels:
            return self.worker_pods
        if self.running is None and (self.pods is None or self.pods.scheduler is None):
            return []
        ready = {
            "phase": "Running",
            "conditions": [
                {"type": "Ready", "status": "True"},
                {"type": "ContainersReady", "status": "True"},
            ],
        }
        metadata = {"name": "scheduler", "namespace": "galaxies"}
        return [{"kind": "Pod", "metadata": metadata, "spec": {}, "status": self.scheduler_status or ready}]

    def service(self, name: str) -> dict:
        if self.pods is not None:
            ports = self.pods.ports
        else:
            running = self.running
            assert running is not None
            ports = {
                "tcp-comm": running.scheduler_address.rpartition(":")[2],
                "http-dashboard": urlsplit(running.dashboard_link).port,
            }
        return {
            "kind": "Service",
            "metadata": {"name": name, "namespace": "galaxies"},
            # Reached without forwarding a port.
            "spec": {
                "type": "LoadBalancer",
                "selector": {"dask.org/component": "scheduler"},
                "ports": [{"name": key, "port": int(port)} for key, port in ports.items()],
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "127.0.0.1"}]}},
        }

    def listed(self, endpoint: str, name: str, labels: str) -> list[dict]:
        """The objects of an endpoint with this name, or with these labels."""
        if endpoint == "pods":
            return self.pods_labeled(labels)
        if endpoint == "services":
            return [self.service(name)]
        return [
            one | {"status": {"phase": "Running"}}
            for one in self.created
            if f"{one['kind'].lower()}s" == endpoint
            and one["metadata"]["name"] == name
            and not any(path.endswith(f"/{name}") for path in self.deleted)
        ]

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        if self.running is not None:
            self.running.close()
        if self.pods is not None:
            self.pods.stop()


class Answers(BaseHTTPRequestHandler):
    server: FakeKubernetes

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path = url.path.rstrip("/")
        parts = path.strip("/").split("/")
        if path == "/version":
            self.answer(200, {"major": "1", "minor": "33", "gitVersion": "v1.33.0"})
        elif path == "/api":
            self.answer(200, {"versions": ["v1"]})
        elif path == "/apis":
            groups = ["apps/v1", *([OPERATOR] if self.server.has_operator else [])]
            listed = [
                {"name": one, "versions": [{"groupVersion": one}], "preferredVersion": {"groupVersion": one}}
                for one in groups
            ]
            self.answer(200, {"groups": listed})
        elif path in ("/api/v1", "/apis/apps/v1", f"/apis/{OPERATOR}"):
            pods = {
                "name": "pods",
                "singularName": "pod",
                "kind": "Pod",
                "namespaced": True,
                "verbs": ["list"],
            }
            known = [pods] if path == "/api/v1" else []
            self.answer(200, {"groupVersion": path.partition("/v1")[0], "resources": known})
        elif parts[-2:-1] == ["galaxies"]:
            # kr8s asks for one object by a list with its name.
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            name = query.get("fieldSelector", "").rpartition("metadata.name=")[2]
            items = self.server.listed(parts[-1], name, query.get("labelSelector", ""))
            self.answer(200, {"kind": "List", "items": items})
        elif parts[-3:-2] == ["galaxies"] and (found := self.server.listed(parts[-2], parts[-1], "")):
            self.answer(200, found[0])
        else:
            self.answer(404, {"message": f"{self.path} not found"})

    def do_POST(self) -> None:
        values = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if values["kind"] == "SelfSubjectAccessReview":
            asked = values["spec"]["resourceAttributes"]
            allowed = f"{asked['verb']} {asked['resource']}" not in self.server.denied
            self.answer(201, values | {"status": {"allowed": allowed}})
            return
        if self.server.refuses:
            self.answer(403, {"message": f'{values["kind"]} is forbidden: User "me" cannot create it'})
            return
        if found := problems_of(values):
            self.answer(422, {"message": "; ".join(found)})
            return
        self.server.created.append(values)
        self.server.operate(values)
        self.answer(201, values)

    def do_DELETE(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.deleted.append(self.path)
        if self.server.pods is not None and "/daskclusters/" in self.path:
            self.server.pods.stop()
        self.answer(200, {"kind": "Status"})

    def answer(self, code: int, values: dict) -> None:
        body = json.dumps(values).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def serve(pods: Pods | None = None) -> FakeKubernetes:
    server = FakeKubernetes(pods)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
