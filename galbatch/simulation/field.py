"""The geometry of a simulated survey: cells, patches, sky positions, the PSF over the field.

Field pixels are 0-based; x and y of field pixel (0, 0) are those of the first patch's first pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from astropy.wcs import WCS

from galbatch.simulation.light.camera import PIXEL_SCALE_ARCSEC, PSF_FWHM_ARCSEC
from galbatch.simulation.light.fourier import Psf

__all__ = ["CELL_PX", "OVERLAP_PX", "TRACT", "TRACT_PATCHES", "Box", "Field", "Patch", "plan_field", "psf_at"]

Floats = npt.NDArray[np.float64]

CELL_PX = 100
"""Pitch of the cells: a cutout of 96 px about a center jittered by 1.5 px lies inside its cell."""

OVERLAP_PX = 100
TRACT = 9813
TRACT_CENTER_DEG = (150.1, 2.2)
TRACT_PATCHES = 9  # HSC numbers a tract's patches 0 to 8 on each axis
MIDDLE_PATCH = 4

PSF_MODES = 4
PSF_AMPLITUDE = 0.04  # of each mode: within the training stamps' scatter of 8 %
PSF_SHEAR_AMPLITUDE = 0.012


@dataclass(frozen=True, slots=True)
class Box:
    """Half-open range of field pixels."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def shape_px(self) -> tuple[int, int]:
        """(y, x)."""
        return self.y1 - self.y0, self.x1 - self.x0

    def overlap(self, other: Box) -> Box | None:
        """Return the box that both cover; None if there is none."""
        box = Box(
            max(self.x0, other.x0), max(self.y0, other.y0), min(self.x1, other.x1), min(self.y1, other.y1)
        )
        return box if box.x0 < box.x1 and box.y0 < box.y1 else None

    def slices(self, origin: Box) -> tuple[slice, slice]:
        """(y, x) slices of this box in an array that begins at `origin`."""
        return (
            slice(self.y0 - origin.y0, self.y1 - origin.y0),
            slice(self.x0 - origin.x0, self.x1 - origin.x0),
        )


@dataclass(frozen=True, slots=True)
class Patch:
    """One patch: `name` as HSC writes it (``4,4``), its pixels."""

    name: str
    box: Box


