"""Sky noise of cutouts: the pixels in which it is measured, and the robust estimate of its scatter.

Two callers remove the light of sources in different ways. `galbatch.ingest` has masks, and drops pixels that the
survey marked as detected. `galbatch.models` describes training images without masks: it finds the light itself, in
float64, because it measures repeatedly on differences of neighboring pixels. All other steps are shared here. On
simulated galaxies the two distributions agree to 0.1 of the noise, as the limits of a network's input domain require.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["MIN_SKY_PIXELS", "SIGMA_OF_MAD", "clipped_sky", "in_frame", "robust_scatter", "thinned"]

Floating = TypeVar("Floating", bound=np.floating[Any])

# The sky is measured in a frame along the edges, whose width is this fraction of the cutout's, on about MAX_SKY_PIXELS
# pixels: 1000 give the scatter to 4 percent, and sorting all pixels would take longer than cutting.
FRAME_SHARE = 0.125
MAX_SKY_PIXELS = 1000
MIN_SKY_PIXELS = 32

SIGMA_OF_MAD = (
    1.482602218505602  # The ratio of standard deviation to median absolute deviation of a Gaussian.
)


def in_frame(size_px: int) -> npt.NDArray[np.bool_]:
    """Return a mask (y, x), bool, that is True in the frame along the cutout's edges where the sky is measured."""
    width = max(1, int(size_px * FRAME_SHARE))
    frame = np.ones((size_px, size_px), bool)
    frame[width : size_px - width, width : size_px - width] = False
    return frame


def thinned(pixels: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Return the flat indices of the True pixels, evenly thinned to fewer than twice MAX_SKY_PIXELS."""
    index = np.flatnonzero(pixels)
    return index[:: max(1, len(index) // MAX_SKY_PIXELS)]


def robust_scatter(values: npt.NDArray[Floating], *, centered: bool = False) -> npt.NDArray[Floating]:
    """Return the scatter along the last axis: 1.4826 times the median absolute deviation (MAD).

    Parameters
    ----------
    values : (.., pixel) float32 or float64
        NaN for pixels to leave out. The array is overwritten.
    centered : bool
        Take deviations from 0 instead of the median.

    Returns
    -------
    (..) in the dtype of `values`
        NaN where fewer than MIN_SKY_PIXELS values are finite.
    """
    count = np.count_nonzero(np.isfinite(values), axis=-1, keepdims=True)  # (.., 1)
    if not centered:
        values -= _sort_to_median(values, count)
    np.abs(values, out=values)
    # Scalars of the same dtype: numpy 1 or 2 must not promote float32 values to float64.
    factor, nan = values.dtype.type(SIGMA_OF_MAD), values.dtype.type(np.nan)
    scatter = (_sort_to_median(values, count) * factor)[..., 0]  # (..)
    return np.where(count[..., 0] >= MIN_SKY_PIXELS, scatter, nan)


def _sort_to_median(values: npt.NDArray[Floating], count: npt.NDArray[np.int64]) -> npt.NDArray[Floating]:
    """Sort `values` in place, and return the median (.., 1) of the `count` finite ones along the last axis; NaN if none.

    It replaces numpy's nanmedian, which loops over rows in Python and takes ten times as long.
    """
    values.sort(axis=-1)  # numpy sorts NaN to the end, so the finite values come first.
    # The two middle values, which are one and the same where the count is odd.
    low = np.take_along_axis(values, np.maximum(count - 1, 0) // 2, axis=-1)
    high = np.take_along_axis(values, np.minimum(count // 2, values.shape[-1] - 1), axis=-1)
    median: npt.NDArray[Floating] = values.dtype.type(0.5) * (low + high)
    return median


def clipped_sky(
    values: npt.NDArray[Floating], *, clip_sigma: float = 2.5, rounds: int = 3
) -> tuple[npt.NDArray[Floating], npt.NDArray[Floating]]:
    """Return median and robust scatter along the last axis, of what is left when bright and dark values are left out.

    Parameters
    ----------
    values : (.., pixel) float32 or float64
        NaN for pixels to leave out.
    clip_sigma : float
        Values this many times the scatter from the median are left out in the next round.
    rounds : int
        Number of rounds; values are left out before each but the first.

    Returns
    -------
    median, scatter : (..) in the dtype of `values`
        NaN where fewer than MIN_SKY_PIXELS values are finite.
    """
    kept = values.copy()
    for left in range(rounds - 1, -1, -1):
        count = np.count_nonzero(np.isfinite(kept), axis=-1, keepdims=True)
        median = _sort_to_median(kept, count)[..., 0]
        # The deviations from the median that is known by now: to find it again would be another sort.
        scatter = robust_scatter(kept - median[..., None], centered=True)
        if left:
            kept[np.abs(kept - median[..., None]) > clip_sigma * scatter[..., None]] = np.nan
    return np.where(np.isfinite(scatter), median, np.nan), scatter
