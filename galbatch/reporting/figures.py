"""The report's figures, as PNG bytes.

Colors are Okabe and Ito's (2008), which readers with any color vision can tell apart.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from galbatch.reporting.contents import Contents, Quantity
from galbatch.reporting.recovery import Comparison

__all__ = ["INCHES_PER_QUANTITY", "distributions", "recovery_panels", "sky_map", "styled_figure"]

Floats = npt.NDArray[np.float64]

BLUE, VERMILION, GREEN, GRAY = "#0072B2", "#D55E00", "#009E73", "#8a8f98"
INK, RULE = "#1f2430", "#d9dce3"

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "axes.labelcolor": INK,
    "legend.frameon": False,
    "savefig.facecolor": "white",
}
DPI = 180

BAR_STYLE: dict[str, Any] = {
    "fmt": "o",
    "ms": 2.2,
    "color": BLUE,
    "ecolor": "#7fb5d8",
    "elinewidth": 0.6,
    "alpha": 0.9,
    "mew": 0,
    "zorder": 3,
}

DENSE = 20_000  # points above which the sky map shows density instead
N_BARS = 300  # with more, error bars hide each other
INCHES_PER_QUANTITY = 2.7
WIDE_RANGE = 30.0  # a positive quantity whose range is wider is shown on a logarithmic axis


@contextmanager
def styled_figure(width: float, height: float, buffer: io.BytesIO) -> Iterator[Figure]:
    """Give a figure of `width` by `height` inches in the report's style, and write it into `buffer` as PNG afterwards."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        figure.savefig(buffer, format="png", dpi=DPI)


def sky_map(contents: Contents) -> bytes:
    """Draw where the objects are; flagged ones stand out. Dense catalogs are shown as counts."""
    buffer = io.BytesIO()
    with styled_figure(6.4, 4.6, buffer) as figure:
        axes = figure.add_subplot()
        if len(contents) > DENSE:
            shown = axes.hexbin(contents.ra_deg, contents.dec_deg, gridsize=80, mincnt=1, cmap="cividis")
            figure.colorbar(shown, ax=axes, label="objects in a cell")
        else:
            for chosen, color, size, name in (
                (contents.clean, BLUE, 4, "pixels fine"),
                (~contents.clean, VERMILION, 14, "pixels spoiled"),
            ):
                label = f"{name}: {int(chosen.sum()):,}"
                axes.scatter(
                    contents.ra_deg[chosen], contents.dec_deg[chosen], s=size, c=color, lw=0, label=label
                )
            axes.legend(
                loc="lower left",
                bbox_to_anchor=(0, 1),
                ncols=2,
                borderaxespad=0.2,
                handletextpad=0.2,
                markerscale=1.6,
            )
        axes.set(xlabel="right ascension (deg), east to the left", ylabel="declination (deg)")
        axes.invert_xaxis()
        # One degree of right ascension is cos(dec) degrees on the sky.
        axes.set_aspect(1 / max(np.cos(np.deg2rad(np.median(contents.dec_deg))), 0.05), adjustable="datalim")
    return buffer.getvalue()


def distributions(quantities: Sequence[Quantity], truths: Sequence[Comparison]) -> bytes:
    """Draw medians (top) and half-widths of the 68 % interval (bottom) of each quantity of one model."""
    buffer = io.BytesIO()
    known = {comparison.quantity.parameter: comparison for comparison in truths}
    with styled_figure(INCHES_PER_QUANTITY * len(quantities), 4.4, buffer) as figure:
        grid = figure.subplots(2, len(quantities), squeeze=False)
        for column, quantity in enumerate(quantities):
            _median_histogram(grid[0, column], quantity, known.get(quantity.parameter))
            _width_histogram(grid[1, column], quantity)
        for row in grid:
            row[0].set_ylabel("objects")
    return buffer.getvalue()


def _median_histogram(axes: Axes, quantity: Quantity, truth: Comparison | None) -> None:
    median = quantity.median[np.isfinite(quantity.median)]
    bins = _bins(axes, median)
    axes.hist(median, bins=bins, color=BLUE, alpha=0.85, label="posterior median")
    if truth is not None:
        axes.hist(truth.truth, bins=bins, histtype="step", color=VERMILION, lw=1.3, label="truth")
        axes.legend(fontsize=7.5, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.1)
    axes.set_xlabel(quantity.label)


def _width_histogram(axes: Axes, quantity: Quantity) -> None:
    ends = quantity.interval(0.6827)
    axes.set_xlabel(f"± of {quantity.label}")
    if ends is None:
        axes.text(0.5, 0.5, "no 68 % interval in the catalog", ha="center", transform=axes.transAxes)
        return
    width = (ends[1] - ends[0]) / 2
    width = width[np.isfinite(width) & (width > 0)]
    axes.hist(width, bins=_bins(axes, width), color=GREEN, alpha=0.85)
    if len(width):
        middle = float(np.median(width))
        axes.axvline(middle, color=INK, lw=1)
        digits = max(2 - math.floor(math.log10(middle)), 0)  # three figures, without an exponent
        axes.set_title(f"median ± {middle:,.{digits}f}", fontsize=8, fontweight="normal")


