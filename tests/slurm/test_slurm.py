"""Runs by SLURM itself, both ways: jobs are lost and end at their time limit, and the catalog is the same."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.dataset
import pytest

from galbatch import cluster
from galbatch.config import ClusterConfig, parse_strictly
from galbatch.errors import ClusterError
from tests.processes import is_worker
from tests.slurm.conftest import n_leaves

DEPLOY = Path(__file__).parents[2] / "deploy"

SLURM = """[cluster]
kind = "slurm"
wait_s = 900
dashboard_address = "127.0.0.1:0"
[cluster.slurm]
cores = {cores}
memory = "{cores} GiB"
min_jobs = {jobs}
walltime = "00:30:00"
interface = "lo"
"""


def rows(catalog):
    """The catalog's data columns, sorted: what they say of the processor time is no part of them."""
    table = pyarrow.dataset.dataset(catalog / "dataset", partitioning=None).to_table()
    return table.sort_by([("_healpix_29", "ascending"), ("object_id", "ascending")])


def same(found, expected):
    return rows(found).equals(rows(expected))


def verified(site, run_toml):
    words = [
        sys.executable,
        "-m",
        "galbatch",
        "verify",
        str(run_toml.parent / "catalog"),
        "--against",
        str(run_toml),
    ]
    # Without workers of its own: the plan is made here.
    return subprocess.run(
        words, env=site.environment, capture_output=True, text=True, timeout=900, check=False
    )


def job_facts(site, number):
    """What scontrol says of a job, also after its end."""
    return dict(re.findall(r"(\w+)=(\S*)", site.command("scontrol", "show", "job", str(number))))


def running(site):
    return [line.split()[0] for line in site.jobs() if line.endswith("RUNNING")]


def test_a_job_is_canceled_in_the_middle(site, start, write, expected, tmp_path):
    run_toml = write(tmp_path, SLURM.format(cores=1, jobs=2))
    run = start(run_toml)
    site.wait(lambda: run.n_leaves() and len(running(site)) == 2, "a first leaf, and two jobs")
    victim, other = running(site)
    # The other one computes nothing meanwhile, so that the run does not end before the lost job is replaced.
    stopped = signal_job(site, other, signal.SIGSTOP)
    site.command("scancel", victim)
    new = site.wait(lambda: set(running(site)) - {victim, other}, "another job")
    signal_processes(stopped, signal.SIGCONT)
    assert run.wait() == 0, run.told()
    assert same(tmp_path / "catalog", expected)
    assert len(new) == 1
    assert job_facts(site, victim)["JobState"] == "CANCELLED"
    site.wait(lambda: not site.jobs(), "no job outlives the run")
    checked = verified(site, run_toml)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_job_ends_at_its_time_limit(site, start, write, expected, tmp_path):
    """Its workers are stopped, as by a file system that hangs: SLURM ends it, and not they themselves."""
    run = start(write(tmp_path, SLURM.format(cores=2, jobs=1)))
    site.wait(run.n_leaves, "a first leaf")
    [victim] = running(site)
    signal_job(site, victim, signal.SIGSTOP)
    site.command("scontrol", "update", f"JobId={victim}", "TimeLimit=1")
    site.wait(lambda: job_facts(site, victim)["JobState"] == "TIMEOUT", "the time limit")
    assert run.wait() == 0, run.told()
    assert same(tmp_path / "catalog", expected)


def test_a_job_dies_by_the_kill_of_slurms_own_process(site, start, write, expected, tmp_path):
    run = start(write(tmp_path, SLURM.format(cores=1, jobs=1)))
    site.wait(run.n_leaves, "a first leaf")
    [victim] = running(site)
    daemons = [
        process
        for process in processes()
        if f"[{victim}." in command_of(process) and "slurmstepd" in command_of(process)
    ]
    assert daemons
    inside = signal_job(site, victim, signal.SIGSTOP)
    signal_processes([*daemons, *inside], signal.SIGKILL)
    assert run.wait() == 0, run.told()
    assert same(tmp_path / "catalog", expected)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name
)
def test_no_job_outlives_its_run(site, start, write, tmp_path, number):
    run = start(write(tmp_path, SLURM.format(cores=1, jobs=2)))
    site.wait(run.n_leaves, "a first leaf")
    run.process.send_signal(number)
    assert run.wait() == (-9 if number == signal.SIGKILL else 75), run.told()
    site.wait(lambda: not site.jobs(), "no job outlives the run")


def section(tmp_path, **keys):
    data = {"cores": 1, "memory": "1 GiB", "interface": "lo", "log_folder": str(tmp_path / "logs")}
    data |= {"walltime": "00:30:00"} | keys
    whole = {"kind": "slurm", "wait_s": 900, "dashboard_address": "127.0.0.1:0", "slurm": data}
    return parse_strictly(ClusterConfig, whole, "[cluster]")


