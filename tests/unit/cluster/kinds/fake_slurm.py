"""Stand-ins of SLURM's commands: jobs are processes of this machine, and files of a folder say how the site behaves.

`refuse`: what sbatch says when it refuses a job, which `when` limits to "--test-only" or "job"; `pending`: the reason why jobs wait, instead of
starting; `scripts/`: the scripts that were submitted; `out/`: what the jobs printed; `canceled`: what scancel was given.
"""

import os
import signal
from pathlib import Path

SBATCH = """#!/bin/bash
case "$1" in --test-only) kind=--test-only; script=$2;; *) kind=job; script=$1;; esac
if [ -e "$HERE/refuse" ] && { [ ! -e "$HERE/when" ] || [ "$(cat "$HERE/when")" = $kind ]; }; then cat "$HERE/refuse" >&2; exit 1; fi
if [ $kind = --test-only ]; then cp "$script" "$HERE/tried"; exit 0; fi
copy=$(mktemp "$HERE/scripts/XXXXXX"); cp "$script" "$copy"
if [ -e "$HERE/pending" ]; then command="sleep 1000"; else command="bash $copy"; fi
setsid $command > "$HERE/out/$(basename "$copy")" 2>&1 < /dev/null &
touch "$HERE/jobs/$!"; echo "Submitted batch job $!"
"""

SQUEUE = """#!/bin/bash
for job in "$HERE"/jobs/*; do
    number=$(basename "$job"); kill -0 "$number" 2>/dev/null || continue
    grep -q '^State:.*Z' "/proc/$number/status" 2>/dev/null && continue
    if [ -e "$HERE/pending" ]; then echo "$number|PENDING|$(cat "$HERE/pending")"; else echo "$number|RUNNING|None"; fi
done
"""

SCANCEL = """#!/bin/bash
echo "$@" >> "$HERE/canceled"
case "$1" in --name=*) set -- $(ls "$HERE/jobs");; esac
for number in "$@"; do kill -TERM -- "-$number" 2>/dev/null; done
exit 0
"""


class FakeSlurm:
    """The stand-ins, in a folder that is first on PATH."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        self.folder = folder
        for name in ("bin", "jobs", "scripts", "out"):
            (folder / name).mkdir(parents=True)
        for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE), ("scancel", SCANCEL)):
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        monkeypatch.setenv("HERE", str(folder))
        monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")

    def say(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def scripts(self) -> list[str]:
        return [path.read_text() for path in sorted((self.folder / "scripts").iterdir())]

    def canceled(self) -> str:
        path = self.folder / "canceled"
        return path.read_text() if path.exists() else ""

    def running(self) -> list[int]:
        """The jobs' process groups that still have processes."""
        return [int(path.name) for path in (self.folder / "jobs").iterdir() if _is_alive(int(path.name))]

    def end(self) -> None:
        for number in self.running():
            os.killpg(number, signal.SIGKILL)


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
