"""A tile's pixels on another grid: flux, variance and mask.

A cutout's pixel is a weighted sum of the 6 x 6 tile pixels about its center. The weights are known, so the variance
follows from their squares and the mask from where they are; bands on one grid share them. The image alone may come from
reproject instead: it gives neither variance nor mask, and takes no pixel map.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galbatch.core.types import Resampling, Tile
from galbatch.ingest.cut.kernel import PHASE_BITS, PHASES, REACH_PX, kernel_weights, received_weight
from galbatch.ingest.cut.pixel_map import PixelTransform, Positions
from galbatch.ingest.cut.reprojected import reprojected
from galbatch.ingest.headers import TanWCS, parse_wcs
from galbatch.ingest.pixels import Box, Pixels, TileReader

__all__ = ["Resampled", "resample", "window_to_resample"]


MAPS_KEPT = 4
"""Pixel maps kept for an object's other bands: 3 MB each at 239 px."""

_Float32 = npt.NDArray[np.float32]
_Index = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Resampled:
    """A tile's pixels on a cutout's grid; `noise_correlation` as in `CutoutBlock`."""

    pixels: Pixels
    noise_correlation: float


def resample(
    reader: TileReader, tile: Tile, *, target: TanWCS, size_px: int, resampling: Resampling = "low_pass"
) -> Resampled | None:
    """Return the tile's pixels on the cutout's grid; None where no pixel of the cutout lies within the tile.

    Every tile pixel gives exactly its flux, so sums keep it whatever the source; a uniform brightness stays uniform to
    0.3 percent. Where the cutout's pixels are wider than the tile's, the kernel is as much wider: it averages. A pixel
    is NaN where any tile pixel under the kernel is NaN or beyond the tile's edge, and has the mask bits of all of
    them. Its variance is the sum of squared weights times variances, for noise independent between tile pixels.

    Parameters
    ----------
    target : WCS of the cutout, (size_px, size_px) px
    resampling : where the image comes from; variance, mask and noise correlation are those of this kernel all the same
    """
    place = _Place(target.crpix, target.crval, tuple(target.cd.ravel().tolist()), size_px)
    drawing = _drawing(tile.wcs_header, tile.shape_px, place)
    if drawing is None:
        return None
    if resampling == "low_pass":
        return Resampled(drawing.draw(reader.read(tile, drawing.box)), drawing.noise_correlation)
    # The squares that reproject samples reach farther where they are turned.
    box = drawing.box.grown(drawing.reach_px).clipped(tile.shape_px)
    window = reader.read(tile, box)
    image = reprojected(
        window.image,
        origin=(parse_wcs(tile.wcs_header), box),
        goal=(target.sky(), Box(0, size_px, 0, size_px)),
        area=drawing.area,
        method=resampling,
    )
    own = drawing.box.shifted(-box.y0, -box.x0).slices
    drawn = drawing.draw(Pixels(window.image[own], window.mask[own], window.variance[own]))
    return Resampled(_with_image(drawn, image), drawing.noise_correlation)


def _with_image(pixels: Pixels, image: _Float32) -> Pixels:
    """Return the pixels with another image; what is missing in either is missing."""
    missing = np.isnan(pixels.image) | np.isnan(image)
    return Pixels(
        np.where(missing, np.float32(np.nan), image),
        np.where(missing, np.uint16(0), pixels.mask),
        np.where(missing, np.float32(np.nan), pixels.variance),
    )


def window_to_resample(
    tile: Tile, *, target: TanWCS, size_px: int, resampling: Resampling = "low_pass"
) -> Box | None:
    """Return a window of the tile that holds all that `resample` will read; None where that is nothing, or is not known."""
    to_tile = PixelTransform(target.sky(), parse_wcs(tile.wcs_header))
    along = np.linspace(0.0, size_px - 1.0, 9)
    x, y = to_tile(*np.meshgrid(along, along))
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    # Between the 81 points a smooth map strays by less than 1 px.
    kernels = 1 if resampling == "low_pass" else 2
    reach = kernels * REACH_PX * max(1.0, float(max(np.ptp(x), np.ptp(y))) / size_px) + 2.0
    box = Box(
        math.floor(y.min() - reach),
        math.ceil(y.max() + reach) + 1,
        math.floor(x.min() - reach),
        math.ceil(x.max() + reach) + 1,
    ).clipped(tile.shape_px)
    return None if box.is_empty else box


