"""Data classes for grids, tiles, objects and cutouts, which the parts of galbatch exchange.

Names of array axes: ``object`` (objects of a block or partition, in HEALPix order), ``band``, ``y``, ``x``,
``parameter``, ``pass``. Pixel indices are 0-based; ``y`` runs along NAXIS2 of a FITS image, ``x`` along NAXIS1.
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
    "CalibrationField",
    "CutoutBlock",
    "CutoutSpec",
    "FileIdentity",
    "Grid",
    "ObjectTable",
    "Plane",
    "PsfCells",
    "Resampling",
    "Tile",
    "WeightKind",
    "ab_mag",
    "njy_per_unit",
    "places_of",
]

WeightKind = Literal["variance", "inverse_variance", "standard_deviation", "coverage"]
"""The quantity stored in a tile's weight plane. Coverage is the number of exposures, the exposure time or a relative weight:
0 where there are no data, and nothing is known of the noise."""

Resampling = Literal["low_pass", "adaptive", "exact"]
"""How pixels of another grid come onto a cutout's: galbatch's own kernel, or an algorithm of reproject."""

BLOCK_OBJECTS = 256
"""Number of objects in a block: the unit in which cutouts are held in memory, read and written."""

AB_ZERO_POINT_NJY = 31.4
"""AB magnitude of 1 nJy: -2.5 log10(1 nJy / 3631 Jy), rounded as the LSST pipelines round it."""


def njy_per_unit(zero_point_mag: float) -> float:
    """Return the flux in nJy of one image unit, for an AB zero point in mag: 57.544 nJy for 27.0."""
    return float(10.0 ** (0.4 * (AB_ZERO_POINT_NJY - zero_point_mag)))


def ab_mag(flux_njy: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return AB magnitudes (float64) of fluxes in nJy; NaN where the flux is not positive."""
    flux = np.asarray(flux_njy, dtype=np.float64)
    # NaN passes through the logarithm in silence; a flux of 0 or less would raise a warning.
    positive = np.where(flux > 0, flux, np.nan)
    return np.asarray(AB_ZERO_POINT_NJY - 2.5 * np.log10(positive))


