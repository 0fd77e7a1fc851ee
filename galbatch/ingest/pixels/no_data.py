"""Which pixels are data: every way in which surveys write that nothing was measured, decided in this one place.

An image says it by NaN, infinity or a number that no flux can be, by the lowest integer, or by an area of one value; a
weight by 0, by what is no noise, or by noise that no pixel has. BLANK and ZBLANK are NaN when a plane has been read
(`planes`), and the mask plane NO_DATA is a bit (`masks`).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from galbatch.core.types import WeightKind

__all__ = [
    "MIN_SIDE_OF_OTHERS_PX",
    "LowestInteger",
    "constant_areas",
    "in_image",
    "in_weight",
    "maybe_constant",
    "variance_of",
]

_Bool = npt.NDArray[np.bool_]

MAX_FLUX_NJY = 1e20
MAX_COUNTS = 1e19
"""Largest pixel, in nJy and in image units. 1e20 nJy are magnitude -18.6, more than the full Moon's in one pixel. Writers
fill with 1e20 (masked arrays of numpy), 1e30 (SExtractor, SWarp), 1.6e38 (IRAF), -1.6e30 (HEALPix) or 3.4e38 (largest float32)."""

MAX_VARIANCE_NJY2 = 1e22
"""A noise of 1e11 nJy, magnitude 3.9, in one pixel. 1e20, 1e30 and infinity stand for "no weight" in maps of variance."""

SENTINELS = (-9999.0, -32768.0, -99999.0, -2147483648.0)
"""Numbers that alone mean "no data": the lowest integers also where a file was converted to floats. A float32 image has
exactly one of them by chance in less than one of 1e6 pixels, -99 or -999 in integer images of the infrared sky often."""

QUANTIZED_ZERO_SHARE = 0.01
"""A weight of 0 that was compressed with loss comes back as half a step above or below 0, at most this share of the usual weight."""

MIN_SIDE_PX = 8
"""Side of the least square of zeros that is no data: gaps between detectors are wider. Noise that is so coarsely quantized
that two neighbors in three differ makes such a square of any one value with probability 1e-15."""

MIN_SIDE_OF_OTHERS_PX = 16
"""The same for other numbers than 0, of which saturated stars and flat parts of simulated sources make squares, too."""

MAX_FADED_SHARE = 1e-6
"""Beside an area that an image without noise fades into, it differs from it by less than this share of its median difference:
a Gaussian goes through 1e-38 to 0. With noise the two are alike."""

MAX_LOG_CHANCE = -35.0
"""Logarithm of the probability of a square of one value by chance, above which it is left alone: 6e-16, less than one in 1e10 cutouts."""


@dataclass(frozen=True, slots=True)
class LowestInteger:
    """The physical value of a plane's lowest signed integer, and the step from one integer to the next."""

    value: float
    step: float

    @classmethod
    def of(cls, header: Any) -> LowestInteger | None:
        """Return that of an HDU; None for floats, and for unsigned integers, whose lowest number is 0."""
        bits, scale, zero = (
            int(header["BITPIX"]),
            float(header.get("BSCALE", 1)),
            float(header.get("BZERO", 0)),
        )
        if bits <= 8 or (scale == 1 and zero == 2.0 ** (bits - 1)):
            return None
        return cls(zero - scale * 2.0 ** (bits - 1), abs(scale))

    def where(self, stored: npt.NDArray[Any]) -> _Bool:
        """Return where it stands for "no data", (y, x) bool: where it lies apart from all other pixels of the window.

        Writers that stretch an image over all integers give the lowest to its faintest pixel.
        """
        found = np.abs(stored - self.value) < 0.5 * self.step
        others = stored[~found & np.isfinite(stored)]
        if others.size and others.min() - self.value <= np.median(others) - others.min():
            return np.zeros(stored.shape, np.bool_)
        return found


def in_image(
    image: npt.NDArray[np.float32],
    stored: npt.NDArray[Any],
    *,
    njy_per_unit: float,
    lowest: LowestInteger | None = None,
) -> _Bool | None:
    """Return where single pixels have no data by their values, (y, x) bool; None if all have.

    Parameters
    ----------
    image : (y, x) float32, nJy
    stored : (y, x), the same in image units
    lowest : of the plane, if it holds signed integers
    """
    limit = min(MAX_FLUX_NJY, MAX_COUNTS * njy_per_unit)
    highest = max(SENTINELS) if lowest is None else max(*SENTINELS, lowest.value + lowest.step)
    # A part in a million: the image is rounded to float32.
    highest_njy = (highest + 1e-6 * abs(highest)) * njy_per_unit
    # Most windows hold small numbers alone, of which the sum of squares tells in 3 us for 239 x 239 px. The extremes take
    # 7 us, a map of missing pixels more than reading the window.
    flat = image.reshape(-1)
    if highest_njy < 0 and np.dot(flat, flat) < min(highest_njy**2, limit**2):
        return None
    low, high = _extremes(image)
    if -limit < low and high < limit and low > highest_njy:
        return None
    missing = ~(np.abs(image) < limit)
    if not low > highest_njy:
        missing |= np.isin(stored, SENTINELS)
        if lowest is not None:
            missing |= lowest.where(stored)
    return missing if missing.any() else None


