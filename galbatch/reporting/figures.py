"""The figures of the report, as PNG.

The colors are those of Okabe and Ito (2008), which can be distinguished with any kind of color vision.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from galbatch.reporting.contents import Contents, Quantity
from galbatch.reporting.recovery import Comparison

__all__ = [
    "BLUE",
    "GRAY",
    "GREEN",
    "INCHES_PER_QUANTITY",
    "MOST_POINTS",
    "VERMILION",
    "distributions",
    "recovery_panels",
    "running_quantiles",
    "scatter_panels",
    "sky_map",
    "styled_figure",
    "use_logarithm",
]

Floats = npt.NDArray[np.float64]

BLUE: str = "#0072B2"
VERMILION: str = "#D55E00"
GREEN: str = "#009E73"
GRAY: str = "#8a8f98"
INK: str = "#1f2430"
RULE: str = "#d9dce3"

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

DENSE = 20_000  # With more objects points overlap, and the sky map shows their number per cell instead.
LEAST_IN_GROUP = 25
"""Objects from which a point of a running median is made, at least: its 68 % band is known to a fifth then."""

MOST_POINTS = 50_000
"""Most points of a panel: a million take 4 s of each, and look the same."""

N_BARS = 300  # More error bars would hide each other.
INCHES_PER_QUANTITY = 2.7
PANEL_INCHES = (3.6, 3.3)
"""Width and height of one panel of the recovery."""

WIDE_RANGE = 30.0  # A positive quantity gets a logarithmic axis if its largest value exceeds this many times the smallest.


@contextmanager
def styled_figure(width: float, height: float, buffer: io.BytesIO, *, kind: str = "png") -> Iterator[Figure]:
    """Yield a figure of `width` by `height` inches in the report's style, and write it to `buffer` at the end, as PNG, PDF or SVG."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        figure.savefig(buffer, format=kind, dpi=DPI)


def sky_map(contents: Contents) -> bytes:
    """Return a PNG of the objects' positions, with flagged ones highlighted; of dense catalogs the number of objects per cell."""
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
        # One degree of right ascension is cos(dec) degrees on the sky. The limit keeps the map finite at the poles.
        axes.set_aspect(1 / max(np.cos(np.deg2rad(np.median(contents.dec_deg))), 0.05), adjustable="datalim")
    return buffer.getvalue()


def distributions(
    quantities: Sequence[Quantity],
    truths: Sequence[Comparison],
    *,
    trained: Mapping[str, Sequence[tuple[float, float]]] | None = None,
) -> bytes:
    """Return a PNG with histograms of the medians (top) and of half the 68 % interval (bottom) of one model's quantities.

    The bands behind the medians are the ranges of the values in training, `trained`, by the quantity's name: one for each network.
    """
    buffer = io.BytesIO()
    known = {comparison.quantity.parameter: comparison.truth for comparison in truths}
    with styled_figure(INCHES_PER_QUANTITY * len(quantities), 4.4, buffer) as figure:
        grid = figure.subplots(2, len(quantities), squeeze=False)
        for quantity, (medians, widths) in zip(quantities, grid.T, strict=True):
            _draw_medians(
                medians, quantity, known.get(quantity.parameter), (trained or {}).get(quantity.parameter, ())
            )
            _draw_widths(widths, quantity)
        for row in grid:
            row[0].set_ylabel("objects")
    return buffer.getvalue()


def _draw_medians(
    axes: Axes, quantity: Quantity, truth: Floats | None, trained: Sequence[tuple[float, float]]
) -> None:
    """Draw the histogram of the medians, that of the truth, and the ranges of the training behind them."""
    median = quantity.median[np.isfinite(quantity.median)]
    # The truth gets the same bins, so that the two histograms can be compared.
    bins = _bins(axes, median)
    axes.hist(median, bins=bins, color=BLUE, alpha=0.85, label="median")
    for number, ends in enumerate(trained):
        # The legend passes over labels that begin with an underscore.
        label = "_training" if number else "training"
        axes.axvspan(*ends, color=GREEN, alpha=0.13, lw=0, zorder=0, label=label)
        axes.set_xlim(bins[0], bins[-1])
    if truth is not None:
        axes.hist(truth, bins=bins, label="truth", histtype="step", color=VERMILION, lw=1.3)
    if trained or truth is not None:
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.1, 1), "borderaxespad": 0.1}
        axes.legend(fontsize=6.5, ncols=3, columnspacing=0.8, handlelength=1.2, **place)
    axes.set_xlabel(quantity.label)


