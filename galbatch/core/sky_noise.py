"""Sky noise of cutouts: where it is sampled and how its scatter is measured, for cutout stores and trainings alike.

Two callers leave out the light of sources in different ways. `galbatch.ingest` has masks and drops pixels that the
survey marked as detected; `galbatch.models` describes training images that come without masks and finds the light
itself, in float64, because it measures it again and again on the differences of neighboring pixels. Everything
else is the same here for both: on simulated galaxies their distributions agree to 0.1 of the noise, which is what
the limits of a network's input domain need.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["MIN_SKY_PIXELS", "in_frame", "robust_scatter", "thinned"]

Floating = TypeVar("Floating", bound=np.floating[Any])

# The sky is sampled in a frame this share of the cutout wide, from about MAX_SKY_PIXELS pixels: the scatter of 1000
# pixels is good to 4 percent, and sorting all of them would cost more than cutting.
FRAME_SHARE = 0.125
MAX_SKY_PIXELS = 1000
MIN_SKY_PIXELS = 32

SIGMA_OF_MAD = 1.482602218505602  # standard deviation over median absolute deviation of a Gaussian


def in_frame(size_px: int) -> npt.NDArray[np.bool_]:
    """(y, x) whether a pixel of a cutout lies in the frame that the sky is sampled in."""
    width = max(1, int(size_px * FRAME_SHARE))
    frame = np.ones((size_px, size_px), bool)
    frame[width : size_px - width, width : size_px - width] = False
    return frame


def thinned(pixels: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Flat indices of the chosen pixels, evenly thinned to about MAX_SKY_PIXELS."""
    index = np.flatnonzero(pixels)
    return index[:: max(1, len(index) // MAX_SKY_PIXELS)]


def robust_scatter(values: npt.NDArray[Floating], *, centered: bool = False) -> npt.NDArray[Floating]:
    """Measure the scatter along the last axis: 1.4826 times the median absolute deviation, in the dtype of `values`.

    Parameters
    ----------
    values : (.., pixel) float32 or float64
        NaN where a pixel is left out. Overwritten.
    centered : bool
        Take deviations from 0 instead of the median.

    Returns
    -------
    (..) of the same dtype; NaN where fewer than MIN_SKY_PIXELS values are left
    """
    count = np.count_nonzero(np.isfinite(values), axis=-1, keepdims=True)
    if not centered:
        values -= _sort_to_median(values, count)
    np.abs(values, out=values)
    factor, nan = values.dtype.type(SIGMA_OF_MAD), values.dtype.type(np.nan)
    scatter = (_sort_to_median(values, count) * factor)[..., 0]
    return np.where(count[..., 0] >= MIN_SKY_PIXELS, scatter, nan)


def _sort_to_median(values: npt.NDArray[Floating], count: npt.NDArray[np.int64]) -> npt.NDArray[Floating]:
    """Median of the `count` finite values along the last axis, kept as an axis; NaN if none; sorts in place.

    numpy's nanmedian loops over rows in Python and takes ten times as long.
    """
    values.sort(axis=-1)  # NaN last
    low = np.take_along_axis(values, np.maximum(count - 1, 0) // 2, axis=-1)
    high = np.take_along_axis(values, np.minimum(count // 2, values.shape[-1] - 1), axis=-1)
    median: npt.NDArray[Floating] = values.dtype.type(0.5) * (low + high)
    return median
