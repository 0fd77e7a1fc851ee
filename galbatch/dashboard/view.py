"""The dashboard's page as HTML: what the templates show, as text and as points of curves."""

from __future__ import annotations

import base64
import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from galbatch.core.flags import FlagClass, ModelFlag, PixelFlag
from galbatch.dashboard.broadcast import Failure, RunNews
from galbatch.dashboard.counts import COUNTED
from galbatch.dashboard.events import RATE_MINUTES, duration
from galbatch.dashboard.history import Course

__all__ = ["WorkerView", "render_page", "render_state", "worker_view"]

STEPS = {"ingest": "cutting", "photometry": "measuring", "infer": "inferring"}
"""Words for the stages of a run while they last."""

TITLES = {
    "galaxies": "Galaxies per second",
    "cutouts": "Cutouts per second",
    "passes": "Passes per second",
}

MAX_WORKERS = 100
"""Workers that have a row; a wall shows no more, and the sums are of all."""

SILENT_S = 15.0
"""A worker that has not reported for so long is marked: each reports every few seconds at least."""

MAX_CURVE_POINTS = 240

MAX_REASONS = 6
"""Reasons of failures that are shown: often many partitions fail for the same one."""


@dataclass(frozen=True)
class WorkerView:
    """One worker's row.

    Attributes
    ----------
    rates : counts per second, in the order of `COUNTED`
    memory_bytes, memory_limit_bytes : of the process; a limit of 0 is none
    gpu_percent : use of the GPU; None without a GPU
    gpu_bytes, gpu_limit_bytes : memory of the GPU
    silent_s : seconds since its last heartbeat
    """

    name: str
    address: str
    rates: tuple[float, ...]
    cpu_percent: float
    memory_bytes: float
    memory_limit_bytes: float
    silent_s: float
    gpu_percent: float | None = None
    gpu_bytes: float = 0.0
    gpu_limit_bytes: float = 0.0


def worker_view(state: Any, rates: tuple[float, ...]) -> WorkerView:
    """Return the row of a worker from the scheduler's `WorkerState` and its rates."""
    metrics = state.metrics
    gpu = metrics.get("gpu") or {}
    return WorkerView(
        name=str(state.name),
        address=state.address,
        rates=rates,
        cpu_percent=float(metrics.get("cpu", 0.0)),
        memory_bytes=float(metrics.get("memory", 0.0)),
        memory_limit_bytes=float(state.memory_limit or 0),
        silent_s=max(0.0, time.time() - state.last_seen),
        gpu_percent=float(gpu["utilization"]) if "utilization" in gpu else None,
        gpu_bytes=float(gpu.get("memory-used") or 0.0),
        gpu_limit_bytes=float(gpu.get("memory-total") or 0.0),
    )


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("galbatch.dashboard"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "rate": rate_text,
        "size": size_text,
        "duration": duration,
        "count": lambda n: f"{n:,}",
        # Names are long words, which a narrow column would break anywhere.
        "wrapped": lambda name: escape(name).replace("_", Markup("_<wbr>")),
        "png": lambda data: f"data:image/png;base64,{base64.b64encode(data).decode()}",
    }
    return environment


def render_page() -> str:
    """Return the page, which is empty until its script has asked for the state."""
    return _environment().get_template("page.html").render()


def render_state(news: RunNews | None, course: Course | None, workers: Sequence[WorkerView]) -> str:
    """Return the state of a run and of the workers as a piece of HTML; None where no run has begun."""
    shown = sorted(workers, key=lambda one: (len(one.name), one.name))
    times, rates = course.rates() if course else (np.empty(0), np.empty((0, len(COUNTED))))
    now = dict(zip(COUNTED, rates[-1] if len(rates) else np.zeros(len(COUNTED)), strict=True))
    return (
        _environment()
        .get_template("state.html")
        .render(
            news=news,
            left_s=left_s(news, course) if news else None,
            step=step_text(news) if news else "",
            elapsed_s=course.elapsed_s if course else 0.0,
            now=now,
            totals=dict(zip(COUNTED, course.done(), strict=True)) if course else {},
            curves=[
                curve(name, times, rates[:, COUNTED.index(name)])
                for name in ("galaxies", "cutouts", "passes")
            ],
            workers=shown[:MAX_WORKERS],
            n_workers=len(workers),
            has_gpus=any(one.gpu_percent is not None for one in workers),
            flags=flag_rows(dict(news.flags), news.n_inferred) if news else [],
            counted=COUNTED,
            failures=(groups := failure_groups(news.failures)[:MAX_REASONS] if news else []),
            n_failures_hidden=news.n_failed - sum(len(one["partitions"]) for one in groups) if news else 0,
            silent_s=SILENT_S,
        )
    )