@dataclass(frozen=True, slots=True)
class Field:
    """Patches of one tract and the cells that hold one galaxy each."""

    patches_x: int
    patches_y: int
    stride_px: int
    cells_x: int
    cells_y: int
    pixel_scale_arcsec: float = PIXEL_SCALE_ARCSEC

    @property
    def box(self) -> Box:
        """All pixels."""
        return Box(
            0, 0, self.patches_x * self.stride_px + OVERLAP_PX, self.patches_y * self.stride_px + OVERLAP_PX
        )

    @property
    def first_patch(self) -> tuple[int, int]:
        """(x, y) number of the first patch: the tract's middle one if the rest fits."""
        first = (
            TRACT_PATCHES - n if n > MIDDLE_PATCH + 1 else MIDDLE_PATCH
            for n in (self.patches_x, self.patches_y)
        )
        x, y = (max(number, 0) for number in first)
        return x, y

    def patches(self) -> list[Patch]:
        """All patches, x fastest."""
        size = self.stride_px + OVERLAP_PX
        first_x, first_y = self.first_patch
        corners = [
            (i, j, i * self.stride_px, j * self.stride_px)
            for j in range(self.patches_y)
            for i in range(self.patches_x)
        ]
        return [
            Patch(f"{first_x + i},{first_y + j}", Box(x, y, x + size, y + size)) for i, j, x, y in corners
        ]

    def wcs(self, origin: Box) -> WCS:
        """The tract's TAN WCS for an array that begins at `origin`: CRPIX differs by whole pixels."""
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.crval = TRACT_CENTER_DEG
        wcs.wcs.cd = np.diag([-self.pixel_scale_arcsec, self.pixel_scale_arcsec]) / 3600
        middle = math.ceil(TRACT_PATCHES * self.stride_px / 2)
        wcs.wcs.crpix = [
            middle - first * self.stride_px - start
            for first, start in zip(self.first_patch, (origin.x0, origin.y0), strict=True)
        ]
        wcs.wcs.radesys = "ICRS"
        wcs.wcs.set()
        return wcs

    def own_wcs(self, box: Box) -> WCS:
        """A TAN WCS for an array that begins at `box`, centered on it: as the Legacy Surveys' bricks have."""
        wcs = self.wcs(box)
        middle = np.array([(box.x1 - box.x0 - 1) / 2, (box.y1 - box.y0 - 1) / 2])
        wcs.wcs.crval = wcs.all_pix2world(middle[None], 0)[0]
        wcs.wcs.crpix = middle + 1
        wcs.wcs.set()
        return wcs

    def cell_box(self, cell: int) -> Box:
        """Pixels of a cell; cells are numbered x fastest."""
        y, x = divmod(cell, self.cells_x)
        return Box(x * CELL_PX, y * CELL_PX, (x + 1) * CELL_PX, (y + 1) * CELL_PX)

    def cell_centers(self, cell: npt.NDArray[np.int64]) -> Floats:
        """(cell, 2) float64, (x, y) of the central pixel (index 50 on both axes)."""
        corner = np.stack([cell % self.cells_x, cell // self.cells_x], axis=-1) * CELL_PX
        return np.asarray(corner + CELL_PX / 2, dtype=np.float64)

    def cells_in(self, box: Box) -> list[int]:
        """Cells that touch `box`, those beyond the last galaxy's row and column included."""
        columns = range(box.x0 // CELL_PX, min(-(-box.x1 // CELL_PX), self.cells_x))
        rows = range(box.y0 // CELL_PX, min(-(-box.y1 // CELL_PX), self.cells_y))
        return [row * self.cells_x + column for row in rows for column in columns]


def plan_field(n_cells: int, n_patches: int, *, pixel_scale_arcsec: float = PIXEL_SCALE_ARCSEC) -> Field:
    """A field of at least `n_cells` cells, in `n_patches` square patches as near to a square as they go."""
    patches_y = max(n for n in range(1, math.isqrt(n_patches) + 1) if n_patches % n == 0)
    patches_x = n_patches // patches_y
    side = math.sqrt(n_cells / n_patches)  # cells a patch and axis
    stride = max(math.ceil(side), 2) * CELL_PX
    # Shrink the patches while all cells still fit: disk space goes with the area.
    while stride > 2 * CELL_PX:
        n_whole = math.prod((n * (stride - 10) + OVERLAP_PX) // CELL_PX for n in (patches_x, patches_y))
        if n_whole < n_cells:
            break
        stride -= 10
    cells = (-(-(n * stride + OVERLAP_PX) // CELL_PX) for n in (patches_x, patches_y))
    cells_x, cells_y = cells
    return Field(patches_x, patches_y, stride, cells_x, cells_y, pixel_scale_arcsec)


def psf_at(field: Field, position_px: Floats, bands: tuple[str, ...], *, seed: int) -> list[list[Psf]]:
    """The PSF, smooth over the field, at each position (object, 2) and in each band."""
    rng = np.random.default_rng([seed, 2])
    size = np.array(field.box.shape_px[::-1])
    waves = rng.uniform(-np.pi, np.pi, (3, PSF_MODES, 2))  # less than one period over the field
    phases = rng.uniform(0, 2 * np.pi, (3, PSF_MODES))
    fields = np.cos(np.einsum("qmk,ok->oqm", waves, position_px / size) + phases).sum(axis=-1)
    amplitude = np.array([PSF_AMPLITUDE, PSF_SHEAR_AMPLITUDE, PSF_SHEAR_AMPLITUDE])
    return [
        [Psf(PSF_FWHM_ARCSEC[band] * (1 + seeing), g1, g2) for band in bands]
        for seeing, g1, g2 in (fields * amplitude).tolist()
    ]
