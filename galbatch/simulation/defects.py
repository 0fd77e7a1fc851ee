"""Defects of pixels in a simulated survey, and the mask bits that mark them.

Defects are given in field pixels, so patches that overlap agree on them.
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
"""Bit numbers as the MP_* cards give them: unlike any release's, since readers must go by name."""

EDGE_PX = 12
NO_DATA_LEG_PX = 230
STAR_FLUX_NJY = (5e7, 2e8)  # 12.2 to 10.6 mag
BRIGHT_OBJECT_RADIUS_PX = 130
BLEED_LENGTH_PX = 160  # reaches the centers of the cells above and below
BLEED_HALF_WIDTH_PX = 1
SATURATION_NJY = 2e4
COLUMN_LENGTH_PX = 800
TRACK_LENGTH_PX = (3, 12)
TRACK_RESIDUAL_NJY = 30.0
NEAR_CENTER_PX = 10.0


@dataclass(frozen=True, slots=True)
class Star:
    """A saturated star at field pixel (x, y): how far it bleeds up and down, and how far around it is BRIGHT_OBJECT."""

    cell: int
    x: float
    y: float
    flux_njy: float
    bleed_px: int = BLEED_LENGTH_PX
    radius_px: float = BRIGHT_OBJECT_RADIUS_PX


@dataclass(frozen=True, slots=True)
class Defects:
    """Stars, bad columns (boxes one pixel wide) and cosmic-ray tracks ((pixel, 2), x and y)."""

    stars: tuple[Star, ...]
    columns: tuple[Box, ...]
    tracks: tuple[npt.NDArray[np.int64], ...]


@dataclass(frozen=True, slots=True)
class Planes:
    """Image (nJy), mask and variance (nJy^2) of one band, all (y, x), beginning at `box`."""

    box: Box
    image: npt.NDArray[np.float32]
    mask: npt.NDArray[np.int32]
    variance: npt.NDArray[np.float32]


def bits(*names: str) -> int:
    """Mask value of the named planes."""
    return sum(1 << MASK_PLANES[name] for name in names)


def draw_defects(
    field: Field, star_cells: npt.NDArray[np.int64], *, n_columns: int, n_tracks: int, seed: int
) -> Defects:
    """Draw the defects of a field."""
    rng = np.random.default_rng([seed, 3])
    stars = []
    for cell, (x, y) in zip(star_cells.tolist(), field.cell_centers(star_cells).tolist(), strict=True):
        shift = rng.uniform(-1, 1, 2).tolist()
        stars.append(Star(cell, x + shift[0], y + shift[1], float(rng.uniform(*STAR_FLUX_NJY))))
    columns = tuple(_draw_column(field, rng) for _ in range(n_columns))
    tracks = tuple(_draw_track(field, index, rng) for index in range(n_tracks))
    return Defects(tuple(stars), columns, tracks)


def _draw_column(field: Field, rng: np.random.Generator) -> Box:
    """A bad column that passes the centers of a column of cells, away from the edges of patches."""
    borders = {
        x + step for patch in field.patches() for x in (patch.box.x0, patch.box.x1) for step in (-2, -1, 0, 1)
    }
    x = int(rng.integers(field.cells_x - 1)) * CELL_PX + CELL_PX // 2 + int(rng.integers(-5, 6))
    while x in borders:
        x += 1
    length = min(COLUMN_LENGTH_PX, field.box.y1)
    y = int(rng.integers(field.box.y1 - length + 1))
    return Box(x, y, x + 1, y + length)


def _draw_track(field: Field, index: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Pixels (pixel, 2) of a straight cosmic-ray track; every other one near the center of a cell."""
    start = rng.uniform((0, 0), (field.box.x1, field.box.y1))
    if index % 2 == 0:
        start = start // CELL_PX * CELL_PX + CELL_PX / 2 + rng.uniform(-NEAR_CENTER_PX, NEAR_CENTER_PX, 2)
    angle = rng.uniform(0, 2 * np.pi)
    along = np.arange(0, rng.uniform(*TRACK_LENGTH_PX), 0.5)
    track = start + along[:, None] * np.array([np.cos(angle), np.sin(angle)])
    return np.unique(track.round().astype(np.int64), axis=0)


def apply_defects(field: Field, defects: Defects, planes: Planes) -> None:
    """Change `planes` in place: bleeding stars, bad columns, cosmic rays, edges, missing data."""
    y, x = np.ogrid[planes.box.y0 : planes.box.y1, planes.box.x0 : planes.box.x1]
    for star in defects.stars:
        distance2 = (x - star.x) ** 2 + (y - star.y) ** 2
        planes.mask[distance2 < star.radius_px**2] |= bits("BRIGHT_OBJECT")
        _bleed(star, planes)
    for column in defects.columns:
        _interpolate_column(column, planes)
    height, width = planes.box.shape_px
    for track in defects.tracks:
        at_x, at_y = track[:, 0] - planes.box.x0, track[:, 1] - planes.box.y0
        inside = (at_x >= 0) & (at_y >= 0) & (at_x < width) & (at_y < height)
        planes.image[at_y[inside], at_x[inside]] += TRACK_RESIDUAL_NJY
        planes.mask[at_y[inside], at_x[inside]] |= bits("CR", "INTRP")
    edge = (x < EDGE_PX) | (y < EDGE_PX) | (x >= field.box.x1 - EDGE_PX) | (y >= field.box.y1 - EDGE_PX)
    planes.mask[edge] |= bits("EDGE")
    missing = (field.box.x1 - x) + (field.box.y1 - y) < NO_DATA_LEG_PX
    planes.image[missing] = np.nan
    planes.variance[missing] = np.nan
    planes.mask[missing] = bits("NO_DATA")


def _bleed(star: Star, planes: Planes) -> None:
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


def _interpolate_column(column: Box, planes: Planes) -> None:
    inside = column.overlap(planes.box)
    # In the first and last pixel of a stamp's margin there is only one neighbor, and nobody sees them.
    if inside is not None and planes.box.x0 < inside.x0 and inside.x1 < planes.box.x1:
        rows, columns = inside.slices(planes.box)
        left, right = planes.image[rows, columns.start - 1], planes.image[rows, columns.start + 1]
        planes.image[rows, columns.start] = (left + right) / 2
        planes.mask[rows, columns] |= bits("BAD", "INTRP")
