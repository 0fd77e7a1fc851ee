"""The figure of a calibration: coverage of the posteriors before and after the correction."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from galbatch import models, storage
from galbatch.reporting.figures import BLUE, GRAY, GREEN, INCHES_PER_QUANTITY, INK, VERMILION, styled_figure

__all__ = ["write_calibration"]

Floats = npt.NDArray[np.float64]

PIT_BINS = 20
LEVEL_COLORS = (BLUE, GREEN, VERMILION)
BAND: dict[str, Any] = {"color": GRAY, "alpha": 0.22, "lw": 0}
ROW_INCHES = 2.25
LEVEL_GRID = np.linspace(0.0, 1.0, 201)
NARROWEST_INCHES = 6.4
LOWEST_COVERAGE = 0.35  # The axis of coverage begins here or lower, which leaves room for the legend.
STRATA_LABELS = {
    "magnitude": "true magnitude (mean of the bin)",
    "size_arcsec": "true size (arcsec, mean of the bin)",
}


def write_calibration(before: models.Evaluation, after: models.Evaluation, path: str, *, title: str) -> None:
    """Write a PNG with one column of panels per parameter: coverage at all levels, PIT, coverage by magnitude and size.

    PIT are the probability integral transforms of the true values. Gray bands are two binomial standard deviations wide on
    each side: for a calibrated posterior 95 % of the points lie within.

    Parameters
    ----------
    before, after : Evaluation
        The same objects, without and with the correction.
    path : str
        Output file, local or ``s3://``.
    title : str
        Title of the figure.
    """
    strata = [name for name in ("magnitude", "size_arcsec") if name in after.strata]
    n_rows, n_columns = 2 + len(strata), len(after.parameters)
    buffer = io.BytesIO()
    width = max(NARROWEST_INCHES, (INCHES_PER_QUANTITY + 0.6) * n_columns)
    with styled_figure(width, ROW_INCHES * n_rows + 0.5, buffer) as figure:
        grid = figure.subplots(n_rows, n_columns, squeeze=False)
        for column, parameter in enumerate(after.parameters):
            grid[0, column].set_title(parameter.name)
            _coverage_and_transforms(list(grid[:2, column]), before, after, column)
            for row, stratum in enumerate(strata, start=2):
                _by_stratum(grid[row, column], before, after, (stratum, column))
        limits = [axes.get_ylim() for axes in grid[0]]
        for axes in grid[0]:  # One range for all parameters, so that they can be compared.
            axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        for row, label in enumerate(["covered − level", "objects", "covered", "covered"][:n_rows]):
            grid[row, 0].set_ylabel(label)
        grid[0, 0].legend(fontsize=7, loc="best")
        for row in range(2, n_rows):
            grid[row, 0].legend(fontsize=7, ncols=3, loc="lower left", columnspacing=0.9, handletextpad=0.2)
        figure.suptitle(
            f"{title}: {len(after):,} test objects, {after.n_passes} passes each; gray and hollow: uncorrected",
            fontsize=10,
        )
    storage.publish(path, buffer.getvalue())


def _coverage_and_transforms(
    panels: Sequence[Axes], before: models.Evaluation, after: models.Evaluation, column: int
) -> None:
    """Draw, for the parameter at `column`, coverage minus level at all levels (top) and a histogram of the PIT (bottom).

    Where coverage minus level is above 0, intervals are too wide; below 0 they are too narrow. The histogram is flat if
    the posteriors are calibrated.
    """
    coverage, transforms = panels
    # Bands of two binomial standard deviations: of a share of all objects here, of the number in a bin below.
    error = 2 * np.sqrt(LEVEL_GRID * (1 - LEVEL_GRID) / len(after))
    coverage.fill_between(LEVEL_GRID, -error, error, **BAND)
    coverage.axhline(0, color=INK, lw=0.8)
    for evaluation, color, label in ((before, GRAY, "uncorrected"), (after, BLUE, "corrected")):
        # An interval of level L covers a truth whose PIT is at most L / 2 from the middle: twice the distance is the
        # lowest level that covers it, and one sort gives the coverage at all levels.
        distance = np.sort(2 * np.abs(evaluation.transform[:, column] - 0.5))
        covered = np.searchsorted(distance, LEVEL_GRID, side="right") / len(distance)
        coverage.plot(LEVEL_GRID, covered - LEVEL_GRID, color=color, lw=1.4, label=label)
    for level in models.LEVELS:
        coverage.axvline(level, color=INK, lw=0.6, ls=":")
    coverage.set(xlim=(0, 1), xlabel="level of the equal-tailed interval")
    expected = len(after) / PIT_BINS
    error_in_bin = 2 * np.sqrt(expected * (1 - 1 / PIT_BINS))
    transforms.axhspan(expected - error_in_bin, expected + error_in_bin, **BAND)
    transforms.axhline(expected, color=INK, lw=0.8)
    bins = [number / PIT_BINS for number in range(PIT_BINS + 1)]
    transforms.hist(after.transform[:, column], bins=bins, color=BLUE, alpha=0.55)
    transforms.hist(before.transform[:, column], bins=bins, histtype="step", color=GRAY, lw=1.4)
    transforms.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    transforms.set(xlim=(0, 1), ylim=(0, None), xlabel="probability integral transform")


def _by_stratum(
    axes: Axes, before: models.Evaluation, after: models.Evaluation, place: tuple[str, int]
) -> None:
    """Draw the coverage of three levels in bins of the true magnitude or size. Hollow points are without the correction."""
    stratum, column = place
    bins = models.strata_bins(after, stratum)
    at = np.array([middle for _, middle, _ in bins])
    for level, color in zip(models.LEVELS, LEVEL_COLORS, strict=True):
        axes.axhline(level, color=color, lw=0.7, ls=":")
        for evaluation, is_after in ((before, False), (after, True)):
            covered = evaluation.covered(level)[:, column]
            # Only the corrected points have error bars: two on each point could not be read.
            shares = [models.share_of(covered[chosen]) for _, _, chosen in bins]
            axes.errorbar(
                at,
                [share.value for share in shares],
                yerr=[share.error for share in shares] if is_after else None,
                fmt="o",
                ms=3.6,
                color=color,
                mfc=color if is_after else "none",
                mew=0.8,
                alpha=1.0 if is_after else 0.6,
                lw=1,
                label=f"{100 * level:.2f} %" if is_after else None,
            )
    axes.set(ylim=(min(LOWEST_COVERAGE, axes.get_ylim()[0]), 1.02), xlabel=STRATA_LABELS[stratum])
