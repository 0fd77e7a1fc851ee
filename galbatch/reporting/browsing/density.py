"""Density of points as an image, counted anew for each view: what a page shows of more points than a browser can draw."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["CELLS", "SHADED_ABOVE", "counts_in_cells", "inside"]

Floats = npt.NDArray[np.floating]

SHADED_ABOVE = 20_000
"""With more points in view than this a panel shows their density. A browser draws this number in some 30 ms."""

CELLS = (240, 320)
"""Cells of the image (y, x). More would leave most cells of 20,000 points empty."""


def inside(
    x: Floats, y: Floats, x_range: tuple[float, float], y_range: tuple[float, float]
) -> npt.NDArray[np.bool_]:
    """Return which points (point,) lie within both ranges (low, high); those with a NaN do not."""
    return (x >= x_range[0]) & (x <= x_range[1]) & (y >= y_range[0]) & (y <= y_range[1])


def counts_in_cells(
    x: Floats, y: Floats, x_range: tuple[float, float], y_range: tuple[float, float]
) -> npt.NDArray[np.float32]:
    """Return the number of points in each cell of a view.

    Parameters
    ----------
    x, y : (point,) float
        Points within the ranges, such as `inside` chooses.
    x_range, y_range : (float, float)
        Low and high end; the high end belongs to the last cell.

    Returns
    -------
    (y, x) float32
        The counts; NaN where there is none, so that empty cells are not drawn.
    """
    n_y, n_x = CELLS
    column = ((x - x_range[0]) * (n_x / (x_range[1] - x_range[0]))).astype(np.int32)
    row = ((y - y_range[0]) * (n_y / (y_range[1] - y_range[0]))).astype(np.int32)
    # numpy's histogram2d searches the edges for each point, which takes five times as long.
    cell = np.minimum(row, n_y - 1) * n_x + np.minimum(column, n_x - 1)
    counts = np.bincount(cell, minlength=n_y * n_x).reshape(CELLS).astype(np.float32)
    counts[counts == 0] = np.nan
    return counts
