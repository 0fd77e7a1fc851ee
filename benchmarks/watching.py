"""What does the dashboard take of a run's processor time: on a worker, on the scheduler, in the process of the run?

    OMP_NUM_THREADS=1 python benchmarks/watching.py [--workers 2 64 512] [--calls 200]

Each part of it is called many times by itself, and its processor time is multiplied by how often it is called in a second of a run: a worker's heartbeats
carry its counts, it draws a picture a second and counts objects whose passes have ended, here 16 at once; the scheduler looks at all workers once a second, takes
the news of the run every two, and renders the page every two seconds while somebody watches; the run's process gathers its news.
What they take of one core is printed. Only what a worker takes slows the throughput down: scheduler and run are processes of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from distributed.protocol import pickle
from harness import RESULTS

from galbatch import api, dashboard
from galbatch.core.columns import PIXEL_FLAGS
from galbatch.dashboard.broadcast import SEND_S
from galbatch.dashboard.counts import COUNTED, METRIC
from galbatch.dashboard.page import LOOK_MS

HEARTBEATS_PER_S = 2.0
"""Of Dask's workers where these are ten at most; of more, each sends fewer."""

GROUPS_PER_S = 10.0
"""Groups of 16 objects that one worker counts; on most networks they are larger, and fewer: 160 galaxies a second, more than a GPU does at 239 px."""

PARTITIONS_PER_S = 1.0
N_OBJECTS = 2_000
"""Objects of a partition, of which flags are counted when it is done."""


def each_ms(part: Callable[[], object], calls: int) -> float:
    """Return the processor time of one call in ms."""
    part()
    started = time.process_time()
    for _ in range(calls):
        part()
    return 1e3 * (time.process_time() - started) / calls


def parts_of_a_worker() -> dict[str, tuple[Callable[[], object], float]]:
    """Return what a worker does for the dashboard, with the calls a second."""
    rng = np.random.default_rng(1)
    cutouts: Any = SimpleNamespace(
        image=rng.normal(0, 1, (1, 3, 239, 239)).astype(np.float32),
        sky_sigma_njy=np.ones((1, 3), np.float32),
    )
    worker: Any = SimpleNamespace(metrics={})
    dashboard.CountsOnWorker().setup(worker)

    def beat() -> None:
        # The metric awaits nothing.
        with contextlib.suppress(StopIteration):
            worker.metrics[METRIC](worker).send(None)

    counts = dashboard.TaskCounts()
    flags = {PIXEL_FLAGS.name: rng.integers(0, 64, N_OBJECTS).astype(np.int32)}
    return {
        "heartbeat": (beat, HEARTBEATS_PER_S),
        "picture": (lambda: api.thumbnail_png(cutouts, 0), 1.0),
        "counting a group": (lambda: counts.add(galaxies=16, passes=16 * 64), GROUPS_PER_S),
        "flags of a partition": (lambda: dashboard.flag_counts([PIXEL_FLAGS], flags), PARTITIONS_PER_S),
    }


def heartbeat(number: int, n_done: int) -> Any:
    """Return what a scheduler knows of a worker."""
    counts = dict.fromkeys(COUNTED, n_done)
    nothing = dict.fromkeys(COUNTED, 0)
    metric = {"process": str(number), "before": nothing, "under_way": nothing, **counts}
    return SimpleNamespace(
        name=f"worker-{number}",
        address=f"tcp://10.0.0.1:{number}",
        metrics={METRIC: metric, "cpu": 99.0, "memory": 2**31},
        memory_limit=2**32,
        last_seen=time.time(),
    )


def news_of_a_run(png: bytes) -> dashboard.Broadcast:
    """Return the news of a run that has met everything that the page shows."""
    news = dashboard.Broadcast(dashboard.Silent(), SimpleNamespace(status="closed"), name="wide")  # type: ignore[arg-type]
    for stage in ("ingest", "infer"):
        news.start(stage, 10**8, 0)
    for number in range(60):
        values = tuple((f"gampen {name}", "0.42 ± 0.05") for name in ("bt", "re", "flux", "mag"))
        sample = dashboard.Sample(str(number), png, values)
        flags = {"flags LOW_SNR": 5, "gampen_flags OUT_OF_DOMAIN": 2}
        numbers = {"objects": N_OBJECTS, "step": "infer", "reason": f"tile {number % 5} is gone"}
        for kind in ("infer", "failed"):
            news.record(dashboard.Event(kind, "..", f"Npix={number}", None, numbers, flags, (sample,)))
    return news


def parts_of_the_scheduler(
    n_workers: int, news: dashboard.Broadcast
) -> dict[str, tuple[Callable[[], object], float]]:
    """Return what a scheduler does for the dashboard, with the calls a second, for so many workers in the tenth hour of a run."""
    now = {"s": 0.0}
    page = dashboard.GalaxiesPage(lambda: now["s"])
    workers = {number: heartbeat(number, 0) for number in range(n_workers)}
    page._scheduler = SimpleNamespace(workers=workers)
    data = pickle.dumps(news.news())
    page.take(pickle.loads(data))
    for second in range(0, 36_000, 30):
        now["s"] = float(second)
        workers.update({number: heartbeat(number, second) for number in range(min(n_workers, 2))})
        page.look()

    def look() -> None:
        now["s"] += 1.0
        page.look()

    def render() -> bytes:
        page._looks += 1
        return page.rendered()

    looks_per_s = 1e3 / LOOK_MS
    return {
        "look": (look, looks_per_s),
        "news": (lambda: page.take(pickle.loads(data)), 1 / SEND_S),
        "page, while somebody watches": (render, 0.5),
    }


def main(n_workers: list[int], calls: int) -> None:
    """Measure, print and keep the shares."""
    worker = parts_of_a_worker()
    picture: Any = worker["picture"][0]
    news = news_of_a_run(picture())
    sides = {
        "a worker": worker,
        "the run": {"news": (lambda: pickle.dumps(news.news()), 1 / SEND_S)},
        **{f"the scheduler of {n} workers": parts_of_the_scheduler(n, news) for n in n_workers},
    }
    kept: dict[str, dict[str, float]] = {}
    for side, parts in sides.items():
        ms = {name: each_ms(part, calls) for name, (part, _) in parts.items()}
        share = sum(ms[name] * per_s for name, (_, per_s) in parts.items()) / 10
        print(f"{side}: {share:.3f} % of a core")
        for name, (_, per_s) in parts.items():
            print(f"  {name:<30} {ms[name]:8.3f} ms, {per_s:g} times a second")
        kept[side] = {"percent_of_a_core": share, **{f"{name}_ms": value for name, value in ms.items()}}
    RESULTS.mkdir(exist_ok=True)
    content = {"question": "processor time of the dashboard", "calls": calls, "sides": kept}
    (RESULTS / "watching.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 64, 512])
    parser.add_argument("--calls", type=int, default=200)
    given = parser.parse_args()
    main(given.workers, given.calls)
