"""Carries out docs/howto/slurm.md: its configs, and its commands in their order."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "slurm.md"

FOLDERS = {"hsc": "pdr3_wide", "lsst": "dp1"}

# A ceiling, not an expectation.
WITHIN_S = 900


def blocks(language):
    """The page's blocks of code in a language."""
    return re.findall(
        rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def configs():
    """The text of each run.toml of the page, by its name."""
    named = re.findall(
        r"^`(\w+\.toml)`:\n\n```toml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return dict(named)


def commands(survey):
    """The page's commands after those that make the stand-ins, for one of the surveys: hsc or lsst."""
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("galbatch simulate")]
    return [line.replace("pdr3_wide", FOLDERS[survey]).replace("hsc", survey) for line in told]


class Reader:
    """Somebody who follows the page for one of the surveys, in a folder; `survey` is hsc or lsst.

    The first run is stopped when some partitions are done: a worker was killed before. `lose_a_worker` takes the run's process.
    """

    def __init__(self, folder, survey, *, lose_a_worker, environment=None):
        self.folder, self.survey = folder, survey
        self.lose_a_worker = lose_a_worker
        self.environment = environment or dict(os.environ)
        self.catalog = folder / f"{survey}_catalog"
        self.codes = []

    def argv(self, line):
        words = shlex.split(line)
        return [sys.executable, "-m", *words] if words[0] == "galbatch" else words

    def call(self, line):
        done = subprocess.run(
            self.argv(line),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        return done.stdout

    def make_the_stand_in(self):
        made = [
            line
            for block in blocks("sh")
            for line in block.splitlines()
            if line.startswith("galbatch simulate")
        ]
        (line,) = [line for line in made if f"--layout {self.survey} " in line]
        self.call(line)

    def n_leaves(self):
        return len(list(self.catalog.glob("dataset/**/Npix=*.parquet")))

    def wait_for_leaves(self, n_leaves, process):
        deadline = time.monotonic() + WITHIN_S
        while self.n_leaves() < n_leaves and process.poll() is None:
            assert time.monotonic() < deadline, f"{n_leaves} leaves"
            time.sleep(0.1)

    def launch(self, line):
        """Start the run, lose a worker of it, and stop it."""
        with open(self.folder / "output.txt", "w") as output:
            process = subprocess.Popen(
                self.argv(line),
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            self.wait_for_leaves(1, process)
            self.lose_a_worker(process)
            self.wait_for_leaves(self.n_leaves() + 1, process)
            process.send_signal(signal.SIGTERM)
            self.codes.append(process.wait(WITHIN_S))
        finally:
            process.kill()
            process.wait()
        # 0 where the last partitions were done before the signal came.
        assert self.codes[-1] in (75, 0), (self.folder / "output.txt").read_text()

    def follow(self):
        """Carry out every command, and the Python at the end; return what each printed."""
        said, runs = {}, 0
        for line in commands(self.survey):
            if line.startswith("galbatch run") and not runs:
                self.launch(line)
            else:
                said[line] = self.call(line)
            runs += line.startswith("galbatch run")
        assert runs == 2
        (script,) = blocks("python")
        (self.folder / "query.py").write_text(script.replace("hsc", self.survey))
        said["python"] = self.call(f"{shlex.quote(sys.executable)} query.py")
        return said