def _bins(axes: Axes, values: Floats) -> list[float]:
    """Return the edges of 40 bins over all but the outermost 0.1 %; an axis whose range asks for it becomes logarithmic."""
    low, high = np.quantile(values, [0.001, 0.999]).tolist() if len(values) else (0.0, 1.0)
    # Values that are all but equal would give ticks that tell nothing.
    margin = max(0.02 * abs(high) - (high - low), 0.0) or (1.0 if high == low else 0.0)
    if _is_wide(low, high):
        axes.set_xscale("log")
        return list(np.geomspace(low, high, 41).tolist())
    axes.locator_params(axis="x", nbins=5)
    return list(np.linspace(low - margin, high + margin, 41).tolist())


def _is_wide(low: float, high: float) -> bool:
    """Return whether a range asks for a logarithmic axis; shares, which end at 1, do not."""
    return low > 0 and high > 1 and high / low > WIDE_RANGE


def recovery_panels(comparison: Comparison) -> bytes:
    """Draw medians against the truth with 68 % bars, residuals, and where truths fall between the quantiles."""
    buffer = io.BytesIO()
    with styled_figure(10.2, 3.3, buffer) as figure:
        against, residual, ranks = figure.subplots(1, 3, width_ratios=[1.15, 1.15, 1])
        _median_against_truth(against, comparison)
        _residuals(residual, comparison)
        _rank_bars(ranks, comparison)
    return buffer.getvalue()


def _sample(n: int) -> npt.NDArray[np.int64]:
    """Return the same choice of up to N_BARS of n objects each time."""
    return np.sort(np.random.default_rng(0).permutation(n)[:N_BARS])


def _bars(comparison: Comparison, chosen: npt.NDArray[np.int64]) -> Floats | None:
    """Return the lengths (2, object) of the 68 % bars below and above the median."""
    ends = comparison.quantity.interval(0.6827)
    if ends is None:
        return None
    median = comparison.quantity.median[chosen]
    return np.maximum([median - ends[0][chosen], ends[1][chosen] - median], 0)


def _median_against_truth(axes: Axes, comparison: Comparison) -> None:
    truth, median = comparison.truth, comparison.quantity.median
    chosen = _sample(len(truth))
    _density(axes, truth, median)
    axes.errorbar(truth[chosen], median[chosen], yerr=_bars(comparison, chosen), **BAR_STYLE)
    low, high = _limits(np.concatenate([truth, median]))
    axes.plot([low, high], [low, high], color=VERMILION, lw=1, zorder=4)
    if _is_wide(*np.quantile(truth, [0.001, 0.999]).tolist()) and low > 0:
        axes.set(xscale="log", yscale="log")
    axes.set(xlim=(low, high), ylim=(low, high), xlabel=f"true {comparison.quantity.label}")
    axes.set(ylabel="posterior median, 68 % bars", title="against the truth")


def _residuals(axes: Axes, comparison: Comparison) -> None:
    """Draw the residuals, relative ones where the truth's range is wide."""
    truth = comparison.truth
    is_wide = _is_wide(*np.quantile(truth, [0.001, 0.999]).tolist())
    unit = truth if is_wide else np.ones_like(truth)
    residual = (comparison.quantity.median - truth) / unit
    chosen = _sample(len(truth))
    bars = _bars(comparison, chosen)
    _density(axes, truth, residual)
    axes.errorbar(
        truth[chosen], residual[chosen], yerr=None if bars is None else bars / unit[chosen], **BAR_STYLE
    )
    axes.axhline(0, color=VERMILION, lw=1, zorder=4)
    reach = 1.3 * float(np.quantile(np.abs(residual), 0.98)) or 1.0
    axes.set(xlim=_limits(truth), ylim=(-reach, reach), xlabel=f"true {comparison.quantity.label}")
    if is_wide:
        axes.set_xscale("log")
    axes.set(ylabel="(median − truth) / truth" if is_wide else "median − truth", title="residual")


def _density(axes: Axes, x: Floats, y: Floats) -> None:
    """Draw all objects, faint, behind the bars of some."""
    axes.scatter(x, y, s=2, c=GRAY, alpha=0.35, lw=0, rasterized=True)


def _limits(values: Floats) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if _is_wide(low, high):
        return low / 1.2, high * 1.2
    margin = 0.03 * (high - low) or 1.0
    return low - margin, high + margin


def _rank_bars(axes: Axes, comparison: Comparison) -> None:
    observed, expected = comparison.between_quantiles()
    place = np.arange(len(observed))
    n = max(int(comparison.counted.sum()), 1)
    axes.bar(place, observed, color=BLUE, alpha=0.85, width=0.8, label="truths found")
    # Two binomial standard deviations: a calibrated posterior stays within for 95 % of the bars.
    error = 2 * np.sqrt(expected * (1 - expected) / n)
    axes.errorbar(
        place, expected, yerr=error, fmt="_", ms=17, color=VERMILION, lw=1.3, label="expected, ± 2 σ"
    )
    levels = [f"{100 * level:.3g}" for level in comparison.quantity.levels]
    names = [
        f"< {levels[0]}",
        *(f"{a}–{b}" for a, b in itertools.pairwise(levels)),
        f"> {levels[-1]}",
    ]
    axes.set_xticks(place, names, rotation=35, ha="right", fontsize=7.5)
    axes.set(xlabel="truth between the quantiles (%)", ylabel="share of objects", title="calibration")
    axes.set_ylim(0, 1.3 * max(observed.max(), expected.max()))
    axes.legend(fontsize=7.5, loc="upper right")
    axes.grid(visible=False, axis="x")
