"""Writes what came of the faults into docs/reference/faults.md: ``python -m tests.faults.table LOG``, with the log of ``--faults-log``."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.faults.kinds import KINDS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "faults.md"

HEAD = (
    "| fault | place | how the run comes through | runs struck | objects lost |",
    "|---|---|---|---|---|",
)

TABLE = re.compile(r"<!-- played -->.*?<!-- end of played -->", re.S)


def table(faults: Iterable[Mapping[str, Any]]) -> str:
    """The sentence and the table of what came of faults; of each seed the last line of the log counts."""
    last = {one["seed"]: one for one in faults}
    struck = [one for one in last.values() if one["struck"] and one["passed"]]
    n_struck = Counter(one["fault"] for one in struck)
    n_lost = Counter()
    for one in last.values():
        n_lost[one["fault"]] += one["lost"]
    rows = [
        f"| {kind.name} | {', '.join(kind.where)} | {kind.expected.value} | {n_struck[kind.name]} | "
        f"{n_lost[kind.name] if n_struck[kind.name] else ''} |".replace("|  |", "| |")
        for kind in KINDS
    ]
    said = (
        f"{len(struck)} faults struck runs or their outputs, of {len(n_struck)} kinds out of {len(KINDS)}; "
        f"{sum(n_lost.values())} objects were lost."
    )
    if n_failed := sum(not one["passed"] for one in last.values()):
        said += f" {n_failed} others failed a check, some before lost objects were counted."
    return "\n".join(["<!-- played -->", said, "", *HEAD, *rows, "<!-- end of played -->"])


def read_log(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    made = table(read_log(Path(sys.argv[1])))
    PAGE.write_text(TABLE.sub(lambda _: made, text), encoding="utf-8")


if __name__ == "__main__":
    main()
