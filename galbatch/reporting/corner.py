"""The corner plot of an object's joint draws."""

from __future__ import annotations

import io
import math
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from galbatch import storage
from galbatch.api import Drawn
from galbatch.errors import OutputError, UsageError
from galbatch.reporting.contents import Quantity
from galbatch.reporting.figures import BLUE, DPI, GRAY, STYLE

__all__ = ["CORNER_KINDS", "LEAST_DRAWS", "check_corner", "write_corner"]

Floats = npt.NDArray[np.float64]

CORNER_KINDS = (".png", ".pdf", ".svg")

LEAST_DRAWS = 200
"""With fewer the contours are noise."""

PANEL_INCHES = 2.1
CORNER_STYLE = {
    **STYLE,
    "axes.grid": False,
    "axes.spines.top": True,
    "axes.spines.right": True,
    "axes.titlelocation": "center",
    "axes.titleweight": "normal",
    "lines.linewidth": 1.0,
}
ONE_SIGMA, TWO_SIGMA = 1 - math.exp(-0.5), 1 - math.exp(-2.0)
"""Shares of a normal distribution in two dimensions within 1 and 2 standard deviations: 39 and 86 %."""

QUANTILES = (0.15865, 0.5, 0.84135)
SHOWN = 0.9995  # of the draws, from the middle: a far one would leave the rest in a corner

Range = tuple[float, float]


def check_corner(path: str, n_draws: int) -> None:
    """Refuse what cannot become a corner plot.

    Raises
    ------
    UsageError
        There are too few draws.
    OutputError
        The kind of file is not known.
    """
    if not path.endswith(CORNER_KINDS):
        raise OutputError(f"{path}: unknown kind of picture; known are {', '.join(CORNER_KINDS)}")
    if n_draws < LEAST_DRAWS:
        raise UsageError(f"-n {n_draws}: a corner plot needs {LEAST_DRAWS} draws or more")


def write_corner(path: str, drawn: Drawn) -> None:
    """Write the corner plot of one object and model.

    Lines are the median and the 16 and 84 % quantiles, contours hold 39 and 86 % (1 and 2 sigma in two dimensions). A
    magnitude stands in place of the flux that it follows from, if none of the draws of that is negative.

    Parameters
    ----------
    path : local or ``s3://``; .png, .pdf or .svg
    drawn : `LEAST_DRAWS` or more

    Raises
    ------
    OutputError, UsageError
        As `check_corner`; no space, or no permission.
    """
    check_corner(path, len(next(iter(drawn.samples.values()))))
    # A magnitude stands for its flux, but where a draw is negative: that has no magnitude.
    shown = {name: flux for name, flux in drawn.derived.items() if np.isfinite(drawn.samples[name]).all()}
    quantities = [
        Quantity(drawn.model, name, drawn.units[name], (0.5,), np.empty((0, 1)))
        for name in drawn.samples
        if name not in shown.values() and (name in shown or name not in drawn.derived)
    ]
    buffer = io.BytesIO()
    with mpl.rc_context(CORNER_STYLE):
        figure = _figure(quantities, [drawn.samples[q.parameter] for q in quantities])
        _caption(figure, drawn)
        figure.savefig(buffer, format=path.rpartition(".")[2], dpi=DPI, bbox_inches="tight", pad_inches=0.15)
    storage.publish(path, buffer.getvalue())


def _caption(figure: Figure, drawn: Drawn) -> None:
    """Write what is shown into the corner that stays empty."""
    n_draws = len(next(iter(drawn.samples.values())))
    lines = (
        f"{drawn.model}: {n_draws:,} draws of {drawn.n_passes:,} pass{'es' if drawn.n_passes > 1 else ''}",
        "lines: median, 16 and 84 %",
        "contours hold 39 and 86 %",
    )
    # One panel leaves no corner empty: the text stands to its right then; the picture is cut to what is on it.
    place: dict[str, Any] = {"ha": "right"} if len(figure.axes) > 1 else {"ha": "left"}
    x = 0.98 if len(figure.axes) > 1 else 1.0
    figure.text(x, 0.98, str(drawn.object_id), fontsize=12, fontweight="bold", va="top", **place)
    figure.text(x, 0.98, "\n\n" + "\n".join(lines[: len(figure.axes) + 1]), color=GRAY, va="top", **place)


def _figure(quantities: list[Quantity], values: list[Floats]) -> Figure:
    """Draw the panels: on the diagonal each quantity, below it each pair."""
    from corner import corner  # brings pyplot, which nothing else here needs

    n = len(quantities)
    figure = Figure(figsize=(PANEL_INCHES * n + 1.0,) * 2)
    corner(
        np.stack(values, axis=1),
        fig=figure,
        range=[_range(one) for one in values],
        bins=int(np.clip(len(values[0]) ** 0.4, 15, 50)),  # more where there are more draws to fill them
        smooth=1.0,
        quantiles=QUANTILES,
        labels=[f"{q.short_title} ({q.unit})" if q.unit else q.short_title for q in quantities],
        levels=(ONE_SIGMA, TWO_SIGMA),
        color=BLUE,
        fill_contours=True,
        plot_density=False,
        max_n_ticks=4,
        quiet=True,
        hist_kwargs={"histtype": "stepfilled", "alpha": 0.3, "edgecolor": BLUE, "linewidth": 1.2},
        data_kwargs={"alpha": 0.15, "ms": 1.5},
    )
    for number, (quantity, one) in enumerate(zip(quantities, values, strict=True)):
        axes = figure.axes[number * (n + 1)]
        axes.set_title(f"{quantity.short_title} = {_interval(one)}")
    for axes in figure.axes:
        axes.tick_params(labelrotation=0)
        if isinstance(locator := axes.xaxis.get_major_locator(), MaxNLocator):
            locator.set_params(prune="both")  # or the last number of a panel would meet the first of the next
        axes.xaxis.set_label_coords(0.5, -0.2)
        axes.yaxis.set_label_coords(-0.37, 0.5)  # left of numbers of five digits
    return figure


def _range(values: Floats) -> Range:
    """Return what an axis shows; draws that are all equal lie in its middle."""
    low, high = (float(end) for end in np.quantile(values, [(1 - SHOWN) / 2, (1 + SHOWN) / 2]))
    margin = 0.04 * (high - low) or 0.05 * abs(low) or 1.0
    return low - margin, high + margin


def _interval(values: Floats) -> str:
    """Return the median with the 68 % interval as mathematics, with two digits of the smaller half-width."""
    low, middle, high = (float(end) for end in np.quantile(values, QUANTILES))
    widths = [width for width in (middle - low, high - middle) if width > 0]
    n_digits = max(0, 1 - math.floor(math.log10(min(widths)))) if widths else 3
    minus, plus = (f"{width:.{n_digits}f}" for width in (middle - low, high - middle))
    return f"${middle:.{n_digits}f}_{{-{minus}}}^{{+{plus}}}$"