@pytest.fixture
def here(site, monkeypatch):
    """This process asks the site, too."""
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, site.environment[name])


def test_workers_end_before_their_job_and_are_replaced(site, here, tmp_path):
    with cluster.connect(config := section(tmp_path, walltime="00:03:00")) as client:
        [first] = running(site)
        before = set(cluster.Pool.of(client).threads)
        monitor = cluster.WorkerMonitor(client, config, print)

        def replaced():
            monitor.look()
            return set(cluster.Pool.of(client).threads) - before

        site.wait(replaced, "workers of another job")
        # Not TIMEOUT: the job ended as its workers had.
        assert job_facts(site, first)["JobState"] == "COMPLETED"
        assert running(site) != [first]
    site.wait(lambda: not site.jobs(), "the jobs end")


def test_the_number_of_jobs_follows_the_work(site, here, tmp_path):
    with cluster.connect(config := section(tmp_path, max_jobs=3)) as client:
        monitor = cluster.WorkerMonitor(client, config, print)
        tasks = client.map(_waits, [str(tmp_path / "enough")] * 12, pure=False)

        def of(n_jobs):
            monitor.look()
            return len(running(site)) == n_jobs and len(cluster.Pool.of(client).threads) == n_jobs

        site.wait(lambda: of(3), "three jobs")
        (tmp_path / "enough").touch()
        client.gather(tasks)
        site.wait(lambda: of(1), "one job")


def _waits(path):
    import time

    while not os.path.exists(path):
        time.sleep(0.1)


def test_a_gpu_job_has_workers_with_and_without_a_gpu(site, here, tmp_path):
    """The site's GPUs are no GPUs: what SLURM gives reaches the workers."""
    with cluster.connect(section(tmp_path, cores=3, gpus=2, memory="3 GiB")) as client:
        client.wait_for_workers(3, timeout=900)
        pool = cluster.Pool.of(client)
        assert len(pool.gpus) == 2
        seen = client.run(_visible_gpus)
        assert sorted(seen.values()) == ["", "0", "1"]
        assert {worker for worker, gpu in seen.items() if gpu} == pool.gpus


def _visible_gpus():
    return os.environ["CUDA_VISIBLE_DEVICES"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"partition": "nowhere"}, "sbatch refuses the job: .*[Ii]nvalid partition"),
        ({"cores": 64, "memory": "64 GiB"}, "Requested node configuration is not available"),
        ({"walltime": "02:00:00"}, r"1 job pending \(PartitionTimeLimit\): SLURM will not start them"),
        ({"partition": "closed", "queue_wait_s": 1}, r"1 job pending \(PartitionDown\) after 1 s"),
    ],
)
def test_jobs_that_do_not_start(site, here, tmp_path, keys, message):
    with pytest.raises(ClusterError, match=message), cluster.connect(section(tmp_path, **keys)):
        raise AssertionError("it waits")
    site.wait(lambda: not site.jobs(), "the jobs are canceled")


def submit(site, *words, folder):
    return site.command("sbatch", "--parsable", f"--output={folder}/%x-%j.txt", *words)


SMALL = ("--cpus-per-task=1", "--mem=1G", "--mem-per-cpu=0")


def restarts(site, number):
    return int(job_facts(site, number)["Restarts"])


def limit_soon(site, number):
    """Let a running job's limit come within two minutes."""
    days, _, clock = site.command("squeue", "-h", "-j", number, "-o", "%M").rpartition("-")
    seconds = 0
    for part in clock.split(":"):
        seconds = 60 * seconds + int(part)
    site.command(
        "scontrol", "update", f"JobId={number}", f"TimeLimit={(seconds + 86400 * int(days or 0)) // 60 + 2}"
    )