def _draw_widths(axes: Axes, quantity: Quantity) -> None:
    """Draw the histogram of half the 68 % interval, with its median."""
    axes.set_xlabel(f"± of {quantity.label}")
    ends = quantity.interval(0.6827)
    if ends is None:
        axes.text(0.5, 0.5, "no 68 % interval in the catalog", ha="center", transform=axes.transAxes)
        return
    width = (ends[1] - ends[0]) / 2
    width = width[np.isfinite(width) & (width > 0)]
    axes.hist(width, bins=_bins(axes, width), color=GREEN, alpha=0.85)
    if len(width):
        middle = float(np.median(width))
        axes.axvline(middle, color=INK, lw=1)
        # Three significant figures, without an exponent.
        digits = max(2 - math.floor(math.log10(middle)), 0)
        axes.set_title(f"median ± {middle:,.{digits}f}", fontsize=8, fontweight="normal")


def _bins(axes: Axes, values: Floats) -> list[float]:
    """Return the edges of 40 bins that leave out 0.1 % of the values at each end. Sets a logarithmic axis for wide ranges."""
    low, high = np.quantile(values, [0.001, 0.999]).tolist() if len(values) else (0.0, 1.0)
    # For values that are almost equal the range is widened to 2 % of the value: otherwise all ticks would read the same.
    margin = max(0.02 * abs(high) - (high - low), 0.0) or (1.0 if high == low else 0.0)
    if _is_wide(low, high):
        use_logarithm(axes, "x", high / low)
        return list(np.geomspace(low, high, 41).tolist())
    axes.locator_params(axis="x", nbins=5)
    return list(np.linspace(low - margin, high + margin, 41).tolist())


def _is_wide(low: float, high: float) -> bool:
    """Return whether a range needs a logarithmic axis. Ranges that end at 1, such as those of fractions, do not."""
    return low > 0 and high > 1 and high / low > WIDE_RANGE


def recovery_panels(comparison: Comparison) -> list[bytes]:
    """Return three PNGs: medians against the truth, residuals, and the shares of truths between the quantiles."""
    buffers = [io.BytesIO() for _ in range(3)]
    # A figure each, so that a phone shows one below the other.
    with (
        styled_figure(*PANEL_INCHES, buffers[0]) as against,
        styled_figure(*PANEL_INCHES, buffers[1]) as residual,
    ):
        scatter_panels(against.add_subplot(), residual.add_subplot(), comparison)
    with styled_figure(*PANEL_INCHES, buffers[2]) as figure:
        _calibration_panel(figure.add_subplot(), comparison)
    return [buffer.getvalue() for buffer in buffers]


def _calibration_panel(axes: Axes, comparison: Comparison) -> None:
    """Draw the fraction of truths in each interval between the catalog's quantiles, and the expected one."""
    observed, expected = comparison.between_quantiles()
    place = np.arange(len(observed))
    n = max(int(comparison.counted.sum()), 1)
    axes.bar(place, observed, color=BLUE, alpha=0.85, width=0.8, label="truths found")
    # Two binomial standard deviations: 95 % of the bars of a calibrated posterior lie within.
    error = 2 * np.sqrt(expected * (1 - expected) / n)
    axes.errorbar(
        place, expected, yerr=error, fmt="_", ms=17, color=VERMILION, lw=1.3, label="expected, ± 2 σ"
    )
    levels = [f"{100 * level:.3g}" for level in comparison.quantity.levels]
    names = [f"< {levels[0]}", *(f"{a}–{b}" for a, b in itertools.pairwise(levels)), f"> {levels[-1]}"]
    axes.set_xticks(place, names, rotation=35, ha="right", fontsize=7.5)
    axes.set(xlabel="truth between the quantiles (%)", ylabel="share of objects", title="calibration")
    axes.set_ylim(0, 1.3 * max(observed.max(), expected.max()))
    axes.legend(fontsize=7.5, loc="upper right")
    axes.grid(visible=False, axis="x")


