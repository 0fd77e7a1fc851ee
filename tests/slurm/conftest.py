"""A SLURM site for the whole session, and the catalog that a run without SLURM makes of the small survey."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.slurm import loopback


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--slurm"):
        for item in items:
            if item.path.is_relative_to(Path(__file__).parent):
                item.add_marker(pytest.mark.skip(reason="starts a SLURM site: make test-slurm"))


@pytest.fixture(scope="session")
def site():
    if reason := loopback.why_not():
        pytest.fail(reason)
    # Not pytest's own folder, whose parents only its user may enter: sockets have short paths, and munge looks at the parents.
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with loopback.running_site(folder) as running:
            # As on a real site, where environments lie on a shared file system: jobs find galbatch and dask on PATH.
            running.environment["PATH"] = f"{Path(sys.executable).parent}:{running.environment['PATH']}"
            yield running


class Run:
    """A run as a process of its own, as a user starts it on a login node; what it prints is in a file."""

    def __init__(self, site, run_toml):
        self.site, self.run_toml, self.output = site, run_toml, run_toml.parent / "output.txt"
        with open(self.output, "w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "galbatch", "run", str(run_toml)],
                env=site.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def told(self):
        return self.output.read_text()

    def n_leaves(self):
        return n_leaves(self.run_toml)

    def wait(self):
        return self.process.wait(1800)

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


def n_leaves(run_toml):
    return len(list((run_toml.parent / "catalog").glob("dataset/**/Npix=*.parquet")))


@pytest.fixture
def start(site):
    """Start runs, which do not outlive the test; neither do jobs."""
    runs = []

    def begin(run_toml):
        runs.append(Run(site, run_toml))
        return runs[-1]

    yield begin
    for run in runs:
        run.end()
    site.command("scancel", "--user=root", check=False)
    site.wait(lambda: not site.jobs(), "the test's jobs end")


OUTPUTS = '[cutouts]\nstore = "store"\n[catalog]\npath = "catalog"\n'


@pytest.fixture(scope="session")
def write(write_run):
    """Write a run.toml whose outputs lie beside it."""

    def write_one(folder, cluster):
        path = write_run(folder, passes=64)
        text = path.read_text()
        path.write_text(text[: text.index("[cluster]")] + cluster + OUTPUTS)
        return path

    return write_one


@pytest.fixture(scope="session")
def expected(write, tmp_path_factory):
    """The catalog of a run without SLURM."""
    path = write(
        tmp_path_factory.mktemp("local"), '[cluster]\nworkers = 2\ndashboard_address = "127.0.0.1:0"\n'
    )
    done = subprocess.run([sys.executable, "-m", "galbatch", "run", str(path)], env=os.environ, check=False)
    assert done.returncode == 0
    return path.parent / "catalog"
