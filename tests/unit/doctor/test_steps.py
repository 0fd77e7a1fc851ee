"""Steps in processes of their own: none stops the next, and no secret is shown."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from galbatch import doctor
from galbatch.cli.app import app
from galbatch.doctor import Finding, Step, StepResult, access, machine, networks, steps_of, storage_rates
from galbatch.errors import ConfigError

SECRET = "wJalrXUtnFEMI/K7MDENG"


@pytest.fixture
def planted(monkeypatch, tmp_path):
    """A machine with credentials in variables and files, and a SLURM whose error quotes one."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://anna:{SECRET}@objects.example.org")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(f"[default]\naws_secret_access_key = {SECRET}\n")
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_text(
        f"clusters:\n- cluster:\n    server: https://anna:{SECRET}@127.0.0.1:1\nusers:\n- user:\n    token: {SECRET}\n"
    )
    sinfo = tmp_path / "bin" / "sinfo"
    sinfo.parent.mkdir()
    sinfo.write_text(f"#!/bin/sh\necho 'sinfo: no daemon at {SECRET}' >&2\nexit 1\n")
    sinfo.chmod(0o755)
    monkeypatch.setenv("PATH", str(sinfo.parent) + os.pathsep + os.environ["PATH"])
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


def test_credentials_are_named_and_never_shown(planted, monkeypatch, tmp_path):
    asked = [Step("credentials", 600, {}), Step("clusters", 600, {})]
    asked.append(
        Step("storage:cutouts", 600, {"folder": f"{tmp_path}/bin/sinfo/{SECRET}", "label": "cutouts"})
    )
    monkeypatch.setattr(doctor, "steps_of", lambda *_, **__: asked)
    for options in ([], ["--json"]):
        printed = CliRunner().invoke(app, ["doctor", *options]).output
        assert SECRET not in printed
        for name in (
            "AWS_SECRET_ACCESS_KEY",
            "AWS_ENDPOINT_URL",
            "credentials",
            "no daemon at",
            "does not answer",
        ):
            assert name in " ".join(printed.split())


