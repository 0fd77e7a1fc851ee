"""The geometry of a simulated survey: cells, patches, sky positions, and the PSF over the field.

Field pixels are 0-based, and pixel (0, 0) is the first pixel of the first patch.
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
"""Side of the square cells: a cutout of 96 px, centered up to 1.5 px from the cell's center, lies inside the cell."""

OVERLAP_PX = 100
TRACT = 9813
TRACT_CENTER_DEG = (150.1, 2.2)
TRACT_PATCHES = 9  # HSC numbers the patches of a tract 0 to 8 on each axis.
MIDDLE_PATCH = 4

PSF_MODES = 4
PSF_AMPLITUDE = 0.04  # Of each mode: the PSF stays within the scatter of 8 % that training stamps have.
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
        """Size (y, x) in pixels."""
        return self.y1 - self.y0, self.x1 - self.x0

    def overlap(self, other: Box) -> Box | None:
        """Return the intersection of two boxes, or None if it is empty."""
        box = Box(
            max(self.x0, other.x0), max(self.y0, other.y0), min(self.x1, other.x1), min(self.y1, other.y1)
        )
        return box if box.x0 < box.x1 and box.y0 < box.y1 else None

    def slices(self, origin: Box) -> tuple[slice, slice]:
        """Return the slices (y, x) of this box in an array whose first pixel is that of `origin`."""
        return (
            slice(self.y0 - origin.y0, self.y1 - origin.y0),
            slice(self.x0 - origin.x0, self.x1 - origin.x0),
        )


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch: its `name` in the form of HSC (``4,4``), and its field pixels."""

    name: str
    box: Box


@dataclass(frozen=True, slots=True)
class Field:
    """The field of a simulated survey: a rectangle of patches, and the same rectangle divided into square cells for placing galaxies.

    In the population `paper` a cell has at most one galaxy.

    Attributes
    ----------
    patches_x, patches_y : numbers of patches along x and y
    stride_px : distance between the first pixels of neighboring patches, which overlap
    cells_x, cells_y : numbers of cells along x and y; cells are numbered row by row
    pixel_scale_arcsec : pixel scale of the tract
    """

    patches_x: int
    patches_y: int
    stride_px: int
    cells_x: int
    cells_y: int
    pixel_scale_arcsec: float = PIXEL_SCALE_ARCSEC

    @property
    def box(self) -> Box:
        """All pixels of the field."""
        return Box(
            0, 0, self.patches_x * self.stride_px + OVERLAP_PX, self.patches_y * self.stride_px + OVERLAP_PX
        )

    @property
    def first_patch(self) -> tuple[int, int]:
        """Number (x, y) of the first patch: the middle one of the tract, if the others fit after it."""
        first = (
            TRACT_PATCHES - n if n > MIDDLE_PATCH + 1 else MIDDLE_PATCH
            for n in (self.patches_x, self.patches_y)
        )
        x, y = (max(number, 0) for number in first)
        return x, y

    def patches(self) -> list[Patch]:
        """Return all patches; x varies fastest."""
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
        """Return the TAN WCS of the tract for an array that begins at `origin`. Between patches CRPIX differs by whole pixels."""
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.crval = TRACT_CENTER_DEG
        wcs.wcs.cd = np.diag([-self.pixel_scale_arcsec, self.pixel_scale_arcsec]) / 3600
        # CRPIX is rounded up to a whole pixel, so that all patches share one lattice of pixels.
        middle = math.ceil(TRACT_PATCHES * self.stride_px / 2)
        wcs.wcs.crpix = [
            middle - first * self.stride_px - start
            for first, start in zip(self.first_patch, (origin.x0, origin.y0), strict=True)
        ]
        wcs.wcs.radesys = "ICRS"
        wcs.wcs.set()
        return wcs

    def own_wcs(self, box: Box) -> WCS:
        """Return a TAN WCS whose tangent point is the center of `box`, as each brick of the Legacy Surveys has."""
        wcs = self.wcs(box)
        middle = np.array([(box.x1 - box.x0 - 1) / 2, (box.y1 - box.y0 - 1) / 2])
        wcs.wcs.crval = wcs.all_pix2world(middle[None], 0)[0]
        wcs.wcs.crpix = middle + 1
        wcs.wcs.set()
        return wcs

    def cell_box(self, cell: int) -> Box:
        """Return the pixels of a cell. Cells are numbered with x fastest."""
        y, x = divmod(cell, self.cells_x)
        return Box(x * CELL_PX, y * CELL_PX, (x + 1) * CELL_PX, (y + 1) * CELL_PX)

    def cell_centers(self, cell: npt.NDArray[np.int64]) -> Floats:
        """Return the positions (cell, x or y) float64, in pixels of the field, of the central pixels of the cells with these numbers."""
        corner = np.stack([cell % self.cells_x, cell // self.cells_x], axis=-1) * CELL_PX
        return np.asarray(corner + CELL_PX / 2, dtype=np.float64)

    def cells_in(self, box: Box) -> list[int]:
        """Return the numbers of all cells that overlap `box`, whether they have a galaxy or not."""
        columns = range(box.x0 // CELL_PX, min(-(-box.x1 // CELL_PX), self.cells_x))
        rows = range(box.y0 // CELL_PX, min(-(-box.y1 // CELL_PX), self.cells_y))
        return [row * self.cells_x + column for row in rows for column in columns]


def plan_field(n_cells: int, n_patches: int, *, pixel_scale_arcsec: float = PIXEL_SCALE_ARCSEC) -> Field:
    """Return a field of at least `n_cells` cells, with `n_patches` square patches in a rectangle that is nearly square."""
    patches_y = max(n for n in range(1, math.isqrt(n_patches) + 1) if n_patches % n == 0)
    patches_x = n_patches // patches_y
    side = math.sqrt(n_cells / n_patches)  # Cells per patch along each axis.
    stride = max(math.ceil(side), 2) * CELL_PX
    # Patches are made smaller while all cells fit, because disk space is proportional to the area.
    while stride > 2 * CELL_PX:
        n_whole = math.prod((n * (stride - 10) + OVERLAP_PX) // CELL_PX for n in (patches_x, patches_y))
        if n_whole < n_cells:
            break
        stride -= 10
    cells = (-(-(n * stride + OVERLAP_PX) // CELL_PX) for n in (patches_x, patches_y))
    cells_x, cells_y = cells
    return Field(patches_x, patches_y, stride, cells_x, cells_y, pixel_scale_arcsec)


def psf_at(field: Field, position_px: Floats, bands: tuple[str, ...], *, seed: int) -> list[list[Psf]]:
    """Return the PSFs at positions (object, 2) in field pixels: a list of one PSF per band for each. They vary smoothly."""
    rng = np.random.default_rng([seed, 2])
    size = np.array(field.box.shape_px[::-1])
    # (seeing g1 g2, mode, xy); each mode has less than one period over the field.
    waves = rng.uniform(-np.pi, np.pi, (3, PSF_MODES, 2))
    phases = rng.uniform(0, 2 * np.pi, (3, PSF_MODES))
    # (object, seeing g1 g2)
    fields = np.cos(np.einsum("qmk,ok->oqm", waves, position_px / size) + phases).sum(axis=-1)
    amplitude = np.array([PSF_AMPLITUDE, PSF_SHEAR_AMPLITUDE, PSF_SHEAR_AMPLITUDE])
    return [
        [Psf(PSF_FWHM_ARCSEC[band] * (1 + seeing), g1, g2) for band in bands]
        for seeing, g1, g2 in (fields * amplitude).tolist()
    ]
