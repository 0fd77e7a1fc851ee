"""The recipes for SLURM, as plain scripts, with stand-ins for galbatch and scontrol."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"

GALBATCH = """#!/usr/bin/env bash
trap 'sleep 0.2; exit 75' TERM
echo "$@" > "$HERE/calling"
mv "$HERE/calling" "$HERE/called"
while [ ! -e "$HERE/done" ]; do sleep 0.05; done
exit "$(cat "$HERE/done")"
"""


@pytest.fixture
def start(tmp_path):
    """Start a recipe, in a job or outside of one."""
    (tmp_path / "galbatch").write_text(GALBATCH)
    (tmp_path / "scontrol").write_text('#!/usr/bin/env bash\necho "$@" > "$HERE/requeued"\n')
    for name in ("galbatch", "scontrol"):
        (tmp_path / name).chmod(0o755)

    def run(recipe, **job):
        environment = os.environ | {"HERE": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"} | job
        process = subprocess.Popen(["bash", str(DEPLOY / recipe), "run.toml"], env=environment)
        deadline = time.monotonic() + 60
        while not (tmp_path / "called").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return process

    return run


@pytest.mark.parametrize("recipe", ["one_node.sbatch", "one_node_cuda.sbatch"])
def test_the_warning_stops_the_run_and_requeues_the_job(start, tmp_path, recipe):
    process = start(recipe, SLURM_JOB_ID="17", SLURM_CPUS_PER_TASK="3")
    called = (tmp_path / "called").read_text().split()
    assert called[:2] == ["run", "run.toml"]
    assert called[-1] == "--wait-lock"
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75
    assert (tmp_path / "requeued").read_text() == "requeue 17\n"


@pytest.mark.parametrize("code", [0, 1, 2])
def test_other_ends_are_the_jobs_end(start, tmp_path, code):
    process = start("one_node.sbatch", SLURM_JOB_ID="17")
    (tmp_path / "done").write_text(str(code))
    assert process.wait(60) == code
    assert not (tmp_path / "requeued").exists()
