"""The process of one step: `python -m galbatch.doctor NAME ARGUMENTS` answers with JSON on stdout."""

from __future__ import annotations

import dataclasses
import json
import sys

from galbatch.doctor.access import redacted
from galbatch.doctor.steps import answer
from galbatch.errors import GalbatchError


def main() -> None:
    """Answer one step; an expected error is printed alone, others with their traceback."""
    try:
        finding = answer(sys.argv[1], json.loads(sys.argv[2]))
    except (GalbatchError, OSError, RuntimeError) as error:
        # What torch says of a GPU is a RuntimeError: it is an answer of this machine, no fault of the program.
        print(redacted(f"{error}"), file=sys.stderr)
        sys.exit(1)
    print(json.dumps(dataclasses.asdict(finding)))


if __name__ == "__main__":
    main()
