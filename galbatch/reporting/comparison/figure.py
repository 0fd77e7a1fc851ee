"""The figure of a comparison: each quantity against the other table, its bias and scatter, and its coverage in bins."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from galbatch import storage
from galbatch.errors import OutputError, UsageError
from galbatch.reporting.comparison.comparing import BinnedStatistics, CatalogComparison, ComparedQuantity
from galbatch.reporting.comparison.statistics import STATISTICS
from galbatch.reporting.corner import CORNER_KINDS
from galbatch.reporting.figures import BLUE, GRAY, GREEN, VERMILION, scatter_panels, styled_figure

__all__ = ["check_picture", "write_comparison"]

Floats = npt.NDArray[np.float64]

ROW_INCHES = 3.1
ROWS_AT_MOST = 40  # 40 rows of 3.1 inches are 22,000 pixels, near what viewers of PNG open.


def check_picture(path: str) -> None:
    """Refuse the name of a picture that `write_comparison` could not write.

    Raises
    ------
    OutputError
        Its suffix is not known.
    """
    if not path.endswith(CORNER_KINDS):
        raise OutputError(f"{path}: unknown kind of picture; known are {', '.join(CORNER_KINDS)}")


def write_comparison(path: str, compared: CatalogComparison) -> None:
    """Write the figure of a comparison, a row of panels for each quantity; those of the first bins show bias, scatter and coverage.

    Parameters
    ----------
    path : str
        Output file, local or ``s3://``; .png, .pdf or .svg.
    compared : CatalogComparison

    Raises
    ------
    OutputError
        The suffix is unknown, or there is no space or no permission to write.
    UsageError
        No object has values in both tables, so there is nothing to draw.
    """
    check_picture(path)
    shown = [one for one in compared.quantities if one.everything.n][:ROWS_AT_MOST]
    if not shown:
        raise UsageError(f"{path}: no object has values in both tables, so there is nothing to draw")
    buffer = io.BytesIO()
    with styled_figure(13.4, ROW_INCHES * len(shown), buffer, kind=path.rpartition(".")[2]) as figure:
        for one, row in zip(shown, figure.subplots(len(shown), 4, squeeze=False), strict=True):
            scatter_panels(row[0], row[1], one.comparison, other="other table")
            quantity = one.comparison.quantity
            row[0].set_title(f"{quantity.model}: {quantity.title}")
            row[1].set_title(f"{one.everything.n:,} objects")
            if one.binned:
                _draw_bias(row[2], one, one.binned[0])
                _draw_coverage(row[3], one.binned[0])
            else:
                row[2].set_axis_off()
                row[3].set_axis_off()
    storage.publish(path, buffer.getvalue())


def _points(binned: BinnedStatistics, name: str) -> tuple[Floats, dict[str, Any]]:
    """Return a statistic (bin,) and the bars of an error bar plot: half widths of the bins and errors."""
    place = list(STATISTICS).index(name)
    measured = np.array([one.measured[place] for one in binned.statistics])
    errors = np.array([one.errors[place] for one in binned.statistics])
    # A single object has no bootstrap error; matplotlib takes no NaN there.
    return measured, {"xerr": np.diff(binned.edges) / 2, "yerr": np.nan_to_num(errors)}


def _middles(binned: BinnedStatistics) -> Floats:
    return (binned.edges[:-1] + binned.edges[1:]) / 2


def _draw_bias(axes: Axes, one: ComparedQuantity, binned: BinnedStatistics) -> None:
    bias, bars = _points(binned, "bias")
    scatter, _ = _points(binned, "nmad")
    middles = _middles(binned)
    style: dict[str, Any] = {"color": GRAY, "alpha": 0.3, "lw": 0, "label": "± NMAD"}
    axes.bar(middles, 2 * scatter, np.diff(binned.edges), bottom=bias - scatter, **style)
    axes.errorbar(middles, bias, fmt="o", ms=4, color=BLUE, lw=1.2, label="bias", **bars)
    axes.axhline(0, color=VERMILION, lw=1)
    unit = "relative" if one.is_relative else one.unit
    axes.set(xlabel=binned.name, ylabel=f"bias ({unit})" if unit else "bias", title="bias and scatter")
    axes.legend(fontsize=7.5)


def _draw_coverage(axes: Axes, binned: BinnedStatistics) -> None:
    middles = _middles(binned)
    for name, nominal, color in (("coverage68", 0.6827, BLUE), ("coverage95", 0.9545, GREEN)):
        shares, bars = _points(binned, name)
        axes.axhline(nominal, color=color, lw=1, ls="--")
        axes.errorbar(
            middles, shares, fmt="o", ms=4, color=color, lw=1.2, label=f"{100 * nominal:.0f} %", **bars
        )
    axes.set(ylim=(0, 1.05), xlabel=binned.name, ylabel="share within the interval", title="coverage")
    axes.legend(fontsize=7.5, loc="lower left")