def left_s(news: RunNews, course: Course | None) -> float | None:
    """Return the seconds that a run still takes, at the rate of the last ten minutes; None where that is not known.

    Inference is the last step, so its rate decides. Unlike the news, it counts partitions that are under way.
    """
    inference = next((stage for stage in news.stages if stage.name == "infer"), None)
    if course is None or inference is None:
        return news.left_s
    galaxies = COUNTED.index("galaxies")
    rate = float(course.mean_rates(60.0 * RATE_MINUTES)[galaxies])
    left = inference.total - inference.before - course.done()[galaxies]
    return max(left, 0) / rate if rate > 0 else news.left_s


def step_text(news: RunNews) -> str:
    """Return the step that a run is at, in a word or two."""
    if not news.is_running:
        return ""
    if not news.stages:
        return "starting"
    left = [STEPS[stage.name] for stage in news.stages if stage.done < stage.total]
    # Partitions that failed are left, too, and the catalog is finished after the last attempt.
    return " and ".join(left) or "finishing"


def curve(name: str, times_s: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Return one panel: its title, the largest value, the time of its end, and the curve in 0..100 to the right and down."""
    keep = np.unique(np.linspace(0, len(times_s) - 1, min(len(times_s), MAX_CURVE_POINTS)).astype(int))
    top = nice_ceiling(float(values.max(initial=0.0)))
    end_s = float(times_s[-1]) if len(times_s) else 0.0
    points = [f"{100 * times_s[i] / end_s:.2f},{100 * (1 - values[i] / top):.2f}" for i in keep if end_s > 0]
    return {
        "name": name,
        "title": TITLES[name],
        "top": top,
        "end_s": end_s,
        "points": " ".join(points),
        "last": float(values[-1]) if len(values) else 0.0,
    }


def nice_ceiling(value: float) -> float:
    """Return the next of 1, 2, 5 times a power of ten at or above a value; 1 for 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9)))


def flag_rows(flags: Mapping[str, int], n_objects: int) -> list[dict[str, Any]]:
    """Return flags by column and name with their count, share of the objects and text; quality flags first, then by count."""
    texts = {str(flag.name): flag for kind in (PixelFlag, ModelFlag) for flag in kind}
    rows = []
    for key, n in flags.items():
        column, _, name = key.rpartition(" ")
        flag = texts[name]
        rows.append(
            {
                "column": column,
                "name": name,
                "n": n,
                "share": n / n_objects if n_objects else 0.0,
                "text": flag.text,
                "is_quality": flag.flag_class is FlagClass.QUALITY,
            }
        )
    return sorted(rows, key=lambda row: (not row["is_quality"], -int(row["n"]), str(row["name"])))


def failure_groups(failures: Sequence[Failure]) -> list[dict[str, Any]]:
    """Return the failures by their reason, in the order in which the reasons come: names of partitions, time of the first."""
    groups: dict[str, dict[str, Any]] = {}
    for one in failures:
        group = groups.setdefault(one.reason, {"reason": one.reason, "time": one.time, "partitions": []})
        group["partitions"].append(one.partition)
    return list(groups.values())


def rate_text(value: float) -> str:
    """Return a rate with three digits or so, such as ``0.42``, ``8.1``, ``12,345`` or ``1.23 M``."""
    if value <= 0:
        return "0"
    if value >= 1e6:
        return f"{value / 1e6:.3g} M"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def size_text(n_bytes: float) -> str:
    """Return a size in MiB or GiB."""
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.0f} MiB"
