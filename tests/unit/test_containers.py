"""The image, the compose file and the Kubernetes manifests of deploy/, which no machine of the tests can run: read, checked by schemas, compared with the code."""

import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from galbatch.cluster.kinds.kubernetes import RIGHTS
from galbatch.config import read_config

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def manifests(name):
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text(encoding="utf-8")))


def instructions():
    """The instructions of the Dockerfile: name and rest, with continued lines joined and comments left out."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), flags=re.M)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [tuple(line.split(None, 1)) for line in lines if line.strip()]


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["rights.yaml", "run.yaml"])
def test_manifests_are_as_kubernetes_schemas_want_them(name):
    for one in manifests(name):
        kubernetes_validate.validate(one, "1.30", strict=True)
    typo = manifests("run.yaml")[1]
    typo["spec"]["backofLimit"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(typo, "1.30", strict=True)


def test_the_role_has_every_right_that_a_run_asks_for():
    account, role, binding = manifests("rights.yaml")
    granted = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert set(RIGHTS) <= granted
    assert "*" not in {word for right in granted for word in right}
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"][0]["name"] == account["metadata"]["name"]


def test_the_job_runs_the_run_toml_beside_it(tmp_path):
    config_map, job = manifests("run.yaml")
    (tmp_path / "run.toml").write_text(config_map["data"]["run.toml"])
    parsed = read_config(tmp_path / "run.toml")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert parsed.cluster.kind == "kubernetes"
    assert parsed.cluster.kubernetes.image == container["image"]
    assert parsed.cluster.kubernetes.secrets == (container["envFrom"][0]["secretRef"]["name"],)
    assert container["args"][:3] == ["galbatch", "run", "/config/run.toml"]
    assert pod["volumes"][0]["configMap"]["name"] == config_map["metadata"]["name"]
    assert pod["serviceAccountName"] == manifests("rights.yaml")[0]["metadata"]["name"]
    # What was refused is refused again; 75 and lost nodes are tried again.
    (rule,) = job["spec"]["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"] == {"containerName": container["name"], "operator": "In", "values": [2]}


def test_the_image_is_made_from_the_lock_and_is_not_root():
    found = instructions()
    names = [name for name, _ in found]
    assert set(names) <= {"FROM", "ARG", "ENV", "WORKDIR", "SHELL", "COPY", "RUN", "USER", "CMD"}
    assert re.fullmatch(r"python:3\.1[123]-slim-\w+", dict(found)["FROM"])
    assert dict(found)["USER"].isdigit()
    assert dict(found)["USER"] != "0"
    for name, rest in found:
        for source in rest.split()[:-1] if name == "COPY" else ():
            assert (ROOT / source).exists(), source
    installs = [
        part for name, rest in found if name == "RUN" for part in rest.split("&&") if "pip install" in part
    ]
    assert len(installs) == 2
    assert all("-c requirements.lock" in one for one in installs)
    # The lock has the line that torch is installed by.
    assert re.search(r"^torch==", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.M)


def test_the_image_gets_what_it_copies():
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    copied = {one for name, rest in instructions() if name == "COPY" for one in rest.split()[:-1]}
    assert {f"!{one}" for one in copied} <= set(ignored)


@pytest.mark.skipif(not shutil.which("hadolint"), reason="hadolint is not installed")
def test_hadolint_finds_nothing():
    done = subprocess.run(["hadolint", DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_services_depend_on_services_and_conditions_that_exist(compose):
    services = compose["services"]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in services, name
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[other], name
    for service in services.values():
        for mount in service["volumes"]:
            source = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", mount).split(":")[0]
            assert source.startswith("./") or source in compose["volumes"]


def test_only_the_dashboard_is_seen_and_by_this_machine_alone(compose):
    ports = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert ports == {"scheduler": ["127.0.0.1:8787:8787"]}


def test_the_store_has_no_password_that_everybody_knows(compose):
    for service in compose["services"].values():
        secrets = [
            value for key, value in service["environment"].items() if re.search("KEY|USER|PASSWORD", key)
        ]
        assert secrets
        assert all(re.fullmatch(r"\$\{STORE_\w+:\?set STORE_\w+\}", value) for value in secrets)


def test_workers_and_run_join_the_scheduler_of_the_file(compose):
    services = compose["services"]
    address = "tcp://scheduler:8786"
    assert services["scheduler"]["command"][:2] == ["dask", "scheduler"]
    assert services["worker"]["command"][:3] == ["dask", "worker", address]
    run = services["run"]["command"]
    assert run[:2] == ["galbatch", "run"]
    assert run[run.index("--scheduler") + 1] == address
    assert any(mount.endswith(f":{run[2]}:ro") for mount in services["run"]["volumes"])
    assert services["run"]["environment"] == services["worker"]["environment"]