def places_of(wanted: npt.NDArray[Any], among: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Return where each of the ids `wanted` stands among others, (id,) intp; -1 for those that do not; ids of one list differ."""
    if not len(among) or wanted.dtype.kind != among.dtype.kind:
        return np.full(len(wanted), -1, np.intp)
    order = np.argsort(among, kind="stable")
    place = order[np.minimum(np.searchsorted(among, wanted, sorter=order), len(among) - 1)]
    return np.where(among[place] == wanted, place, -1)


GRID_LABEL = re.compile(r"(\d+)px_([0-9.e+-]+)arcsec")


@dataclass(frozen=True, slots=True, order=True)
class Grid:
    """Size (pixels on a side) and pixel scale (arcsec) of a square cutout."""

    size_px: int
    pixel_scale_arcsec: float

    @property
    def label(self) -> str:
        """Name of the grid's group in the cutout store, such as ``239px_0.168arcsec``; different grids have different names."""
        # Six digits read well; a scale with more is written in full, or two grids could share a name.
        short = f"{self.pixel_scale_arcsec:g}"
        scale = short if float(short) == self.pixel_scale_arcsec else repr(float(self.pixel_scale_arcsec))
        return f"{self.size_px}px_{scale}arcsec"

    @classmethod
    def from_label(cls, label: str) -> Grid | None:
        """Return the grid with this `label`, or None if the text is not a label."""
        match = GRID_LABEL.fullmatch(label)
        return cls(int(match[1]), float(match[2])) if match else None

    @property
    def center_px(self) -> int:
        """0-based index of the central pixel on both axes."""
        return self.size_px // 2

    @property
    def half_diagonal_deg(self) -> float:
        """Half of the cutout's diagonal in deg: the radius of the circle through its corners."""
        return self.size_px * self.pixel_scale_arcsec / 3600.0 / math.sqrt(2.0)


@dataclass(frozen=True, slots=True)
class CutoutSpec:
    """The cutouts that are wanted of each object.

    Attributes
    ----------
    grid, bands : size and pixel scale, and the bands in order
    resampling : how pixels of another grid come onto the cutouts'
    settings : for each band a digest of the settings that its pixels depend on, which becomes a part of their keys
    """

    grid: Grid
    bands: tuple[str, ...]
    resampling: Resampling = "low_pass"
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """Size and version of a file, to detect changes. The version is its ETag (S3) or its modification time in ns (local)."""

    size_bytes: int
    version: str

    def __str__(self) -> str:
        return f"{self.size_bytes} bytes, version {self.version or 'unknown'}"


@dataclass(frozen=True, slots=True)
class Plane:
    """Location of one image plane of a tile in a file, and its storage, which determines the cost of reading.

    Attributes
    ----------
    path : str
        The file, local or a URL.
    hdu : int or str
        Number of the HDU, or name of the dataset in an HDF5 file.
    index : tuple of int
        Index on the axes before (y, x), such as the band in a cube; empty for a two-dimensional image.
    bytes_per_px : int
        Bytes per pixel before compression.
    block_px : (int, int) or None
        Size (y, x) of the separately compressed blocks; None if the plane is not compressed.
    stored_bytes : int
        Size in the file if the plane is compressed.
    packed : bool
        Whether the file is packed as a whole, by gzip or bzip2.
    asinh : (float, float) or None
        BOFFSET and BSOFTEN, in counts, of a plane that holds arcsinh magnitudes, as Pan-STARRS' stacks do; None: linear
        pixels.
    """

    path: str
    hdu: int | str
    index: tuple[int, ...] = ()
    bytes_per_px: int = 4
    block_px: tuple[int, int] | None = None
    stored_bytes: int = 0
    packed: bool = False
    asinh: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class CalibrationField:
    """A Chebyshev polynomial by which the flux of one image unit varies over a tile, relative to its mean.

    Attributes
    ----------
    x_range, y_range : tuple of float
        0-based pixels at which the arguments of the polynomial are -1 and 1.
    coefficients : tuple of tuple of float
        (order in y, order in x).
    """

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    coefficients: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class PsfCells:
    """The cells over which a tile's PSF is constant: kernel images in a plane (cell y, cell x, y, x).

    Attributes
    ----------
    first_px : (int, int)
        0-based pixel (y, x) of the tile with which the first cell begins; negative if the cell begins outside.
    cell_px, n_cells, kernel_px : (int, int)
        Size of a cell in pixels, number of cells, and size of a kernel image, each (y, x).
    """

    first_px: tuple[int, int]
    cell_px: tuple[int, int]
    n_cells: tuple[int, int]
    kernel_px: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Tile:
    """One coadded image of a survey in one band, with its WCS, mask, weights and PSF.

    Attributes
    ----------
    wcs_header : str
        The celestial WCS as a FITS header.
    grid_key : str
        Tiles with the same key have pixels on one common lattice, such as the patches of one tract: their pixels can be
        copied into one image without resampling.
    more_masks : tuple of Plane
        HDUs in which a mask of many planes goes on: `mask_planes` counts the bits of the first of them from 64 on, of the
        next from 128.
    psf : Plane or None
        Map of the PSF's FWHM in arcsec on the tile's own pixels; with `psf_cells`, kernel images of cells.
    psf_fwhm_arcsec : float
        One FWHM for the whole tile; NaN if unknown.
    electrons_per_njy : float
        Electrons that were counted for one nJy, by the header's GAIN; NaN where it states none.
    release, background : str
        Data release, and treatment of the sky background; "" if unknown.
    identity : FileIdentity or None
        Identity of all files that the tile is made of, together.
    files : tuple of (str, FileIdentity)
        Path and identity of each file with a plane of the tile, as they were when its headers were read.
    """

    tile_id: str
    band: str
    image: Plane
    shape_px: tuple[int, int]  # (y, x)
    wcs_header: str
    grid_key: str
    njy_per_unit: float
    pixel_scale_arcsec: float
    corners_deg: tuple[tuple[float, float], ...]  # (ra, dec) of the four corners, in order around the tile.
    mask: Plane | None = None
    mask_planes: Mapping[str, int] = field(
        default_factory=dict
    )  # Bit numbers by the survey's own names of mask planes.
    weight: Plane | None = None
    weight_kind: WeightKind = "variance"
    psf_fwhm_arcsec: float = math.nan
    psf: Plane | None = None
    psf_cells: PsfCells | None = None
    electrons_per_njy: float = math.nan
    release: str = ""
    background: str = ""
    identity: FileIdentity | None = None
    calibration: CalibrationField | None = None  # None: `njy_per_unit` holds for every pixel
    files: tuple[tuple[str, FileIdentity], ...] = ()
    more_masks: tuple[Plane, ...] = ()

    @property
    def pixel_planes(self) -> tuple[Plane, ...]:
        """The planes that are read in every window: image, masks and weight."""
        planes = (self.image, self.mask, *self.more_masks, self.weight)
        return tuple(plane for plane in planes if plane is not None)

    @property
    def where(self) -> str:
        """Tile, band and file, as error messages name them."""
        return f"tile {self.tile_id} band {self.band} ({self.image.path})"


@dataclass(frozen=True, slots=True)
class ObjectTable:
    """Objects sorted by HEALPix index (order 29, NESTED), then id.

    Attributes
    ----------
    object_id : (object,) int64, or object array of str
    ra_deg, dec_deg : (object,) float64, RA in [0, 360)
    healpix_29 : (object,) int64
    kept : pyarrow.Table, one row per object
        The columns named in ``[objects] keep``.
    psf_fwhm_arcsec : mapping of band to (object,) float32
        PSF widths from the object list, for bands that have a column there; NaN where it has no number.
    inputs : mapping of column name to (object,) or (object, number) float32
        Columns of the object list that are auxiliary inputs of networks, lists as vectors; NaN where they have no number.
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
        """Return the objects at `index` (a slice, or row numbers), in that order."""
        if isinstance(index, slice):
            start, stop, _ = index.indices(len(self))
            kept = self.kept.slice(start, stop - start)
        else:
            # pa.array would import pandas to look at the index: 0.2 s, which a worker that cuts can do without.
            rows = pa.py_buffer(np.ascontiguousarray(index, np.int64))
            kept = self.kept.take(pa.Array.from_buffers(pa.int64(), len(index), [None, rows]))
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
    """Cutouts of a block of objects on one grid.

    Attributes
    ----------
    grid, bands : size and pixel scale of the axes (y, x), and the band of each image along the axis band
    object_id : (object,) int64 or str
    ra_deg, dec_deg : (object,) float64
    image : (object, band, y, x) float32, nJy; NaN where no tile covers
    mask : (object, band, y, x) uint16 of MaskBit bits, or None if not read
    variance : (object, band, y, x) float32, nJy^2; NaN where unknown; or None if not read
    crpix : (object, 2) float64, FITS (1-based) reference pixel (x, y)
    crval : (object, 2) float64, deg (ra, dec)
    cd : (object, 2, 2) float64, deg/px; together with crpix, crval and the TAN projection the cutout's WCS
    tile : (object,) str, id of the tile that covers the center; "" if none does
    coverage : (object, band) float32, fraction of finite pixels
    sky_sigma_njy : (object, band) float32, robust scatter of the sky pixels; NaN if unknown
    psf_fwhm_arcsec : (object, band) float32; NaN if unknown
    noise_correlation : (object, band) float32, ratio of the noise of a sum over many pixels to the square root of
        the sum of their variances: 1 where pixels were copied, more where they were resampled; NaN without pixels
    flags : (object,) int32 of PixelFlag bits
    resampling : how pixels of another grid came onto the cutouts'; with another than "low_pass" the variance is approximate
    n_tiles : (object,) int16, number of tiles that gave pixels, those of one id in several bands counted once; None if unknown
    band_key : (object, band) int64, digest of all that a band's pixels follow from: equal keys, equal pixels; None if unknown
    pixel_digest : (object, band) int64, digest of image, sky noise and PSF width, which networks read; None if unknown
    sky_source : (object, band) int8 of `galbatch.core.flags.SkySource`: where the sky noise comes from; None if not known
    psf_fwhm_stars_arcsec : (object, band) float32, the PSF's width by stars of the tile; NaN if they are too few; None if not known
    sky_level_njy, sky_level_err_njy : (object, band) float32, nJy a pixel, level of the sky in strips of the tile and its error; NaN if not measured;
        None if not known
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
    resampling: Resampling = "low_pass"
    n_tiles: npt.NDArray[np.int16] | None = None
    band_key: npt.NDArray[np.int64] | None = None
    pixel_digest: npt.NDArray[np.int64] | None = None
    sky_source: npt.NDArray[np.int8] | None = None
    psf_fwhm_stars_arcsec: npt.NDArray[np.float32] | None = None
    sky_level_njy: npt.NDArray[np.float32] | None = None
    sky_level_err_njy: npt.NDArray[np.float32] | None = None

    @classmethod
    def of_images(
        cls,
        image: npt.NDArray[np.float32],
        bands: Sequence[str],
        grid: Grid,
        *,
        object_id: npt.NDArray[Any] | None = None,
        psf_fwhm_arcsec: npt.NDArray[np.float32] | None = None,
    ) -> CutoutBlock:
        """Return images (object, band, y, x) as cutouts without a place on the sky, of which nothing else is known.

        Parameters
        ----------
        image, bands, grid, psf_fwhm_arcsec : as the attributes
        object_id : (object,); None: their numbers from 0
        """
        n_objects, unknown = len(image), np.full(image.shape[:2], np.nan, np.float32)
        return cls(
            grid=grid,
            bands=tuple(bands),
            object_id=np.arange(n_objects) if object_id is None else object_id,
            ra_deg=np.zeros(n_objects),
            dec_deg=np.zeros(n_objects),
            image=image,
            mask=None,
            variance=None,
            crpix=np.zeros((n_objects, 2)),
            crval=np.zeros((n_objects, 2)),
            cd=np.zeros((n_objects, 2, 2)),
            tile=np.full(n_objects, ""),
            coverage=np.isfinite(image).mean(axis=(2, 3), dtype=np.float32),
            sky_sigma_njy=unknown,
            psf_fwhm_arcsec=unknown.copy() if psf_fwhm_arcsec is None else psf_fwhm_arcsec,
            noise_correlation=np.ones(image.shape[:2], np.float32),
            flags=np.zeros(n_objects, np.int32),
        )

    def __len__(self) -> int:
        return len(self.object_id)

    def select_bands(self, bands: Sequence[str]) -> CutoutBlock:
        """Return the cutouts in `bands` only, in that order. Arrays are copied, unless `bands` equals all bands of the block."""
        if tuple(bands) == self.bands:
            return self
        index = [self.bands.index(band) for band in bands]
        # All arrays with an axis band, (object, band, ..), as far as there are any; those of objects and of the WCS lack it.
        of_bands: dict[str, Any] = {
            name: values[:, index]
            for name, values in self._arrays().items()
            if name
            not in ("object_id", "ra_deg", "dec_deg", "crpix", "crval", "cd", "tile", "flags", "n_tiles")
        }
        return dataclasses.replace(self, bands=tuple(bands), **of_bands)

    def take(self, rows: npt.NDArray[np.intp]) -> CutoutBlock:
        """Return a copy of the cutouts at `rows`, in that order."""
        chosen: dict[str, Any] = {name: values[rows] for name, values in self._arrays().items()}
        return dataclasses.replace(self, **chosen)

    @classmethod
    def joined(cls, blocks: Sequence[CutoutBlock]) -> CutoutBlock:
        """Return the cutouts of several blocks of one grid, one after the other; an array that one of them lacks is None."""
        first, *others = blocks
        if not others:
            return first
        arrays = [block._arrays() for block in blocks]
        whole: dict[str, Any] = {
            name: np.concatenate([of_block[name] for of_block in arrays])
            if all(name in of_block for of_block in arrays)
            else None
            for name in {name for of_block in arrays for name in of_block}
        }
        return dataclasses.replace(first, **whole)

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, np.ndarray)}
