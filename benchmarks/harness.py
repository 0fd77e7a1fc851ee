"""One harness for all benchmarks: contenders take turns, results are ratios to the first.

Machines are noisy: contenders run A B A B ... in one process after a warm-up, and a figure is the median of
the ratios pair by pair, with its range. Results are kept as JSON under ``benchmarks/results/``.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Measured:
    """One contender: seconds of each round, and its time over the first contender's, pair by pair."""

    name: str
    seconds: list[float]
    ratio_median: float
    ratio_min: float
    ratio_max: float


def compare(
    contenders: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 5,
    warm_up: bool = True,
    before: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Measured]:
    """Run the contenders in turn and compare each with the first; `before` runs before each, outside the time.

    `time.process_time` as the clock counts the processor time of all threads, which other work on the cores changes less.
    """
    for contender in contenders.values() if warm_up else ():
        before()
        contender()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            before()
            started = clock()
            contender()
            seconds[name].append(clock() - started)
    first = next(iter(seconds.values()))
    measured = []
    for name, mine in seconds.items():
        ratios = [a / b for a, b in zip(mine, first, strict=True)]
        measured.append(Measured(name, mine, statistics.median(ratios), min(ratios), max(ratios)))
    return measured


def report(question: str, measured: list[Measured], *, items: int, unit: str) -> None:
    """Print a table and keep the JSON. `items` of `unit` are what one round handles."""
    print(question)
    for row in measured:
        each_ms = 1e3 * statistics.median(row.seconds) / items
        print(
            f"  {row.name:<40} {row.ratio_median:8.2f} x the first ({row.ratio_min:.2f} to {row.ratio_max:.2f}),"
            f" here {each_ms:.3f} ms a {unit}"
        )
    RESULTS.mkdir(exist_ok=True)
    content = {
        "question": question,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "items": items,
        "unit": unit,
        "measured": [asdict(row) for row in measured],
    }
    name = "".join(c if c.isalnum() else "_" for c in question.lower()).strip("_")
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