def test_a_step_that_takes_too_long_or_fails_stops_no_other(tmp_path):
    asked = [
        # No process is up in this time.
        Step("machine", 0.001, {}),
        Step("storage:cutouts", 600, {"folder": str(tmp_path / "not-there" / "x"), "label": "cutouts"}),
        Step("storage:catalog", 600, {"folder": str(tmp_path), "label": "catalog"}),
    ]
    (tmp_path / "not-there").write_text("a file is in the way")
    late, failed, done = doctor.examine(asked)
    assert late.problem == "killed after its limit of 0 s"
    assert failed.finding is None
    assert "not-there" in failed.problem
    assert done.problem == ""
    assert done.finding.data["write_bytes_per_s"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["not-there"]


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie has ended; its parent is slow to notice.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until(holds):
    end_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_the_children_of_a_step_that_is_killed_end_at_once(tmp_path, monkeypatch):
    # As a machine without memory kills it, while a worker of its holds its output open.
    python, pid = tmp_path / "python", tmp_path / "pid"
    python.write_text(f"#!/bin/sh\nsleep 300 &\necho $! > {pid}\necho 'no reason' >&2\nkill -9 $$\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    started = time.monotonic()
    (result,) = doctor.examine([Step("machine", 200, {})])
    assert time.monotonic() - started < 100
    assert result.problem == "its process was killed by SIGKILL"
    child = int(pid.read_text())
    wait_until(lambda: not is_running(child))


STANDS_IN = """
import subprocess, sys, pathlib
from galbatch.doctor.__main__ import end_with_doctor
child = subprocess.Popen(["sleep", "300"])
pathlib.Path("PID").write_text(f"{child.pid} ")
end_with_doctor(int(sys.argv[-1]))
"""


def test_a_step_and_its_children_end_with_a_doctor_that_is_killed(tmp_path):
    pid, python, step = tmp_path / "pid", tmp_path / "python", tmp_path / "step.py"
    step.write_text(STANDS_IN.replace("PID", str(pid)))
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {step} "$@"\n')
    python.chmod(0o755)
    code = (
        f"import sys; sys.executable = {str(python)!r}; from galbatch import doctor; "
        "list(doctor.examine([doctor.Step('machine', 600, {})]))"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as killed:
        wait_until(lambda: pid.exists() and pid.read_text().endswith(" "))
        child = int(pid.read_text())
        assert is_running(child)
        killed.kill()
    wait_until(lambda: not is_running(child))


def test_what_is_left_after_the_time_of_all_steps_is_named():
    (left,) = doctor.examine([Step("machine", 600, {})], most_s=0)
    assert (left.finding, left.problem) == (None, "left out: the 0 s of all steps are over")


def test_the_json_says_what_was_done_and_the_exit_code_whether_all_was(monkeypatch, tmp_path):
    asked = [Step("credentials", 600, {}), Step("machine", 0.001, {})]
    monkeypatch.setattr(doctor, "steps_of", lambda *_, **__: asked)
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 1
    read = json.loads(result.output)
    assert read["schema"] == 1
    assert [one["name"] for one in read["steps"]] == ["credentials", "machine"]
    assert set(read["steps"][0]["data"]["credentials"]) == {"S3", "Google Cloud", "Azure", "TLS of Dask"}
    assert (read["steps"][1]["data"], read["steps"][1]["problem"]) == (None, "killed after its limit of 0 s")


def test_a_doctor_that_is_stopped_says_what_it_has_done(monkeypatch, tmp_path):
    """Ten minutes of answers are not lost; the same command would not continue."""

    def stopped(steps):
        yield StepResult(steps[0], Finding((("cores", "2"),), {"cores": 2}), "", 1.0)
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "examine", stopped)
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 75
    (step,) = json.loads(result.stdout)["steps"]
    assert (step["name"], step["data"]) == ("machine", {"cores": 2})
    assert result.stderr == "galbatch: stopped; the steps that were left are not done\n"


RUN_TOML = """
[survey]
layout = "hsc"
tiles = "calexp-*.fits"
bands = ["g", "r"]
[objects]
path = "objects.parquet"
[[models]]
name = "gampen"
bundle = "demo:gampen"
"""


def test_the_steps_in_their_order(tmp_path):
    (tmp_path / "run.toml").write_text(RUN_TOML)
    names = [step.name for step in steps_of(str(tmp_path / "run.toml"), device="cuda")]
    assert names[:5] == ["machine", "gpus", "credentials", "clusters", "agreement:cuda"]
    assert names[5:8] == [f"passes:rebuilt-float16:{size}px" for size in (239, 143, 96)]
    assert names[8:11] == ["storage:cutouts", "storage:catalog", "run"]
    assert len(names) == len(set(names)) == 11 + 12
    on_cpu = steps_of(device="cpu")
    assert [step.name for step in on_cpu if step.subject == "storage"] == ["storage:this folder"]
    assert all(step.arguments["device"] == "cpu" for step in on_cpu if step.subject == "passes")
    (tmp_path / "wrong.toml").write_text("[posterior]\npassess = 3\n")
    with pytest.raises(ConfigError, match="passess"):
        steps_of(str(tmp_path / "wrong.toml"))


def test_rates_of_an_object_store_are_of_objects_that_are_gone_afterwards(s3):
    found = storage_rates.storage_rate(f"{s3}/out", "cutouts")
    assert found.data["write_bytes_per_s"] > 0
    assert found.data["read_bytes_per_s"] > 0
    assert "from memory" not in found.rows[0][1]
    import boto3

    assert "Contents" not in boto3.client("s3").list_objects_v2(Bucket=s3.removeprefix("s3://"))


def test_engines_on_the_cpu_give_what_the_scripts_give():
    found = networks.agreement("cpu")
    assert [one["engine"] for one in found.data["agreement"]] == [
        "torchscript-float32",
        "rebuilt-float32",
    ] * 2
    assert all(one["difference"] <= 1e-3 for one in found.data["agreement"])
    assert all("differs" in text and "NOT" not in text for _, text in found.rows)


def test_the_rate_of_an_engine_is_of_the_rate_of_matrices():
    found = networks.passes("rebuilt-float32", 48, "cpu", width=1 / 32)
    assert found.data["passes_per_s"] > 0
    assert found.data["matmul_share"] > 0
    assert found.rows[0][0] == "48 px, rebuilt-float32"


def test_a_machine_names_its_packages_and_memory(monkeypatch):
    found = machine.machine()
    assert found.data["packages"]["numpy"]
    assert found.data["memory_bytes"] > 2**28
    found = machine.gpus()
    assert found.data["cuda_visible_devices"] == os.environ.get("CUDA_VISIBLE_DEVICES")
    # Nobody has written a config whose line would be wrong.
    assert "[cluster]" not in " ".join(text for _, text in found.rows)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"key {SECRET}!", "key [AWS_SECRET_ACCESS_KEY]!"),
        ("https://anna:pw@host/x", "https://[credentials]@host/x"),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
    ],
)
def test_texts_of_errors_lose_their_secrets(planted, text, shown):
    assert access.redacted(text) == shown
