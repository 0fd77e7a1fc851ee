"""The kind "slurm", with stand-ins of SLURM's commands; tests/slurm runs it with SLURM itself."""

import re
import time

import pytest

from galbatch import cluster, config
from galbatch.cluster.kinds.slurm import commands, gpu_job, jobs
from galbatch.config import ClusterConfig, SlurmConfig
from galbatch.errors import ClusterError, ConfigError, MissingPackage
from tests.unit.cluster.contract import Contract
from tests.unit.cluster.kinds.fake_slurm import FakeSlurm

JOB = {"cores": 1, "memory": "2 GiB", "interface": "lo"}


def parsed(folder, *, wait_s=900, **keys):
    data = {"kind": "slurm", "dashboard_address": "127.0.0.1:0", "wait_s": wait_s}
    section = JOB | {"log_folder": str(folder / "logs")} | keys
    return config.parse_strictly(ClusterConfig, data | {"slurm": section}, "[cluster]")


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    fake = FakeSlurm(tmp_path / "slurm", monkeypatch)
    yield fake
    fake.end()


@pytest.fixture(scope="module")
def connected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    with pytest.MonkeyPatch.context() as monkeypatch:
        fake = FakeSlurm(folder / "slurm", monkeypatch)
        monkeypatch.setattr(jobs, "LOOK_S", 0.5)
        section = parsed(folder, cores=2, memory="4 GiB")
        ended = folder / "logs" / "ended"
        ended.parent.mkdir()
        ended.touch()
        with cluster.connect(section) as client:
            client.wait_for_workers(2, timeout=900)
            # Workers of the recipes read it, which are to join now and to leave then.
            assert not ended.exists()
            yield section, client
        assert ended.exists()
        assert not (folder / "logs" / "scheduler.json").exists()
        deadline = time.monotonic() + 600
        while fake.running():
            assert time.monotonic() < deadline
            time.sleep(0.1)


class TestSlurm(Contract):
    """Two workers of one job."""

    def test_a_job_that_is_gone_is_replaced(self, connected):
        """The last one, as the workers are others then."""
        _, client = connected
        (name, job), before = next(iter(client.cluster.workers.items())), set(cluster.Pool.of(client).threads)
        commands._asked("scancel", job.job_id)
        monitor = cluster.WorkerMonitor(client, connected[0], print)
        deadline = time.monotonic() + 900
        while len(found := set(cluster.Pool.of(client).threads) - before) < 2:
            monitor.look()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert len(found) == 2
        assert client.cluster.workers[name].job_id != job.job_id
        assert sorted(str(worker.name) for worker in client.cluster.scheduler.workers.values())[-2:] == [
            f"{name}-0",
            f"{name}-1",
        ]


def script_of(folder, **keys):
    section = parsed(folder, **keys).slurm
    job = jobs.SubmittedJob(
        "tcp://10.0.0.1:8786", name="job-3", job_name="galbatch-1", **jobs.job_options(section)
    )
    return job.job_script()


def test_the_script_of_a_job_without_gpus(tmp_path):
    text = script_of(
        tmp_path,
        cores=8,
        memory="16 GiB",
        partition="long",
        account="lsst",
        walltime="1-02:00:00",
        directives=["--qos=night"],
        prologue=["module load gcc"],
    )
    header = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]
    assert header == [
        "-J galbatch-1",
        f"-e {tmp_path}/logs/galbatch-1-%J.err",
        f"-o {tmp_path}/logs/galbatch-1-%J.out",
        "-p long",
        "-A lsst",
        "-n 1",
        "--cpus-per-task=8",
        "--mem=16G",
        "-t 1-02:00:00",
        "--qos=night",
    ]
    command = text.splitlines()[-1]
    assert "-m distributed.cli.dask_worker tcp://10.0.0.1:8786 --name job-3 --nthreads 1" in command
    assert "--memory-limit 2.00GiB --nworkers 8 --nanny --death-timeout 120" in command
    # 26 hours, less a minute and twice five minutes; at most 300 s earlier or later.
    assert "--lifetime 92940s --lifetime-stagger 300s --interface lo" in command
    assert text.splitlines().index("module load gcc") < len(text.splitlines()) - 1


def test_the_script_of_a_job_with_gpus(tmp_path):
    text = script_of(tmp_path, cores=16, memory="64 GiB", gpus=2, gpu_type="a100")
    assert "#SBATCH --gres=gpu:a100:2" in text
    assert "#SBATCH --cpus-per-task=16" in text
    command = text.splitlines()[-1]
    assert "-m galbatch.cluster.kinds.slurm.gpu_job tcp://10.0.0.1:8786 --name job-3 --nthreads 1" in command
    assert command.endswith("--gpus 2 --processes 16 --interface lo")


