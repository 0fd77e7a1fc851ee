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
from galbatch.core.process import require
from galbatch.errors import OutputError, UsageError
from galbatch.reporting.contents import Quantity
from galbatch.reporting.figures import BLUE, DPI, GRAY, STYLE

__all__ = ["CORNER_KINDS", "LEAST_DRAWS", "check_corner", "corner_picture", "write_corner"]

Floats = npt.NDArray[np.float64]

CORNER_KINDS = (".png", ".pdf", ".svg")

LEAST_DRAWS = 200
"""Fewest draws for a corner plot: with fewer the contours show only noise."""

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
"""Probability within 1 and 2 standard deviations of a normal distribution in two dimensions: 39 and 86 %."""

QUANTILES = (0.15865, 0.5, 0.84135)
SHOWN = 0.9995  # Central share of the draws that an axis shows: a single far draw would squeeze all others together.


def check_corner(path: str, n_draws: int) -> None:
    """Raise if no corner plot can be made of this number of draws, or written to such a file.

    Parameters
    ----------
    path : str
        Output file.
    n_draws : int

    Raises
    ------
    UsageError
        There are fewer than `LEAST_DRAWS` draws.
    OutputError
        The file's suffix is not one of `CORNER_KINDS`.
    MissingPackage
        corner is not installed.
    """
    require("corner", where=path)
    if not path.endswith(CORNER_KINDS):
        raise OutputError(f"{path}: unknown kind of picture; known are {', '.join(CORNER_KINDS)}")
    if n_draws < LEAST_DRAWS:
        raise UsageError(f"-n {n_draws}: a corner plot needs {LEAST_DRAWS} draws or more")


def write_corner(path: str, drawn: Drawn) -> None:
    """Write the corner plot of one object and model.

    Lines mark the median and the 16 and 84 % quantiles; contours enclose 39 and 86 % of the draws (1 and 2 sigma in two
    dimensions). A magnitude is shown instead of its flux, unless a draw of the flux is not positive.

    Parameters
    ----------
    path : str
        Output file, local or ``s3://``; .png, .pdf or .svg.
    drawn : Drawn
        `LEAST_DRAWS` draws or more.

    Raises
    ------
    OutputError
        The suffix is unknown, or there is no space or no permission to write.
    UsageError
        There are too few draws.
    """
    check_corner(path, drawn.n_draws)
    storage.publish(path, corner_picture(drawn, path.rpartition(".")[2]))


def corner_picture(drawn: Drawn, kind: str) -> bytes:
    """Return the corner plot of `write_corner` as the bytes of a file of a kind: png, pdf or svg.

    Raises
    ------
    MissingPackage
        corner is not installed.
    """
    # A flux that is not positive has no magnitude, and corner refuses NaN: then the flux is shown.
    shown = {name: flux for name, flux in drawn.derived.items() if np.isfinite(drawn.samples[name]).all()}
    quantities = [
        Quantity(drawn.model, name, drawn.columns[name].unit, (0.5,), np.empty((0, 1)))
        for name in drawn.samples
        if name not in shown.values() and (name in shown or name not in drawn.derived)
    ]
    buffer = io.BytesIO()
    with mpl.rc_context(CORNER_STYLE):
        figure = _figure(quantities, [drawn.samples[q.parameter] for q in quantities])
        lines = (
            f"{drawn.model}: {drawn.n_draws:,} draws of {drawn.n_passes:,} pass{'es' if drawn.n_passes > 1 else ''}",
            "lines: median, 16 and 84 %",
            "contours hold 39 and 86 %",
        )
        # The caption is in the upper right, which a triangle of panels leaves empty. A single panel fills the figure: its
        # caption is to the right of it, and bbox_inches="tight" extends the picture to include it.
        is_single = len(figure.axes) == 1
        place: dict[str, Any] = {"x": 1.0 if is_single else 0.98, "ha": "left" if is_single else "right"}
        place |= {"y": 0.98, "va": "top"}
        figure.text(s=str(drawn.object_id), fontsize=12, fontweight="bold", **place)
        # One panel has no contours, and so no line about them.
        figure.text(s="\n\n" + "\n".join(lines[: len(figure.axes) + 1]), color=GRAY, **place)
        figure.savefig(buffer, format=kind, dpi=DPI, bbox_inches="tight", pad_inches=0.15)
    return buffer.getvalue()


def _figure(quantities: list[Quantity], values: list[Floats]) -> Figure:
    """Draw the panels: a histogram of each quantity on the diagonal, and each pair of quantities below it."""
    # At its first use, because it imports pyplot, which nothing else needs.
    corner = require("corner").corner
    n = len(quantities)
    panels = [_range_and_title(one) for one in values]
    figure = Figure(figsize=(PANEL_INCHES * n + 1.0,) * 2)
    corner(
        np.stack(values, axis=1),  # (draw, quantity)
        fig=figure,
        range=[ends for ends, _ in panels],
        bins=int(np.clip(len(values[0]) ** 0.4, 15, 50)),  # More draws fill more bins.
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
    for number, (quantity, (_, interval)) in enumerate(zip(quantities, panels, strict=True)):
        # The axes are n x n in rows, so those on the diagonal are n + 1 apart.
        figure.axes[number * (n + 1)].set_title(f"{quantity.short_title} = {interval}")
    for axes in figure.axes:
        axes.tick_params(labelrotation=0)
        if isinstance(locator := axes.xaxis.get_major_locator(), MaxNLocator):
            locator.set_params(prune="both")  # The last tick of a panel would overlap the first of the next.
        axes.xaxis.set_label_coords(0.5, -0.2)
        axes.yaxis.set_label_coords(-0.37, 0.5)  # Leaves room for ticks with five digits.
    return figure


def _range_and_title(values: Floats) -> tuple[tuple[float, float], str]:
    """Return the range of the axis for some draws, and their median with the 68 % interval as TeX.

    The interval is given with two significant figures of its smaller half-width.
    """
    low, high = (float(end) for end in np.quantile(values, [(1 - SHOWN) / 2, (1 + SHOWN) / 2]))
    # Draws that are all equal have a range of 0, which corner refuses: they are put in the middle of a wider one.
    margin = 0.04 * (high - low) or 0.05 * abs(low) or 1.0
    ends = (low - margin, high + margin)
    low, middle, high = (float(end) for end in np.quantile(values, QUANTILES))
    widths = [width for width in (middle - low, high - middle) if width > 0]
    n_digits = max(0, 1 - math.floor(math.log10(min(widths)))) if widths else 3
    minus, plus = (f"{width:.{n_digits}f}" for width in (middle - low, high - middle))
    return ends, f"${middle:.{n_digits}f}_{{-{minus}}}^{{+{plus}}}$"
