"""Pixels whose scale is more than a number: Pan-STARRS' arcsinh magnitudes, and calibrations that vary over an image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from galbatch.core.types import CalibrationField
from galbatch.errors import TileError

if TYPE_CHECKING:
    from galbatch.ingest.pixels.planes import Box

__all__ = ["asinh_cards", "calibration_factor", "linear_counts"]


def asinh_cards(header: Mapping[str, Any], where: str) -> tuple[float, float] | None:
    """Return BOFFSET and BSOFTEN of a plane of arcsinh magnitudes, in counts; None if its pixels are linear.

    Raises
    ------
    TileError
        One of the two cards is missing or no number: the pixels cannot be made linear.
    """
    if "BOFFSET" not in header and "BSOFTEN" not in header:
        return None
    found = [header.get("BOFFSET"), header.get("BSOFTEN")]
    numbers = [
        float(value)
        for value in found
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    ]
    if len(numbers) < 2 or numbers[1] <= 0:
        raise TileError(
            f"{where}: the pixels are arcsinh magnitudes, for which BOFFSET and BSOFTEN are needed; they are {found[0]!r} and "
            f"{found[1]!r}: correct the cards, or exclude the file"
        )
    return numbers[0], numbers[1]


def linear_counts(stored: npt.NDArray[Any], asinh: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Return linear counts of a window of arcsinh magnitudes; NaN stays NaN.

    Waters et al. 2020 (ApJS 251, 4), section 7: value = 2.5 / ln 10 arcsinh((counts - BOFFSET) / (2 BSOFTEN)), counts
    of the whole stack. In float64: the sinh of a bright star's magnitude would lose digits in float32.
    """
    offset, softening = asinh
    with np.errstate(over="ignore"):  # a sentinel such as 1e30 becomes infinite
        return offset + 2.0 * softening * np.sinh(stored.astype(np.float64) * (math.log(10.0) / 2.5))


def calibration_factor(field: CalibrationField, box: Box) -> npt.NDArray[np.float32]:
    """Return the flux of one image unit at each pixel of `box`, (y, x) float32, relative to its mean over the image."""
    axes = []
    for (low, high), first, stop in ((field.x_range, box.x0, box.x1), (field.y_range, box.y0, box.y1)):
        pixels = np.arange(first, stop, dtype=np.float64)
        axes.append((2.0 * pixels - (low + high)) / (high - low))
    # (order in x, order in y) -> (x, y) -> (y, x)
    coefficients = np.array(field.coefficients, np.float64).T
    return np.polynomial.chebyshev.chebgrid2d(axes[0], axes[1], coefficients).T.astype(np.float32)
