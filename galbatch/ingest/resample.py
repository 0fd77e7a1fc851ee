"""Reprojection of a tile's window onto a cutout's grid, conserving flux."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from astropy.wcs import WCS
from reproject import reproject_adaptive, reproject_interp

from galbatch.ingest import lattice
from galbatch.ingest.planes import Box
from galbatch.ingest.reader import Pixels, TileReader
from galbatch.types import Tile

__all__ = ["Resampled", "resample"]

# Beyond this ratio of pixel scales, interpolation would skip input pixels: average them instead.
ADAPTIVE_RATIO = 1.3

# A bicubic spline falls by 0.27 a pixel: 6 px from the window's edge its boundary conditions are below 1e-3.
MARGIN_PX = 6

# An output pixel counts as touched by a missing or flagged input pixel when it draws this much of its value from it.
TOUCHED = 0.1


@dataclass(frozen=True, slots=True)
class Resampled:
    """A tile's pixels on a cutout's grid; `noise_correlation` as in `CutoutBlock`."""

    pixels: Pixels
    noise_correlation: float


@dataclass(frozen=True, slots=True)
class _Map:
    """Where a cutout lies in a tile.

    Attributes
    ----------
    box : window of the tile that the cutout draws on
    area_ratio : area of a cutout's pixel in tile pixels, at the cutout's center
    """

    box: Box
    area_ratio: float


def resample(reader: TileReader, tile: Tile, *, target: WCS, size_px: int) -> Resampled | None:
    """The tile's pixels on the cutout's grid; None where they do not meet.

    Surface brightness is interpolated (bicubic; averaged with a Gaussian kernel where the cutout's pixels
    are more than 1.3 times as wide) and scaled by the ratio of pixel areas, so fluxes are kept. The variance
    is scaled by the same ratio: sums over an aperture keep their variance, the correlation that interpolation
    makes between neighboring pixels is not tracked. A mask bit is set where a pixel with it contributes 0.1 or more.

    Parameters
    ----------
    target : WCS of the cutout, (size_px, size_px) px
    """
    found = _map(tile, target, size_px=size_px)
    if found is None:
        return None
    source = lattice.parse_wcs(tile.wcs_header).slice(found.box.slices)
    pixels = reader.read(tile, found.box)
    planes, bits = _stack(pixels)
    projected = _project(planes, source, target=target, size_px=size_px, area_ratio=found.area_ratio)
    return Resampled(_unstack(projected, bits, area_ratio=found.area_ratio), 1.0)


def _map(tile: Tile, target: WCS, *, size_px: int) -> _Map | None:
    """Window of the tile that the cutout needs, from the cutout's border and center."""
    along = np.linspace(-1.0, size_px, 9)
    low, high = np.full(9, -1.0), np.full(9, float(size_px))
    half = (size_px - 1) / 2.0
    x = np.concatenate([along, along, low, high, [half, half + 1.0, half]])
    y = np.concatenate([low, high, along, along, [half, half, half + 1.0]])
    source = lattice.parse_wcs(tile.wcs_header)
    source_x, source_y = source.all_world2pix(*target.all_pix2world(x, y, 0), 0, quiet=True)
    if not (np.isfinite(source_x).all() and np.isfinite(source_y).all()):
        return None
    box = Box(
        int(np.floor(source_y.min())) - MARGIN_PX,
        int(np.ceil(source_y.max())) + MARGIN_PX + 1,
        int(np.floor(source_x.min())) - MARGIN_PX,
        int(np.ceil(source_x.max())) + MARGIN_PX + 1,
    ).clipped(tile.shape_px)
    steps = np.array([source_x[-2:] - source_x[-3], source_y[-2:] - source_y[-3]])
    return None if box.is_empty else _Map(box, abs(float(np.linalg.det(steps))))


def _stack(pixels: Pixels) -> tuple[npt.NDArray[np.float64], list[int]]:
    """(plane, y, x): image, variance, no image, no variance, then each mask bit that occurs.

    Splines know no NaN: one would spread along its row and column. So missing pixels are 0, and planes
    of their own say where they are.
    """
    present = int(np.bitwise_or.reduce(pixels.mask, axis=None))
    bits = [1 << number for number in range(16) if present >> number & 1]
    planes = [
        np.nan_to_num(pixels.image, nan=0.0),
        np.nan_to_num(pixels.variance, nan=0.0),
        np.isnan(pixels.image),
        np.isnan(pixels.variance),
        *((pixels.mask & bit) != 0 for bit in bits),
    ]
    return np.stack([plane.astype(np.float64) for plane in planes]), bits


def _project(
    planes: npt.NDArray[np.float64], source: WCS, *, target: WCS, size_px: int, area_ratio: float
) -> npt.NDArray[np.float64]:
    """All planes in one call: they share the map between the pixels, which costs more than the pixels."""
    shape = (len(planes), size_px, size_px)
    options = {"shape_out": shape, "return_footprint": False, "roundtrip_coords": False}
    if area_ratio > ADAPTIVE_RATIO**2:
        return np.asarray(reproject_adaptive((planes, source), target, **options))
    return np.asarray(reproject_interp((planes, source), target, order="bicubic", **options))


def _unstack(projected: npt.NDArray[np.float64], bits: list[int], *, area_ratio: float) -> Pixels:
    image, variance = projected[0] * area_ratio, projected[1] * area_ratio
    image[np.abs(projected[2]) > TOUCHED] = np.nan
    variance[(np.abs(projected[3]) > TOUCHED) | (variance < 0) | np.isnan(image)] = np.nan
    mask = np.zeros(image.shape, np.uint16)
    for bit, plane in zip(bits, projected[4:], strict=True):
        mask[np.abs(plane) > TOUCHED] |= np.uint16(bit)
    mask[np.isnan(image)] = 0
    return Pixels(image.astype(np.float32), mask, variance.astype(np.float32))