def _extremes(plane: npt.NDArray[np.float32]) -> tuple[np.float32, np.float32]:
    """Return the least and the largest value of a plane; NaN if any is."""
    flat = plane.reshape(-1)
    return np.minimum.reduce(flat), np.maximum.reduce(flat)


def variance_of(
    weight: npt.NDArray[Any], kind: WeightKind, *, njy_per_unit: float, out: npt.NDArray[np.float32]
) -> None:
    """Fill `out` (y, x) with the variance in nJy^2 that a weight says; where it says none, with what `in_weight` knows for none."""
    if kind == "variance":
        # Squared before it is rounded to float32.
        np.multiply(weight, np.float32(njy_per_unit**2), out=out, casting="same_kind")
    elif kind == "inverse_variance":
        np.divide(np.float32(njy_per_unit**2), weight, out=out, casting="same_kind")
    elif kind == "standard_deviation":
        sigma = np.multiply(weight, np.float32(njy_per_unit)).astype(np.float32, copy=False)
        # The sign stays: a negative width is none.
        np.multiply(sigma, np.abs(sigma), out=out)
    elif kind == "coverage":
        np.divide(np.float32(1.0), weight, out=out, casting="same_kind")
    else:
        assert_never(kind)


def in_weight(variance: npt.NDArray[np.float32], weight: npt.NDArray[Any], kind: WeightKind) -> _Bool | None:
    """Return where a weight says that nothing was measured, (y, x) bool; None if it says so nowhere.

    Parameters
    ----------
    variance : (y, x) float32, by `variance_of`
    weight : (y, x), as stored
    """
    low, high = _extremes(variance)
    if low > 0 and high < MAX_VARIANCE_NJY2:
        return None
    missing = ~((variance > 0) & (variance < MAX_VARIANCE_NJY2))
    if kind in ("inverse_variance", "coverage"):
        missing |= weight <= _quantized_zero(weight)
    return missing


def _quantized_zero(weight: npt.NDArray[Any]) -> float:
    """Return up to which weight a pixel cannot be told from one of weight 0, which lossy compression has moved.

    DECam's Community Pipeline compresses with dither: of its weights of 0, half come back as small positive numbers, as
    large as the negative ones. A sentinel of -1 is no such number.
    """
    negative = np.unique(weight[weight < 0])
    if negative.size < 2 or not np.isfinite(negative[0]):
        return 0.0
    # The dither moves a 0 by up to half a step: twice the largest seen is up to a whole one.
    step = -2.0 * float(negative[0])
    others = weight[weight > step]
    return step if not others.size or step < QUANTIZED_ZERO_SHARE * float(np.median(others)) else 0.0


def maybe_constant(image: npt.NDArray[np.float32]) -> bool:
    """Return whether a window may hold an area of one value, from some lines of it: the least square would touch one of them."""
    first, second = _sampled_pairs(*image.shape)
    flat = image.reshape(-1)
    if not np.count_nonzero(flat.take(first) == flat.take(second)):
        return False
    # Quantized noise has equal neighbors, but not eight in a line.
    return _has_run(image[::MIN_SIDE_PX]) or _has_run(image[-1:]) or _has_run(image[:, [0, -1]].T)