@dataclass(frozen=True, slots=True)
class _Place:
    """A cutout's WCS and size, hashable."""

    crpix: tuple[float, float]
    crval: tuple[float, float]
    cd: tuple[float, ...]
    size_px: int

    @property
    def tan(self) -> TanWCS:
        return TanWCS(self.crpix, self.crval, np.reshape(self.cd, (2, 2)))


@dataclass(frozen=True, slots=True)
class _Drawing:
    """The tile pixels that a cutout is made from, with their weights.

    Attributes
    ----------
    box : window of the tile that it draws on
    covered : (y, x) bool: pixels whose kernel lies within the tile
    area : (y, x) float32: of the cutout's pixels in tile pixels
    first : (covered pixel,) the first tile pixel under the kernel, counted row by row in the window
    x_weights, y_weights : (tap, covered pixel) float32: the weight of a tile pixel is that of its column times that of
        its row
    share : (window y, window x) float32: factor that makes each tile pixel's weights sum to 1 over all pixels that
        draw on it, in the cutout or beyond
    noise_correlation : as in `CutoutBlock`
    """

    box: Box
    covered: npt.NDArray[np.bool_]
    area: _Float32
    first: _Index
    x_weights: _Float32
    y_weights: _Float32
    share: _Float32
    noise_correlation: float

    @property
    def reach_px(self) -> int:
        """Tile pixels from a cutout pixel's center to the kernel's end."""
        return len(self.x_weights) // 2

    def draw(self, window: Pixels) -> Pixels:
        """Return the window's pixels, resampled onto the cutout's grid (y, x)."""
        image = self._sum(window.image * self.share, self.x_weights, self.y_weights)
        missing = np.isnan(image)  # (y, x): any tile pixel under the kernel is NaN, or beyond the edge
        variance = np.full(image.shape, np.nan, np.float32)
        if not np.isnan(window.variance).all():
            # Independent noise: weights enter squared.
            variance = self._sum(window.variance * self.share**2, self.x_weights**2, self.y_weights**2)
            variance[missing] = np.nan
        mask = np.zeros(image.shape, np.uint16)
        if window.mask.any():
            mask[self.covered] = self._bits_under_kernel(window.mask).ravel()[self.first]
            mask[missing] = 0
        return Pixels(image, mask, variance)

    def _bits_under_kernel(self, mask: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
        """Return the OR of the bits of the (tap, tap) pixels that begin at each pixel of the window."""
        height, width = mask.shape
        rows, bits = np.zeros_like(mask), np.zeros_like(mask)
        # Along rows, then along columns: 2 n instead of n^2 operations for n taps.
        for tap in range(len(self.x_weights)):
            rows[:, : width - tap] |= mask[:, tap:]
        for tap in range(len(self.x_weights)):
            bits[: height - tap] |= rows[tap:]
        return bits

    def _sum(self, window: _Float32, x_weights: _Float32, y_weights: _Float32) -> _Float32:
        """Return weighted sums of the window's pixels, (y, x) float32; NaN where not covered."""
        flat, width = window.ravel(), window.shape[1]
        total = np.zeros(len(self.first), np.float32)
        row, drawn = np.empty_like(total), np.empty_like(total)
        for y_tap, y_weight in enumerate(y_weights):
            row[:] = 0.0
            for x_tap, x_weight in enumerate(x_weights):
                # No index is out of range; mode "raise" would write by way of a copy.
                np.take(flat[y_tap * width + x_tap :], self.first, out=drawn, mode="wrap")
                drawn *= x_weight
                row += drawn
            row *= y_weight
            total += row
        found = np.full(self.covered.shape, np.nan, np.float32)
        found[self.covered] = total
        return found


@functools.lru_cache(maxsize=MAPS_KEPT)
def _drawing(wcs_header: str, shape_px: tuple[int, int], place: _Place) -> _Drawing | None:
    """Return the tile pixels and weights that a cutout is resampled from; None where tile and cutout do not meet."""
    own, tile = place.tan.sky(), parse_wcs(wcs_header)
    to_tile = PixelTransform(own, tile)
    center = (place.size_px - 1) / 2.0
    steps = to_tile.steps(center, center)
    if not np.isfinite(steps).all():  # beyond the horizon
        return None
    area = abs(float(np.linalg.det(steps)))
    # Rounded, so that cutouts of one tile share the tables that are cached by it.
    width_factor = max(1.0, round(math.sqrt(area), 2))
    taps = _Taps.of(to_tile.positions(Box(0, place.size_px, 0, place.size_px)), kernel_weights(width_factor))
    covered = taps.within(shape_px)
    if not covered.any():
        return None
    area_px = taps.area
    taps = taps.at(covered)
    back = PixelTransform(tile, own).positions(taps.box)
    x_weights, y_weights = taps.weights()
    own = np.einsum("tp,tp->p", x_weights, x_weights) * np.einsum("tp,tp->p", y_weights, y_weights)
    return _Drawing(
        box=taps.box,
        covered=covered,
        area=area_px,
        first=taps.first,
        x_weights=x_weights,
        y_weights=y_weights,
        share=1.0 / received_weight(back, steps, width_factor=width_factor),
        # Sums over many pixels have the variance of the tile pixels they cover, of which there are `area`.
        noise_correlation=math.sqrt(
            float(taps.area.sum(dtype=np.float64)) / float(own.sum(dtype=np.float64))
        ),
    )


@dataclass(frozen=True, slots=True)
class _Taps:
    """Tile pixels under the kernels of cutout pixels, and their weights; arrays of any one shape.

    Attributes
    ----------
    x0, y0 : first tile pixel under the kernel
    x_phase, y_phase : place within it
    area : float32, of the cutout's pixel in tile pixels
    table : (tap, phase) float32
    """

    x0: _Index
    y0: _Index
    x_phase: _Index
    y_phase: _Index
    area: _Float32
    table: _Float32

    @classmethod
    def of(cls, positions: Positions, table: _Float32) -> _Taps:
        """Return the taps of kernels at `positions`; those that are NaN are put beyond any tile."""
        x0, x_phase = _split(positions.x, len(table))
        y0, y_phase = _split(positions.y, len(table))
        return cls(x0, y0, x_phase, y_phase, positions.area.astype(np.float32), table)

    def at(self, chosen: npt.NDArray[np.bool_]) -> _Taps:
        """Return the taps of some pixels, (pixel,)."""
        index = np.flatnonzero(chosen)
        x0, y0, x_phase, y_phase = (
            values.ravel()[index] for values in (self.x0, self.y0, self.x_phase, self.y_phase)
        )
        return _Taps(x0, y0, x_phase, y_phase, self.area.ravel()[index], self.table)

    def within(self, shape_px: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """Return whether a tile of this shape has all taps of a pixel."""
        y_last, x_last = (length - len(self.table) for length in shape_px)
        return (self.x0 >= 0) & (self.y0 >= 0) & (self.x0 <= x_last) & (self.y0 <= y_last)

    @property
    def box(self) -> Box:
        """The window of the tile that holds all taps."""
        y1, x1 = int(self.y0.max()) + len(self.table), int(self.x0.max()) + len(self.table)
        return Box(int(self.y0.min()), y1, int(self.x0.min()), x1)

    @property
    def first(self) -> _Index:
        """Index of each kernel's first tile pixel in the window, counted row by row."""
        box = self.box
        return (self.y0 - box.y0) * box.shape[1] + (self.x0 - box.x0)

    def weights(self) -> tuple[_Float32, _Float32]:
        """Return the weights of columns and of rows, (tap, ...) float32; the latter hold the area, so that fluxes are kept."""
        return self.table.take(self.x_phase, axis=1), self.table.take(self.y_phase, axis=1) * self.area


def _split(position: npt.NDArray[np.float64], n_taps: int) -> tuple[_Index, _Index]:
    """Return the first tile pixel under the kernel at each position, and the place within a pixel in steps of 1 / PHASES."""
    # -1e9 px lies beyond any tile, and its steps still fit into 64 bits.
    steps = np.rint(np.nan_to_num(position, nan=-1e9) * PHASES).astype(np.intp)
    return (steps >> PHASE_BITS) - (n_taps // 2 - 1), steps & (PHASES - 1)
