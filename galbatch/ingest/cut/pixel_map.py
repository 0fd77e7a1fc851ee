"""Maps of pixels on one WCS to positions on another.

WCS transformations cost 1 us a pixel, more than all else that resampling does. Over a cutout the map is smooth, so
polynomials through 64 points stand for it, checked at 9 more.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.polynomial import chebyshev

from galbatch.ingest.headers import SkyWCS
from galbatch.ingest.pixels import Box

__all__ = ["PixelTransform", "Positions"]

# 8 points along an axis follow TAN, TPV and SIP to 1e-6 px. Where the polynomials miss the probes by more than this
# (at a seam or the horizon of a projection), every pixel is transformed.
N_NODES = 8
MAX_ERROR_PX = 1e-4

# Iterative inverses (SIP) stop here; astropy's own 1e-4 px would be as large as all other errors together.
TOLERANCE_PX = 1e-6

_Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Positions:
    """Pixels of a box on another WCS.

    Attributes
    ----------
    x, y : (box y, box x) float64, 0-based pixels of the other; NaN beyond its projection's horizon
    area : (box y, box x) float64, in pixels of the other
    """

    x: _Float64
    y: _Float64
    area: _Float64


@dataclass(frozen=True, slots=True)
class PixelTransform:
    """A map from pixels on the WCS `origin` to pixels on the WCS `goal`."""

    origin: SkyWCS
    goal: SkyWCS

    def __call__(self, x: _Float64, y: _Float64) -> _Float64:
        """Return x and y on the goal, (2, ...) float64; NaN beyond its projection's horizon."""
        found = self.goal.to_pixels(*self.origin.to_sky(x, y), tolerance_px=TOLERANCE_PX)
        return np.asarray(found, dtype=np.float64)

    def steps(self, x: float, y: float) -> _Float64:
        """Return the step on the goal of one pixel at (x, y), (x or y, along x or y): the matrix of derivatives."""
        at = self(np.array([x, x + 1.0, x]), np.array([y, y, y + 1.0]))
        return at[:, 1:] - at[:, :1]

    def positions(self, box: Box) -> Positions:
        """Return the positions of all pixels of the box."""
        # A separable polynomial: 8 x 8 nodes are transformed, all other pixels follow by two matrix products.
        rows, columns = _Axis.of(box.y0, box.y1), _Axis.of(box.x0, box.x1)
        nodes = self._grid(columns.nodes, rows.nodes)
        probed = rows.values[rows.probes] @ nodes @ columns.values[columns.probes].T
        missed = np.abs(probed - self._grid(columns.pixels[columns.probes], rows.pixels[rows.probes]))
        if not missed.max() <= MAX_ERROR_PX:  # also where something is NaN
            return self._positions_one_by_one(rows.pixels, columns.pixels)
        x, y = rows.values @ nodes @ columns.values.T
        by_x, by_y = rows.values @ nodes @ columns.slopes.T, rows.slopes @ nodes @ columns.values.T
        return Positions(x, y, _area(by_x, by_y))

    def _positions_one_by_one(self, rows: _Float64, columns: _Float64) -> Positions:
        at = self._grid(columns, rows)
        area = _area(np.gradient(at, axis=2), np.gradient(at, axis=1))
        x, y = np.where(np.isfinite(area), at, np.nan)
        return Positions(x, y, area)

    def _grid(self, columns: _Float64, rows: _Float64) -> _Float64:
        """Return x and y on the goal of a grid of pixels, (2, y, x)."""
        return self(*np.meshgrid(columns, rows))


def _area(by_x: npt.ArrayLike, by_y: npt.ArrayLike) -> _Float64:
    """Return the area (y, x) that the derivatives along x and y, each (2, y, x), span: the determinant."""
    (x_by_x, y_by_x), (x_by_y, y_by_y) = np.asarray(by_x), np.asarray(by_y)
    return np.abs(x_by_x * y_by_y - x_by_y * y_by_x)


@dataclass(frozen=True, slots=True)
class _Axis:
    """Chebyshev polynomials along one axis of a box.

    Attributes
    ----------
    pixels : (pixel,)
    nodes : (node,) Chebyshev's points between the outer edges of the first and the last pixel
    probes : indices of pixels
    values, slopes : (pixel, node): from values at the nodes to values and slopes at the pixels
    """

    pixels: _Float64
    nodes: _Float64
    probes: list[int]
    values: _Float64
    slopes: _Float64

    @classmethod
    def of(cls, start: int, stop: int) -> _Axis:
        """Return the axis of the pixels start <= pixel < stop."""
        count = stop - start
        pixels = np.arange(start, stop, dtype=np.float64)
        nodes = (start + stop - 1) / 2.0 + count / 2.0 * chebyshev.chebpts1(N_NODES)
        return cls(pixels, nodes, [0, count // 3, count - 1], *_polynomials(count))


@functools.lru_cache(maxsize=64)
def _polynomials(count: int) -> tuple[_Float64, _Float64]:
    """Return `values` and `slopes` of an axis of `count` pixels: they are the same wherever it starts."""
    coefficients = np.linalg.inv(chebyshev.chebvander(chebyshev.chebpts1(N_NODES), N_NODES - 1))
    scaled = (2 * np.arange(count) - (count - 1)) / count
    values = chebyshev.chebvander(scaled, N_NODES - 1) @ coefficients
    slopes = chebyshev.chebvander(scaled, N_NODES - 2) @ chebyshev.chebder(coefficients)
    # The axis has length 2 in the variable of the polynomials.
    return np.asarray(values), np.asarray(slopes * (2.0 / count))
