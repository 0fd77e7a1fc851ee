"""The values that rooms exchange: frozen, with shapes and units.

Axes by name: ``object`` (objects of a block or partition, in HEALPix order), ``band``, ``y``, ``x``,
``parameter``, ``pass``. Pixels are 0-based; ``y`` runs along the first FITS image axis' partner NAXIS2.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = [
    "AB_ZERO_POINT_NJY",
    "BLOCK_OBJECTS",
    "CutoutBlock",
    "FileIdentity",
    "Grid",
    "ObjectTable",
    "Plane",
    "Tile",
    "WeightKind",
    "ab_mag",
    "njy_per_unit",
]

WeightKind = Literal["variance", "inverse_variance", "standard_deviation"]
"""What a plane of weights holds."""

BLOCK_OBJECTS = 256
"""Objects in a block, the unit of memory, of shards and of I/O."""

AB_ZERO_POINT_NJY = 31.4
"""AB magnitude of 1 nJy: -2.5 log10(1 nJy / 3631 Jy), rounded as the LSST pipelines round it."""


def njy_per_unit(zero_point_mag: float) -> float:
    """Return the flux in nJy of one image unit whose AB zero point is `zero_point_mag` (27.0 gives 57.544 nJy)."""
    return float(10.0 ** (0.4 * (AB_ZERO_POINT_NJY - zero_point_mag)))


def ab_mag(flux_njy: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the AB magnitude of a flux in nJy; NaN where the flux is not positive."""
    flux = np.asarray(flux_njy, dtype=np.float64)
    positive = np.where(flux > 0, flux, np.nan)
    return np.asarray(AB_ZERO_POINT_NJY - 2.5 * np.log10(positive))


GRID_LABEL = re.compile(r"(\d+)px_([0-9.e+-]+)arcsec")


@dataclass(frozen=True, slots=True, order=True)
class Grid:
    """A cutout's size and pixel scale."""

    size_px: int
    pixel_scale_arcsec: float

    @property
    def label(self) -> str:
        """Name of the grid's group in the store, such as ``239px_0.168arcsec``: no two grids share one."""
        short = f"{self.pixel_scale_arcsec:g}"
        scale = short if float(short) == self.pixel_scale_arcsec else repr(float(self.pixel_scale_arcsec))
        return f"{self.size_px}px_{scale}arcsec"

    @classmethod
    def from_label(cls, label: str) -> Grid | None:
        """Return the grid that `label` names, or None if it names none."""
        match = GRID_LABEL.fullmatch(label)
        return cls(int(match[1]), float(match[2])) if match else None

    @property
    def center_px(self) -> int:
        """0-based index of the central pixel on both axes."""
        return self.size_px // 2

    @property
    def half_diagonal_deg(self) -> float:
        """Radius of the circle about the cutout, deg."""
        return self.size_px * self.pixel_scale_arcsec / 3600.0 / math.sqrt(2.0)


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """The mark by which a file is known to be unchanged: size and ETag (S3) or modification time in ns (local)."""

    size_bytes: int
    version: str


@dataclass(frozen=True, slots=True)
class Plane:
    """The place of one plane of a tile, and how it is stored.

    `hdu` is the number of the HDU, in HDF5 files the name of the dataset; `index` the place on the axes before
    (y, x), as cubes of bands have: none for a plain image. How it is stored says what reading costs:
    `bytes_per_px` before compression; `block_px` (y, x), the blocks that are compressed one by one, None if the
    plane is not compressed; `stored_bytes`, what it takes in the file if it is.
    """

    path: str
    hdu: int | str
    index: tuple[int, ...] = ()
    bytes_per_px: int = 4
    block_px: tuple[int, int] | None = None
    stored_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Tile:
    """One survey coadd image footprint in one band, with one WCS.

    `wcs_header` is the celestial WCS as a FITS header string. Tiles with the same `grid_key` have
    pixels on one common lattice: their mosaic is integer copying (patches of one tract). `psf` is a map of the
    PSF's width in arcsec on the tile's own pixels; `psf_fwhm_arcsec` one width for the whole tile. `release` and
    `background` name the data release and what was done to the sky; "" if unknown.
    """

    tile_id: str
    band: str
    image: Plane
    shape_px: tuple[int, int]  # (y, x)
    wcs_header: str
    grid_key: str
    njy_per_unit: float
    pixel_scale_arcsec: float
    corners_deg: tuple[tuple[float, float], ...]  # (ra, dec) of the four corners, in order around the tile
    mask: Plane | None = None
    mask_planes: Mapping[str, int] = field(default_factory=dict)  # survey's plane name -> bit number
    weight: Plane | None = None
    weight_kind: WeightKind = "variance"
    psf_fwhm_arcsec: float = math.nan
    psf: Plane | None = None
    release: str = ""
    background: str = ""
    identity: FileIdentity | None = None

    @property
    def where(self) -> str:
        """Name of the tile in errors."""
        return f"tile {self.tile_id} band {self.band} ({self.image.path})"