def scatter_panels(against: Axes, residual: Axes, comparison: Comparison, *, other: str = "") -> None:
    """Draw medians against the truth, and residuals, which are relative to the truth if its range is wide.

    `other` is the name of a table that stands in the place of the truth.
    """
    name = other or "truth"
    truth, median = comparison.truth, comparison.quantity.median
    lowest, highest = np.quantile(truth, [0.001, 0.999]).tolist()
    is_wide = _is_wide(lowest, highest)
    scale = truth if is_wide else np.ones_like(truth)
    difference = (median - truth) / scale
    shown, chosen = _sampled(len(truth))
    for axes, values in ((against, median), (residual, difference)):
        axes.scatter(truth[shown], values[shown], s=2, c=GRAY, alpha=0.35, lw=0, rasterized=True)
    bars = relative_bars = None
    if ends := comparison.quantity.interval(0.6827):
        # (below or above, object); an interval from a run's own levels need not enclose the median.
        bars = np.maximum([median[chosen] - ends[0][chosen], ends[1][chosen] - median[chosen]], 0)
        relative_bars = bars / scale[chosen]
    against.errorbar(truth[chosen], median[chosen], yerr=bars, **BAR_STYLE)
    residual.errorbar(truth[chosen], difference[chosen], yerr=relative_bars, **BAR_STYLE)
    low, high = _limits(np.concatenate([truth, median]))
    against.plot([low, high], [low, high], color=VERMILION, lw=1, zorder=4)
    residual.axhline(0, color=VERMILION, lw=1, zorder=4)
    _draw_course(residual, truth, difference)
    # The few largest residuals would leave the others on the line: the axis is set by the 98 % quantile.
    reach = 1.3 * float(np.quantile(np.abs(difference), 0.98)) or 1.0
    against.set(
        xlim=(low, high),
        ylim=(low, high),
        ylabel="posterior median, 68 % bars",
        title=f"against {other or 'the truth'}",
    )
    residual.set(xlim=_limits(truth), ylim=(-reach, reach), title="residual")
    residual.set_ylabel(f"(median − {name}) / {name}" if is_wide else f"median − {name}")
    if is_wide:
        use_logarithm(residual, "x", highest / lowest)
        # A median of 0 or less has no place on a logarithmic axis.
        for axis in ("x", "y") if low > 0 else ():
            use_logarithm(against, axis, highest / lowest)
    for axes in (against, residual):
        axes.set_xlabel(
            f"{comparison.quantity.label}, {other}" if other else f"true {comparison.quantity.label}"
        )


def _sampled(n: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return which of n objects are points of a panel, and which have error bars, too: a random sample, the same in each report.

    Lines, limits and numbers are those of all objects.
    """
    order = np.random.default_rng(0).permutation(n)
    return np.sort(order[:MOST_POINTS]), np.sort(order[:N_BARS])


def _draw_course(axes: Axes, truth: Floats, difference: Floats) -> None:
    """Draw the running median of the residuals and the band of their central 68 %."""
    course = running_quantiles(truth, difference)
    if len(course):
        axes.fill_between(course[:, 0], course[:, 1], course[:, 3], color=INK, alpha=0.15, lw=0, zorder=3.5)
        axes.plot(course[:, 0], course[:, 2], color=INK, lw=1.4, zorder=5, label="running median, 68 % band")
        axes.legend(fontsize=7, loc="upper right", borderaxespad=0.2)


def running_quantiles(x: Floats, y: Floats) -> Floats:
    """Return quantiles of y (object,) along x (object,), in groups of equal number.

    Returns
    -------
    (group, 4) float64
        Median of x, then the 15.865 %, 50 % and 84.135 % quantiles of y. Up to 20 groups of `LEAST_IN_GROUP` objects or
        more; empty with fewer than two groups. Equal values of x may be in several.
    """
    n_groups = min(20, len(x) // LEAST_IN_GROUP)
    if n_groups < 2:
        return np.zeros((0, 4))
    groups = np.array_split(np.argsort(x, kind="stable"), n_groups)
    return np.array([[np.median(x[one]), *np.quantile(y[one], [0.15865, 0.5, 0.84135])] for one in groups])


def use_logarithm(axes: Axes, name: Literal["x", "y"], ratio: float) -> None:
    """Make an axis logarithmic, with ticks that do not overlap; `ratio` is that of its largest to its smallest value."""
    axes.set(**{f"{name}scale": "log"})
    axis: Axis = {"x": axes.xaxis, "y": axes.yaxis}[name]
    # Within a decade and a half 1, 2, 5, 10, ..; then 1, 3, 10, ..; beyond three decades powers of ten. A panel has room for five.
    steps = (1.0, 2.0, 5.0) if ratio <= 30 else (1.0, 3.0) if ratio <= 1000 else (1.0,)
    axis.set_major_locator(LogLocator(subs=steps, numticks=7))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axis.set_minor_formatter(NullFormatter())


def _short(value: float) -> str:
    """Return a number of one digit in four characters or less: 0.02, 500, 2e4, 5e-4."""
    text = f"{value:g}" if 1e-3 <= value < 1e4 else f"{value:.0e}"
    return text.replace("e+0", "e").replace("e-0", "e-")


def _limits(values: Floats) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if _is_wide(low, high):
        return low / 1.2, high * 1.2
    margin = 0.03 * (high - low) or 1.0
    return low - margin, high + margin
