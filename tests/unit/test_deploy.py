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
        deadline = time.monotonic() + 600
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
    process.send_signal(signal.SIGUSR1)
    assert process.wait(600) == 75
    assert (tmp_path / "requeued").read_text() == "requeue 17\n"


@pytest.mark.parametrize("recipe", ["one_node.sbatch", "one_node_cuda.sbatch"])
def test_a_canceled_job_is_stopped_and_stays_out_of_the_queue(start, tmp_path, recipe):
    process = start(recipe, SLURM_JOB_ID="17")
    process.send_signal(signal.SIGTERM)
    assert process.wait(600) == 75
    assert not (tmp_path / "requeued").exists()


@pytest.mark.parametrize("code", [0, 1, 2])
def test_other_ends_are_the_jobs_end(start, tmp_path, code):
    process = start("one_node.sbatch", SLURM_JOB_ID="17")
    (tmp_path / "done").write_text(str(code))
    assert process.wait(600) == code
    assert not (tmp_path / "requeued").exists()


DASK = """#!/usr/bin/env bash
trap 'exit 0' TERM
echo "${CUDA_VISIBLE_DEVICES-unset} $@" >> "$HERE/started"
[ "$1" = worker ] || { printf '{\n  "id": "a",\n  "address": "tcp://a:1"\n}' > "$HERE/shared/scheduler.json"; }
while [ ! -e "$HERE/shared/ended" ]; do sleep 0.05; done
"""