@functools.lru_cache(maxsize=64)
def _sampled_pairs(ny: int, nx: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the flat indices of neighbors of which the least square holds a pair, also where the window's edge cuts it.

    They lie on every eighth row and on the four edges, every seventh pair of each: 1200 of 239 x 239 px.
    """
    index, step = np.arange(ny * nx).reshape(ny, nx), MIN_SIDE_PX - 1
    rows = index[np.unique(np.append(np.arange(0, ny, MIN_SIDE_PX), ny - 1))]
    columns = index[:, np.unique([0, nx - 1])].T
    first, second = (
        np.concatenate(
            [lines[:, begin : lines.shape[1] - 1 + begin : step].ravel() for lines in (rows, columns)]
        )
        for begin in (0, 1)
    )
    return first, second


def _has_run(lines: npt.NDArray[np.float32]) -> bool:
    """Return whether `MIN_SIDE_PX` neighbors along a line are equal, of lines (line, pixel)."""
    equal = lines[:, 1:] == lines[:, :-1]
    if equal.shape[1] < MIN_SIDE_PX - 1:
        return False
    return bool(sliding_window_view(equal, MIN_SIDE_PX - 1, axis=1).all(axis=-1).any())


def constant_areas(image: npt.NDArray[Any]) -> _Bool:
    """Return where an image is one value over squares too large for chance, (y, x) bool: padded, not observed.

    The least squares are `MIN_SIDE_PX` wide of zeros and `MIN_SIDE_OF_OTHERS_PX` of other numbers. They grow where
    chance may make larger ones, as in counts of few photons, whose sky is mostly 0: a square of n pixels is of one value
    with probability p^n, for p the share of the areas in the image or the largest share that a value may have beside them.
    """
    along_x, along_y, is_zero = image[:, 1:] == image[:, :-1], image[1:] == image[:-1], image == 0
    zeros_along_x, zeros_along_y = along_x & is_zero[:, 1:], along_y & is_zero[1:]
    side = MIN_SIDE_PX
    while side <= min(image.shape):
        areas = _squares(zeros_along_x, zeros_along_y, side)
        areas |= _squares(along_x, along_y, max(side, MIN_SIDE_OF_OTHERS_PX))
        beside = ~(areas[:, 1:] | areas[:, :-1])
        # If a share r of neighbors are equal, no value has a larger share than sqrt(r).
        r = np.count_nonzero(along_x & beside) / max(int(np.count_nonzero(beside)), 1)
        p = max(float(areas.mean()), math.sqrt(r))
        needed = math.sqrt(MAX_LOG_CHANCE / math.log(p)) if 0 < p < 1 else 0.0
        if needed <= side and (p < 1 or areas.all()):
            return np.zeros(image.shape, np.bool_) if _fades(image, areas) else areas
        needed = needed if p < 1 else math.inf
        side = math.ceil(min(needed, 1e9))
    return np.zeros(image.shape, np.bool_)


def _fades(image: npt.NDArray[Any], areas: _Bool) -> bool:
    """Return whether the image goes over into the areas without a step: it was made without noise, and they are its sky."""
    values = image[areas]
    beside = _any_in_boxes(np.pad(areas, 1), 3) & ~areas
    if not values.size or values.min() != values.max() or not beside.any():
        return False
    steps = np.abs(image - values[0])
    # On a sky of 1000 the faintest light that a float32 can hold is 6e-5; a narrow source is brighter a pixel further in.
    resolved = 1024 * float(np.spacing(np.float32(abs(values[0]))))
    nearest = float(np.nanmax(steps[beside]))
    if nearest < resolved:
        return True
    # A step that is no small share of the largest difference is none of the median's: this spares the median.
    if nearest >= MAX_FADED_SHARE * float(np.nanmax(steps)):
        return False
    return nearest < MAX_FADED_SHARE * float(np.nanmedian(steps[~areas]))


def _squares(along_x: _Bool, along_y: _Bool, side: int) -> _Bool:
    """Return the union (y, x) of all squares, `side` px wide, whose neighbors are equal along x and along y."""
    ny, nx = len(along_x), along_y.shape[1]
    if side > min(ny, nx):
        return np.zeros((ny, nx), np.bool_)
    whole = _in_windows(_in_windows(along_x, side, np.logical_and, axis=0), side - 1, np.logical_and, axis=1)
    whole &= _in_windows(_in_windows(along_y, side - 1, np.logical_and, axis=0), side, np.logical_and, axis=1)
    # From the first pixels of squares to all of their pixels: any square that begins in the box that ends at a pixel.
    padded = np.zeros((ny + side - 1, nx + side - 1), np.bool_)
    padded[side - 1 : ny, side - 1 : nx] = whole
    return _any_in_boxes(padded, side)


def _any_in_boxes(values: _Bool, side: int) -> _Bool:
    """Return whether any of a box is True, for every box, `side` wide, that lies within `values`."""
    return _in_windows(_in_windows(values, side, np.logical_or, axis=0), side, np.logical_or, axis=1)


def _in_windows(values: _Bool, length: int, combine: np.ufunc, *, axis: int) -> _Bool:
    """Return logical_and or logical_or over every window of `length` neighbors along an axis that lies within `values`."""
    lines = values.swapaxes(0, axis)
    covered = 1
    # A window of 2 n is two of n: 5 operations on bytes for 16 neighbors, 20 times as fast as sums.
    while covered < length:
        step = min(covered, length - covered)
        lines = combine(lines[:-step], lines[step:])
        covered += step
    return lines.swapaxes(0, axis)
