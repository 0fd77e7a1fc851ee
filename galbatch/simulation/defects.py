"""Pixel defects of a simulated survey (saturated stars, bad columns, cosmic rays), and the mask bits that mark them.

Positions are in field pixels, so that overlapping patches have the same defects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galbatch.simulation.field import CELL_PX, Box, Field

__all__ = ["MASK_PLANES", "Defects", "Planes", "Star", "apply_defects", "draw_defects"]

MASK_PLANES = {
    "EDGE": 0,
    "INTRP": 1,
    "BAD": 3,
    "SUSPECT": 5,
    "SAT": 7,
    "DETECTED_NEGATIVE": 9,
    "CR": 11,
    "NO_DATA": 12,
    "DETECTED": 14,
    "BRIGHT_OBJECT": 17,
    "CLIPPED": 20,
}
"""Bit numbers of the mask planes, for the MP_* cards. No release has these numbers, so that readers must use the cards."""

EDGE_PX = 12
NO_DATA_LEG_PX = 230
STAR_FLUX_NJY = (5e7, 2e8)  # From 12.2 to 10.6 mag.
BRIGHT_OBJECT_RADIUS_PX = 130
BLEED_LENGTH_PX = 160  # Long enough to reach the centers of the cells above and below.
BLEED_HALF_WIDTH_PX = 1
SATURATION_NJY = 2e4
COLUMN_LENGTH_PX = 800
TRACK_LENGTH_PX = (3, 12)
TRACK_RESIDUAL_NJY = 30.0
NEAR_CENTER_PX = 10.0


@dataclass(frozen=True, slots=True)
class Star:
    """A saturated star.

    Attributes
    ----------
    cell : int
        Number of its cell; -1 in the population `survey`, which has no cells.
    x, y : float
        Position in field pixels.
    flux_njy : float
    bleed_px : int
        Length of the bleed trail above and below the star.
    radius_px : float
        Radius of the BRIGHT_OBJECT mask.
    """

    cell: int
    x: float
    y: float
    flux_njy: float
    bleed_px: int = BLEED_LENGTH_PX
    radius_px: float = BRIGHT_OBJECT_RADIUS_PX


@dataclass(frozen=True, slots=True)
class Defects:
    """Saturated stars, bad columns (boxes one pixel wide) and cosmic-ray tracks ((pixel, 2) int64, x and y)."""

    stars: tuple[Star, ...]
    columns: tuple[Box, ...]
    tracks: tuple[npt.NDArray[np.int64], ...]


@dataclass(frozen=True, slots=True)
class Planes:
    """Image (nJy), mask and variance (nJy^2) of one band, all (y, x), of the field pixels in `box`."""

    box: Box
    image: npt.NDArray[np.float32]
    mask: npt.NDArray[np.int32]
    variance: npt.NDArray[np.float32]


def bits(*names: str) -> int:
    """Return the mask value with the bits of the named planes set."""
    return sum(1 << MASK_PLANES[name] for name in names)


def draw_defects(
    field: Field, star_cells: npt.NDArray[np.int64], *, n_columns: int, n_tracks: int, seed: int
) -> Defects:
    """Draw the defects of a field.

    Parameters
    ----------
    field : Field
    star_cells : (star,) int64
        Numbers of the cells that get a saturated star.
    n_columns, n_tracks : int
        Numbers of bad columns and of cosmic-ray tracks.
    seed : int
    """
    rng = np.random.default_rng([seed, 3])
    stars = []
    for cell, (x, y) in zip(star_cells.tolist(), field.cell_centers(star_cells).tolist(), strict=True):
        shift = rng.uniform(-1, 1, 2).tolist()
        stars.append(Star(cell, x + shift[0], y + shift[1], float(rng.uniform(*STAR_FLUX_NJY))))
    # A column at the edge of a patch has only one neighbor there, and could not be interpolated alike in both patches.
    borders = {
        x + step for patch in field.patches() for x in (patch.box.x0, patch.box.x1) for step in (-2, -1, 0, 1)
    }
    columns = []
    for _ in range(n_columns):
        # Near the centers of a column of cells, where the galaxies are.
        x = int(rng.integers(field.cells_x - 1)) * CELL_PX + CELL_PX // 2 + int(rng.integers(-5, 6))
        while x in borders:
            x += 1
        length = min(COLUMN_LENGTH_PX, field.box.y1)
        y = int(rng.integers(field.box.y1 - length + 1))
        columns.append(Box(x, y, x + 1, y + length))
    tracks = []
    for index in range(n_tracks):
        start = rng.uniform((0, 0), (field.box.x1, field.box.y1))
        # Every other track is near the center of a cell: random ones alone would rarely set BAD_CENTER.
        if index % 2 == 0:
            start = start // CELL_PX * CELL_PX + CELL_PX / 2 + rng.uniform(-NEAR_CENTER_PX, NEAR_CENTER_PX, 2)
        angle = rng.uniform(0, 2 * np.pi)
        along = np.arange(0, rng.uniform(*TRACK_LENGTH_PX), 0.5)
        # (step, 2); steps of half a pixel leave no gap, and unique drops the pixels that occur twice.
        track = start + along[:, None] * np.array([np.cos(angle), np.sin(angle)])
        tracks.append(np.unique(track.round().astype(np.int64), axis=0))
    return Defects(tuple(stars), tuple(columns), tuple(tracks))


def apply_defects(field: Field, defects: Defects, planes: Planes) -> None:
    """Add bleeding stars, bad columns, cosmic rays, edges and missing data to `planes`, in place."""
    y, x = np.ogrid[planes.box.y0 : planes.box.y1, planes.box.x0 : planes.box.x1]
    for star in defects.stars:
        distance2 = (x - star.x) ** 2 + (y - star.y) ** 2
        planes.mask[distance2 < star.radius_px**2] |= bits("BRIGHT_OBJECT")
        _bleed(star, planes)
    for column in defects.columns:
        part = column.overlap(planes.box)
        # The first and last column of an array have only one neighbor. They occur only in the margin of a stamp, which is
        # cut off later.
        if part is not None and planes.box.x0 < part.x0 and part.x1 < planes.box.x1:
            rows, columns = part.slices(planes.box)
            left, right = planes.image[rows, columns.start - 1], planes.image[rows, columns.start + 1]
            planes.image[rows, columns.start] = (left + right) / 2
            planes.mask[rows, columns] |= bits("BAD", "INTRP")
    height, width = planes.box.shape_px
    for track in defects.tracks:
        at_x, at_y = track[:, 0] - planes.box.x0, track[:, 1] - planes.box.y0
        inside = (at_x >= 0) & (at_y >= 0) & (at_x < width) & (at_y < height)
        planes.image[at_y[inside], at_x[inside]] += TRACK_RESIDUAL_NJY
        planes.mask[at_y[inside], at_x[inside]] |= bits("CR", "INTRP")
    edge = (x < EDGE_PX) | (y < EDGE_PX) | (x >= field.box.x1 - EDGE_PX) | (y >= field.box.y1 - EDGE_PX)
    planes.mask[edge] |= bits("EDGE")
    # The corner without data is last, because it erases all other bits.
    missing = (field.box.x1 - x) + (field.box.y1 - y) < NO_DATA_LEG_PX
    planes.image[missing] = np.nan
    planes.variance[missing] = np.nan
    planes.mask[missing] = bits("NO_DATA")


def _bleed(star: Star, planes: Planes) -> None:
    """Draw the bleed trail of a star along y, and saturate the pixels around it, in place."""
    x, y = round(star.x), round(star.y)
    width, length = BLEED_HALF_WIDTH_PX, star.bleed_px
    trail = Box(x - width, y - length, x + width + 1, y + length + 1).overlap(planes.box)
    if trail is not None:
        where = trail.slices(planes.box)
        planes.image[where] = SATURATION_NJY
        planes.mask[where] |= bits("SAT", "INTRP")
    core = planes.image > SATURATION_NJY
    nearby = Box(x - CELL_PX // 2, y - CELL_PX // 2, x + CELL_PX // 2, y + CELL_PX // 2).overlap(planes.box)
    if nearby is not None:
        where = nearby.slices(planes.box)
        planes.mask[where][core[where]] |= bits("SAT")
        np.minimum(planes.image[where], SATURATION_NJY, out=planes.image[where])