@pytest.fixture
def start_one_of_several(tmp_path):
    """Start one of the recipes for several nodes, in a job; returns the process when dask has been called n times."""
    (tmp_path / "shared").mkdir()
    texts = {
        "dask": DASK,
        "galbatch": GALBATCH,
        "scontrol": '#!/usr/bin/env bash\necho "$@" > "$HERE/requeued"\n',
        "squeue": '#!/usr/bin/env bash\ndate -d "@${SUBMITTED:?}" +%Y-%m-%dT%H:%M:%S\n',
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def run(recipe, *arguments, called, **job):
        path = f"{tmp_path}:{os.environ['PATH']}"
        environment = (
            os.environ
            | {"HERE": str(tmp_path), "PATH": path, "SLURM_JOB_ID": "17"}
            | {"SUBMITTED": "0"}
            | job
        )
        command = ["bash", str(DEPLOY / "slurm" / recipe), *arguments, str(tmp_path / "shared")]
        process = subprocess.Popen(command, env=environment)
        deadline = time.monotonic() + 600
        while not (tmp_path / called).exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return process

    return run


def test_the_run_of_several_nodes_is_stopped_and_goes_back_into_the_queue(start_one_of_several, tmp_path):
    process = start_one_of_several("run.sbatch", "run.toml", called="called", GALBATCH_INTERFACE="ib0")
    assert (tmp_path / "called").read_text().split() == [
        "run",
        "run.toml",
        "--scheduler",
        "tcp://a:1",
        "--wait-lock",
    ]
    assert "--interface ib0" in (tmp_path / "started").read_text()
    process.send_signal(signal.SIGUSR1)
    assert process.wait(600) == 75
    assert (tmp_path / "requeued").read_text() == "requeue 17\n"
    # Workers wait for its successor.
    assert list((tmp_path / "shared").iterdir()) == []


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_run_of_several_nodes_tells_the_workers_that_it_has_ended(start_one_of_several, tmp_path, code):
    process = start_one_of_several("run.sbatch", "run.toml", called="called")
    (tmp_path / "done").write_text(str(code))
    assert process.wait(600) == code
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["ended"]
    assert not (tmp_path / "requeued").exists()


JOB = {"SLURM_CPUS_PER_TASK": "4", "SLURM_MEM_PER_NODE": "8192", "CUDA_VISIBLE_DEVICES": "1,GPU-ab"}


@pytest.mark.parametrize("recipe", ["cpu_workers.sbatch", "gpu_workers.sbatch"])
def test_workers_are_warned_and_go_back_into_the_queue(start_one_of_several, tmp_path, recipe):
    (tmp_path / "shared" / "scheduler.json").write_text("{}")
    process = start_one_of_several(recipe, called="started", **JOB)
    n_expected = 1 if recipe == "cpu_workers.sbatch" else 3
    deadline = time.monotonic() + 600
    while len(called := (tmp_path / "started").read_text().splitlines()) < n_expected:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(600) == 0
    assert (tmp_path / "requeued").read_text() == "requeue 17\n"
    share = "2048MiB" if recipe == "cpu_workers.sbatch" else "0"
    assert all(f"--memory-limit {share}" in line for line in called)
    if recipe == "gpu_workers.sbatch":
        gpus = sorted(line.split()[0] for line in called if "--resources GPU=1 --nthreads 2" in line)
        assert gpus == ["1", "GPU-ab"]
        assert [line for line in called if line.startswith(" worker") and "--nworkers 2 --nthreads 1" in line]
    else:
        assert "--nworkers 4 --nthreads 1" in called[0]


@pytest.mark.parametrize(
    ("recipe", "called", "code"),
    [("run.sbatch run.toml", "called", 75), ("cpu_workers.sbatch", "started", 0)],
)
def test_canceled_jobs_of_several_nodes_stay_out_of_the_queue(
    start_one_of_several, tmp_path, recipe, called, code
):
    if recipe == "cpu_workers.sbatch":
        (tmp_path / "shared" / "scheduler.json").write_text("{}")
    process = start_one_of_several(*recipe.split(), called=called, **JOB)
    process.send_signal(signal.SIGTERM)
    assert process.wait(600) == code
    assert not (tmp_path / "requeued").exists()


def test_workers_end_with_the_run(start_one_of_several, tmp_path):
    (tmp_path / "shared" / "scheduler.json").write_text("{}")
    process = start_one_of_several("cpu_workers.sbatch", called="started", **JOB)
    (tmp_path / "shared" / "ended").touch()
    assert process.wait(600) == 0
    assert not (tmp_path / "requeued").exists()


@pytest.mark.parametrize("recipe", ["cpu_workers.sbatch", "gpu_workers.sbatch"])
def test_the_end_of_an_earlier_run_does_not_end_workers_that_were_submitted_later(
    start_one_of_several, tmp_path, recipe
):
    ended = tmp_path / "shared" / "ended"
    ended.touch()
    os.utime(ended, (1_000_000, 1_000_000))
    (tmp_path / "shared" / "scheduler.json").write_text("{}")
    # The stand-in's workers end at once where there is such a file, and the job starts them once more.
    process = start_one_of_several(recipe, called="started", SUBMITTED="1000001", **JOB)
    n_started = 1 if recipe == "cpu_workers.sbatch" else 3
    deadline = time.monotonic() + 600
    while len((tmp_path / "started").read_text().splitlines()) < 2 * n_started:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    ended.touch()
    assert process.wait(600) == 0
    assert not (tmp_path / "requeued").exists()


@pytest.mark.parametrize(
    "job", [{"SUBMITTED": "999999"}, {"SUBMITTED": "2000000", "SLURM_RESTART_COUNT": "1"}]
)
def test_workers_whose_run_ended_while_they_were_in_the_queue_end(start_one_of_several, tmp_path, job):
    ended = tmp_path / "shared" / "ended"
    ended.touch()
    os.utime(ended, (1_000_000, 1_000_000))
    process = start_one_of_several("cpu_workers.sbatch", called="shared/ended", **JOB, **job)
    assert process.wait(600) == 0
    assert not (tmp_path / "started").exists()


def test_recipes_warn_in_time_and_may_be_put_back():
    for path in DEPLOY.rglob("*.sbatch"):
        text = path.read_text()
        assert "#SBATCH --requeue\n" in text, path
        assert "#SBATCH --signal=B:USR1@120\n" in text, path
        assert "scontrol requeue" in text, path
