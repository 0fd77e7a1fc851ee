"""The process of one step: `python -m galbatch.doctor NAME ARGUMENTS [PIPE]` answers with JSON on stdout.

PIPE is the descriptor of a pipe that the doctor holds open: when it is closed, the doctor is gone, and the step ends with all its processes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import threading

from galbatch.doctor.access import redacted
from galbatch.doctor.steps import answer
from galbatch.errors import GalbatchError


def main() -> None:
    """Answer one step; an expected error is printed alone, others with their traceback."""
    if len(sys.argv) > 3:
        threading.Thread(target=end_with_doctor, args=[int(sys.argv[3])], daemon=True).start()
    try:
        finding = answer(sys.argv[1], json.loads(sys.argv[2]))
    except (GalbatchError, OSError, RuntimeError) as error:
        # What torch says of a GPU is a RuntimeError: it is an answer of this machine, no fault of the program.
        print(redacted(f"{error}"), file=sys.stderr)
        sys.exit(1)
    print(json.dumps(dataclasses.asdict(finding)))


def end_with_doctor(pipe: int) -> None:
    """Kill the group of this process, which it leads, when the pipe is closed."""
    os.read(pipe, 1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