def test_credentials_are_in_no_script(tmp_path, slurm, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "planted-id")
    slurm.say("pending", "PartitionTimeLimit")
    monkeypatch.setattr(jobs, "LOOK_S", 0.1)
    with pytest.raises(ClusterError), cluster.connect(parsed(tmp_path)):
        raise AssertionError("it waits")
    written = [*slurm.scripts(), (slurm.folder / "tried").read_text()]
    assert len(written) == 2
    assert not [text for text in written if "planted" in text]


@pytest.mark.parametrize("walltime_s", [180, 600, 3600, 14_400, 86_400])
def test_workers_end_before_their_job(walltime_s):
    lifetime, scatter = jobs.lifetime_s(walltime_s)
    assert lifetime - scatter >= walltime_s / 3
    # A minute to start, and one scatter more.
    assert lifetime + scatter + scatter + 60 <= walltime_s
    assert scatter >= min(300, walltime_s // 12)


def test_workers_of_a_gpu_job_have_a_gpu_each_or_none(monkeypatch):
    found = gpu_job.worker_commands("job-3", ["4", "GPU-ab"], 2, ["tcp://a:1", "--nanny"])
    assert [dict(one.environment)["CUDA_VISIBLE_DEVICES"] for one in found] == ["4", "GPU-ab", "", ""]
    names = [one.words[one.words.index("--name") + 1] for one in found]
    assert names == ["job-3-0", "job-3-1", "job-3-2", "job-3-3"]
    assert ["GPU=1" in one.words for one in found] == [True, True, False, False]
    assert all(one.words[one.words.index("--memory-limit") + 1] == "0" for one in found)


def test_the_program_of_a_gpu_job_starts_what_the_job_was_given(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setenv("OUT", str(tmp_path))
    dask = tmp_path / "python"
    dask.write_text(
        '#!/bin/bash\nwhile [ "$1" != --name ]; do shift; done\necho "$CUDA_VISIBLE_DEVICES" > "$OUT/$2"\nexit 3\n'
    )
    dask.chmod(0o755)
    monkeypatch.setattr(gpu_job.sys, "executable", str(dask))
    words = [
        "tcp://a:1",
        "--name",
        "job-0",
        "--nthreads",
        "1",
        "--lifetime",
        "9s",
        "--gpus",
        "2",
        "--processes",
        "3",
    ]
    assert gpu_job.main(words) == 3
    assert {path.name: path.read_text().strip() for path in tmp_path.glob("job-*")} == {
        "job-0-0": "3",
        "job-0-1": "5",
        "job-0-2": "",
    }


def test_what_a_plan_counts_on(tmp_path):
    kind = cluster.kind_of(parsed(tmp_path, cores=8, min_jobs=2, max_jobs=5))
    assert kind.workers_planned() == (40, "40 workers in 5 SLURM jobs")
    kind = cluster.kind_of(parsed(tmp_path, cores=8, gpus=2))
    assert kind.workers_planned() == (2, "2 GPU workers in 1 SLURM job")
    assert kind.device == "cuda"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"walltime": "4h"}, r"walltime = '4h': write hours:minutes:seconds"),
        ({"walltime": "00:02:59"}, "a job needs 180 s at least"),
        ({"gpus": 2}, "cores = 1, gpus = 2: each GPU needs a core"),
        ({"gpu_type": "a100"}, "gpu_type = 'a100', gpus = 0"),
        ({"min_jobs": 3, "max_jobs": 2}, "max_jobs = 2 is below min_jobs = 3"),
        ({"directives": ["qos=1"]}, r"'qos=1': write an option of sbatch"),
        (
            {"prologue": ["export AWS_SECRET_ACCESS_KEY=abc"]},
            "AWS_SECRET_ACCESS_KEY does not belong into a job script",
        ),
        ({"prologue": ["a\nb"]}, "expected one line"),
        ({"partition": "a b"}, "'a b': expected one word"),
        ({"partitio": "a"}, "did you mean partition"),
        ({"memory": "all"}, "'all' is no size"),
    ],
)
def test_sections_that_make_no_job_are_refused(tmp_path, keys, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parsed(tmp_path, **keys)
    assert "abc" not in str(caught.value)


def test_keys_of_other_kinds_are_refused():
    for data, message in (
        ({"kind": "slurm"}, r"say in \[cluster.slurm\] what each asks for"),
        ({"slurm": JOB}, r"\[cluster.slurm\] is of kind = 'slurm'; this kind is 'local'"),
        ({"kind": "slurm", "workers": 3, "slurm": JOB}, "kind = 'slurm' counts jobs"),
        ({"kind": "slurm", "device": "cuda", "slurm": JOB}, "gpus, how many a job has"),
    ):
        with pytest.raises(ConfigError, match=message):
            config.parse_strictly(ClusterConfig, data, "[cluster]")
    section = config.parse_strictly(ClusterConfig, {"kind": "slurm", "slurm": JOB}, "[cluster]")
    assert section.override(kind="local", workers=2).slurm is None


def test_the_log_folder_is_relative_to_run_toml(tmp_path):
    assert SlurmConfig(**JOB).resolve_paths(lambda path: f"/here/{path}").log_folder == "/here/slurm_logs"


def test_missing_commands_and_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match="sbatch and squeue and scancel are not on PATH here"):
        cluster.require(parsed(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "dask_jobqueue", None)
    with pytest.raises(MissingPackage, match=re.escape('pip install "galbatch[slurm]"')):
        cluster.require(parsed(tmp_path))


def test_an_interface_that_is_not_there_is_named(tmp_path, slurm):
    with pytest.raises(
        ClusterError, match=r"interface = 'ib7': there is no such network interface here, only .*lo"
    ):
        cluster.require(parsed(tmp_path, interface="ib7"))
    cluster.require(parsed(tmp_path, interface="ib7", scheduler_interface="lo"))


def refused(section, told=None):
    with (
        pytest.raises(ClusterError) as caught,
        cluster.connect(section, notify=(told if told is not None else []).append),
    ):
        raise AssertionError("it waits")
    return str(caught.value)


def test_a_job_that_sbatch_refuses(tmp_path, slurm):
    slurm.say(
        "refuse",
        "sbatch: error: invalid partition specified: nowhere\nallocation failure: Invalid partition name specified\n",
    )
    found = refused(parsed(tmp_path, partition="nowhere"))
    assert (
        "sbatch refuses the job: invalid partition specified: nowhere: allocation failure: Invalid" in found
    )
    assert not slurm.scripts()


def test_jobs_that_are_refused_when_they_are_submitted(tmp_path, slurm, monkeypatch):
    monkeypatch.setattr(jobs, "LOOK_S", 0.1)
    slurm.say("when", "job")
    slurm.say(
        "refuse",
        "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates policy\n",
    )
    assert refused(parsed(tmp_path)) == (
        "[cluster] kind = 'slurm': sbatch refuses the run's jobs: QOSMaxSubmitJobPerUserLimit: Batch job submission failed: Job violates policy"
    )


def test_jobs_that_end_at_once_are_not_submitted_for_ever(tmp_path, slurm, monkeypatch):
    monkeypatch.setattr(jobs, "LOOK_S", 0.1)
    found = refused(parsed(tmp_path, prologue=["exit 4"]))
    assert "3 jobs in a row ended before a worker of theirs connected; see " in found
    assert len(slurm.scripts()) == 3


def test_jobs_that_wait_are_told_and_given_up(tmp_path, slurm, monkeypatch):
    monkeypatch.setattr(jobs, "LOOK_S", 0.1)
    slurm.say("pending", "Resources")
    told = []
    found = refused(parsed(tmp_path, min_jobs=2, queue_wait_s=1), told)
    assert "2 jobs pending (Resources) after 1 s ([cluster.slurm] queue_wait_s)" in found
    assert "2 jobs pending (Resources)" in told
    assert re.search(r"2 jobs galbatch-[0-9a-f]{8} submitted", told[0])
    # They are canceled by the name that no other run has.
    assert re.search(r"--name=galbatch-[0-9a-f]{8}", slurm.canceled())


def test_jobs_that_will_never_start_are_an_error_at_once(tmp_path, slurm, monkeypatch):
    monkeypatch.setattr(jobs, "LOOK_S", 0.1)
    slurm.say("pending", "PartitionTimeLimit")
    assert "1 job pending (PartitionTimeLimit): SLURM will not start them" in refused(parsed(tmp_path))


def test_jobs_whose_workers_do_not_connect(tmp_path, slurm, monkeypatch):
    monkeypatch.setattr(jobs, "LOOK_S", 0.1)
    found = refused(parsed(tmp_path, prologue=["sleep 1000"], wait_s=1))
    assert (
        "none of their workers has connected within 1 s ([cluster] wait_s): can the nodes reach tcp://127.0.0.1:"
        in found
    )


@pytest.mark.parametrize(
    ("state", "reason", "is_hopeless"),
    [
        ("PENDING", "Priority", False),
        ("PENDING", "QOSMaxWallDurationPerJobLimit", True),
        ("RUNNING", "None", False),
    ],
)
def test_reasons_that_waiting_does_not_change(state, reason, is_hopeless):
    assert commands.QueuedJob(state, reason).is_hopeless == is_hopeless