def test_recipes_go_on_after_a_lost_job_and_their_time_limits(site, start, write, expected, tmp_path):
    run_toml = write(
        tmp_path, '[cluster]\nkind = "local"\nwait_s = 1800\ndashboard_address = "127.0.0.1:0"\n'
    )
    shared, environment = tmp_path / "shared", "--export=ALL,GALBATCH_INTERFACE=lo"
    run = submit(
        site,
        environment,
        "--time=50",
        "--cpus-per-task=1",
        "--mem=1G",
        str(DEPLOY / "slurm" / "run.sbatch"),
        str(run_toml),
        str(shared),
        folder=tmp_path,
    )
    workers = [
        environment,
        "--time=50",
        "--cpus-per-task=1",
        str(DEPLOY / "slurm" / "cpu_workers.sbatch"),
        str(shared),
    ]
    lost = submit(site, *workers, folder=tmp_path)
    site.wait(lambda: n_leaves(run_toml), "a first leaf")
    site.command("scancel", lost)
    site.wait(lambda: job_facts(site, lost)["JobState"] == "CANCELLED", "the canceled job ends")
    assert restarts(site, lost) == 0
    # Without workers the run waits, until its own limit stops it.
    limit_soon(site, run)
    site.wait(lambda: restarts(site, run) == 1, "the run's job is back in the queue")
    site.command("scontrol", "hold", run)
    second = submit(site, *workers, folder=tmp_path)
    site.wait(lambda: second in running(site), "workers that wait for a scheduler")
    limit_soon(site, second)
    site.wait(lambda: restarts(site, second) == 1, "the workers' job is back in the queue")
    for number in (run, second):
        site.command("scontrol", "update", f"JobId={number}", "TimeLimit=50")
    site.command("scontrol", "release", run)
    site.wait(lambda: not site.jobs(), "the run and its workers end", within_s=1800)
    facts = job_facts(site, run), job_facts(site, second)
    assert [one["JobState"] for one in facts] == ["COMPLETED", "COMPLETED"]
    assert same(tmp_path / "catalog", expected)
    checked = verified(site, run_toml)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_cpu_workers_of_the_recipe_join_a_run_of_kind_slurm(site, start, write, expected, tmp_path):
    """They were submitted before it, with the folder of an earlier run that has ended, and end with this one."""
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "ended").touch()
    os.utime(logs / "ended", (time.time() - 3600,) * 2)
    job = submit(
        site,
        "--export=ALL,GALBATCH_INTERFACE=lo",
        "--time=50",
        "--cpus-per-task=1",
        str(DEPLOY / "slurm" / "cpu_workers.sbatch"),
        str(logs),
        folder=tmp_path,
    )
    site.wait(lambda: job in running(site), "workers that wait for a scheduler")
    run = start(write(tmp_path, SLURM.format(cores=1, jobs=1) + f'log_folder = "{logs}"\n'))
    [own] = site.wait(lambda: [one for one in running(site) if one != job], "the run's own job")
    # It computes nothing until the others have written a leaf.
    stopped = signal_job(site, own, signal.SIGSTOP)
    site.wait(run.n_leaves, "a first leaf")
    signal_processes(stopped, signal.SIGCONT)
    assert run.wait() == 0, run.told()
    assert same(tmp_path / "catalog", expected)
    site.wait(lambda: not site.jobs(), "no job outlives the run")
    assert job_facts(site, job)["JobState"] == "COMPLETED"
    events = map(json.loads, (tmp_path / "catalog_log.jsonl").read_text().splitlines())
    assert len({one["worker"] for one in events if one["event"] == "infer"}) == 2


def test_the_recipe_of_one_node_goes_on_after_its_time_limit(site, start, write, expected, tmp_path):
    run_toml = write(tmp_path, '[cluster]\nkind = "local"\ndashboard_address = "127.0.0.1:0"\n')
    job = submit(
        site,
        "--time=50",
        "--cpus-per-task=1",
        "--mem-per-cpu=1G",
        str(DEPLOY / "one_node.sbatch"),
        str(run_toml),
        folder=tmp_path,
    )
    site.wait(lambda: n_leaves(run_toml), "a first leaf")
    # Its worker computes nothing until the limit has come.
    for process in inside_of(site, job):
        if is_worker(psutil.Process(process)):
            os.kill(process, signal.SIGSTOP)
    limit_soon(site, job)
    site.wait(lambda: restarts(site, job) == 1, "the job is back in the queue")
    site.command("scontrol", "update", f"JobId={job}", "TimeLimit=50")
    site.wait(lambda: not site.jobs(), "the run ends", within_s=1800)
    assert job_facts(site, job)["JobState"] == "COMPLETED"
    assert same(tmp_path / "catalog", expected)


def processes():
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def command_of(process):
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def inside_of(site, job):
    """The processes of a job: those that have its id and this site in their environment, but for SLURM's own."""
    wanted = {f"SLURM_JOB_ID={job}".encode(), f"SLURM_CONF={site.environment['SLURM_CONF']}".encode()}
    found = []
    for process in processes():
        try:
            environment = set(Path(f"/proc/{process}/environ").read_bytes().split(b"\0"))
        except OSError:
            continue
        if wanted <= environment:
            found.append(process)
    return found


def signal_job(site, job, number):
    found = inside_of(site, job)
    signal_processes(found, number)
    return found


def signal_processes(found, number):
    for process in found:
        try:
            os.kill(process, number)
        except ProcessLookupError:
            continue