@dataclass(frozen=True, slots=True)
class ObjectTable:
    """Objects sorted by HEALPix index (order 29, NESTED), then id.

    Attributes
    ----------
    object_id : (object,) int64, or object array of str
    ra_deg, dec_deg : (object,) float64, RA in [0, 360)
    healpix_29 : (object,) int64
    kept : pyarrow.Table with one row an object: the columns named in ``[objects] keep``
    psf_fwhm_arcsec : for bands whose PSF widths the list states, (object,) float32; NaN where it does not
    inputs : columns of the list that networks take, by name, (object,) float32; NaN where it has no number
    """

    object_id: npt.NDArray[Any]
    ra_deg: npt.NDArray[np.float64]
    dec_deg: npt.NDArray[np.float64]
    healpix_29: npt.NDArray[np.int64]
    kept: pa.Table
    psf_fwhm_arcsec: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    inputs: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.object_id)

    def take(self, index: slice | npt.NDArray[np.intp]) -> ObjectTable:
        """Return the objects at `index`, in that order."""
        if isinstance(index, slice):
            start, stop, _ = index.indices(len(self))
            kept = self.kept.slice(start, stop - start)
        else:
            kept = self.kept.take(pa.array(index))
        return ObjectTable(
            self.object_id[index],
            self.ra_deg[index],
            self.dec_deg[index],
            self.healpix_29[index],
            kept,
            {band: width[index] for band, width in self.psf_fwhm_arcsec.items()},
            {name: values[index] for name, values in self.inputs.items()},
        )


@dataclass(frozen=True, slots=True)
class CutoutBlock:
    """Cutouts of some objects on one grid.

    Attributes
    ----------
    grid, bands : what the axes mean
    object_id : (object,) int64 or str
    ra_deg, dec_deg : (object,) float64
    image : (object, band, y, x) float32, nJy; NaN where no tile covers
    mask : (object, band, y, x) uint16 in MaskBit bits, or None if not read
    variance : (object, band, y, x) float32, nJy^2; NaN where unknown; or None if not read
    crpix : (object, 2) float64, FITS (1-based) reference pixel (x, y)
    crval : (object, 2) float64, deg (ra, dec)
    cd : (object, 2, 2) float64, deg/px; with TAN projection a working WCS of every cutout
    tile : (object,) str, the id of the tile that covers the center; "" for none
    coverage : (object, band) float32, share of finite pixels
    sky_sigma_njy : (object, band) float32, robust scatter of the sky pixels; NaN if unknown
    psf_fwhm_arcsec : (object, band) float32; NaN if unknown
    noise_correlation : (object, band) float32, noise of a sum over many pixels over the root of their summed
        variances: 1 where pixels are copied, more where they were resampled; NaN without pixels
    flags : (object,) int32 in PixelFlag bits
    """

    grid: Grid
    bands: tuple[str, ...]
    object_id: npt.NDArray[Any]
    ra_deg: npt.NDArray[np.float64]
    dec_deg: npt.NDArray[np.float64]
    image: npt.NDArray[np.float32]
    mask: npt.NDArray[np.uint16] | None
    variance: npt.NDArray[np.float32] | None
    crpix: npt.NDArray[np.float64]
    crval: npt.NDArray[np.float64]
    cd: npt.NDArray[np.float64]
    tile: npt.NDArray[np.str_]
    coverage: npt.NDArray[np.float32]
    sky_sigma_njy: npt.NDArray[np.float32]
    psf_fwhm_arcsec: npt.NDArray[np.float32]
    noise_correlation: npt.NDArray[np.float32]
    flags: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.object_id)

    def select_bands(self, bands: Sequence[str]) -> CutoutBlock:
        """Return the same cutouts with only `bands`, in that order; copied, unless they are all."""
        if tuple(bands) == self.bands:
            return self
        index = [self.bands.index(band) for band in bands]
        return dataclasses.replace(
            self,
            bands=tuple(bands),
            image=self.image[:, index],
            mask=None if self.mask is None else self.mask[:, index],
            variance=None if self.variance is None else self.variance[:, index],
            coverage=self.coverage[:, index],
            sky_sigma_njy=self.sky_sigma_njy[:, index],
            psf_fwhm_arcsec=self.psf_fwhm_arcsec[:, index],
            noise_correlation=self.noise_correlation[:, index],
        )
