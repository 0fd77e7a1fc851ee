"""A SLURM site on the loopback: munged, slurmctld and slurmd as processes of this test, in a folder of its own."""

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

NEEDED = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")

HOW_TO_INSTALL = "apt-get install --no-install-recommends slurm-wlm munge, and run the tests as root"

# The node has more processors than this machine: jobs share what there is. KillWait is the time between SIGTERM and SIGKILL.
SLURM_CONF = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=5,bf_interval=5
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
KillWait=5
MinJobAge=300
JobRequeue=1
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 Sockets=1 CoresPerSocket=16 ThreadsPerCore=1 RealMemory=64000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=60 State=UP
PartitionName=closed Nodes={host} MaxTime=60 State=DOWN
"""


def why_not():
    """Return why no site can be started here; empty if it can."""
    missing = [name for name in NEEDED if shutil.which(name, path=search_path()) is None]
    if missing:
        return f"{', '.join(missing)} not installed: {HOW_TO_INSTALL}"
    return (
        ""
        if os.geteuid() == 0
        else f"slurmd starts jobs as their users, which only root may: {HOW_TO_INSTALL}"
    )


def search_path():
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


class Site:
    """A running site; `command` asks it, with the right configuration in the environment."""

    def __init__(self, folder):
        self.folder = folder
        self.environment = os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": search_path(),
        }

    def command(self, *words, check=True):
        found = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert not check or found.returncode == 0, f"{words}: {found.stdout}{found.stderr}"
        return found.stdout.strip()

    def jobs(self, what="%i %T"):
        """Return a line for each job that waits or runs."""
        return self.command("squeue", "-h", "-o", what).splitlines()

    def wait(self, condition, what, within_s=600):
        """Wait until `condition` returns something true, and return it."""
        deadline = time.monotonic() + within_s
        while not (found := condition()):
            assert time.monotonic() < deadline, f"{what}: not within {within_s} s; {self.told()}"
            time.sleep(0.5)
        return found

    def told(self):
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{path.name}: {path.read_text(errors='replace')[-1500:]}" for path in logs)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running_site(folder: Path):
    """Yield a running site whose files lie in `folder`; its processes and jobs end with the context."""
    site, processes = Site(folder), []
    # Other processes of this machine may have a munge of their own: this one has its own socket and key.
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir(mode=0o755)
    # munged refuses folders that others can write in above its files, as /tmp is.
    key = folder / "munge" / "key"
    site.command("mungekey", "--create", f"--keyfile={key}")
    host = socket.gethostname().split(".")[0]
    (folder / "slurm.conf").write_text(
        SLURM_CONF.format(host=host, folder=folder, controller=_free_port(), daemon=_free_port())
    )
    # Two devices that are always there stand for GPUs: jobs get CUDA_VISIBLE_DEVICES as on a real node.
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
    munged = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={key}"]
    munged += [
        f"--pid-file={folder}/munged.pid",
        f"--seed-file={folder}/munge/seed",
        f"--log-file={folder}/munged.log",
    ]
    commands = [munged, ["slurmctld", "-D", "-i"], ["slurmd", "-D", "-N", host]]
    try:
        for command in commands:
            with open(folder / f"{command[0]}.out.log", "w") as output:
                started = subprocess.Popen(
                    command,
                    env=site.environment,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            processes.append(started)
            if command is munged:
                site.wait((folder / "munge.socket").exists, "munged")
        site.wait(
            lambda: "idle" in site.command("sinfo", "-h", "-p", "main", "-o", "%T", check=False), "slurmd"
        )
        yield site
    finally:
        if len(processes) == len(commands):
            site.command("scancel", "--user=root", check=False)
            site.wait(lambda: not site.jobs(), "jobs that were canceled", within_s=120)
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
