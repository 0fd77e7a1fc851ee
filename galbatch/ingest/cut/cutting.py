"""Objects and tiles -> cutouts.

Every cutout has one WCS for all its bands. Where a tile on an undistorted TAN lattice of the grid's pixel
scale is near, it is that lattice, cut at whole pixels, and its pixels are exact copies, completed from the
lattice's other tiles. Everything else (other tracts, scales, projections) is reprojected onto it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from galbatch import storage
from galbatch.config import FlagsConfig
from galbatch.core import sky
from galbatch.core.flags import PixelFlag
from galbatch.core.types import BLOCK_OBJECTS, CutoutBlock, Grid, ObjectTable, Plane, Tile
from galbatch.ingest.cut.measure import measure
from galbatch.ingest.cut.psf import listed_or, psf_fwhm_at, psf_window
from galbatch.ingest.cut.resample import resample, window_to_resample
from galbatch.ingest.headers import TanWCS, is_plain_lattice, parse_wcs, tan_wcs, tile_tan
from galbatch.ingest.pixels import Box, ExpectedReads, Pixels, TileReader, fill_plane
from galbatch.ingest.tiles import Footprint, tiles_near

__all__ = ["cut_block", "cut_blocks"]

SAME_SCALE = 1e-3
"""Relative difference of pixel scales up to which pixels are copied: 0.2 px across 239 px."""


PREFETCHED_OBJECTS = 64
"""Objects whose windows are fetched from S3 together: at 239 px in 5 bands, all planes, 180 MB and 230,000 rows."""


def cut_blocks(
    objects: ObjectTable,
    tiles: Sequence[Tile],
    *,
    grid: Grid,
    bands: Sequence[str],
    flags: FlagsConfig,
    object_flags: npt.NDArray[np.int32],
) -> Iterator[CutoutBlock]:
    """Cut all objects of a partition, 256 at a time; parameters and errors as for `cut_block`."""
    wanted = [tile for tile in tiles if tile.band in bands]
    with TileReader(expected=_expected(objects, wanted, grid=grid)) as reader:
        for start in range(0, len(objects), BLOCK_OBJECTS):
            rows = slice(start, start + BLOCK_OBJECTS)
            block = objects.take(rows)
            canvas = _cut(block, wanted, reader=reader, grid=grid, bands=bands)
            yield _measured(canvas, block, flags=flags, object_flags=object_flags[rows])
            del canvas  # or its planes would stay while the next block is cut


def cut_block(
    objects: ObjectTable,
    tiles: Sequence[Tile],
    *,
    grid: Grid,
    bands: Sequence[str],
    flags: FlagsConfig,
    object_flags: npt.NDArray[np.int32],
) -> CutoutBlock:
    """Cut every object on `grid` in `bands`.

    The catalog position falls within half a pixel of the central pixel (0-based index ``size_px // 2``),
    always: at an edge the cutout is completed from other tiles or is NaN, never shifted. Tiles are tried in
    the order of how far inside them the center lies, those of the cutout's own lattice first; each fills
    what is still NaN. Pixels that the survey marks NO_DATA or gives no weight count as not covered.

    Parameters
    ----------
    tiles : tiles that may touch the cutouts, and any others
    object_flags : (object,) int32, PixelFlag bits known from the object list, carried into the flags

    Raises
    ------
    TileError
        A tile's file is truncated or damaged.
    OSError
        A tile's file cannot be read now.
    """
    wanted = [tile for tile in tiles if tile.band in bands]
    with TileReader() as reader:
        canvas = _cut(objects, wanted, reader=reader, grid=grid, bands=bands)
    return _measured(canvas, objects, flags=flags, object_flags=object_flags)


def _cut(
    objects: ObjectTable, tiles: Sequence[Tile], *, reader: TileReader, grid: Grid, bands: Sequence[str]
) -> _Canvas:
    """The block's pixels: first every object's place, so that windows can be fetched together, then the pixels."""
    near = [tiles[index] for index in tiles_near(objects, tiles, radius_deg=grid.half_diagonal_deg)]
    canvas = _Canvas.blank(len(objects), near, grid=grid, bands=tuple(bands))
    placed = _place(objects, near, grid=grid)
    arranged = [_arrange(canvas, placed, objects=objects, index=index) for index in range(len(objects))]
    for index, cutout in enumerate(arranged):
        if index % PREFETCHED_OBJECTS == 0:
            _prefetch(arranged, index, reader=reader, size_px=grid.size_px)
        for band, sources in enumerate(cutout.sources):
            _fill(canvas, cutout.target, reader=reader, sources=sources, at=(index, band))
    return canvas


def _expected(objects: ObjectTable, tiles: Sequence[Tile], *, grid: Grid) -> dict[Plane, ExpectedReads]:
    """How many windows of each plane on S3 will be read: by this the reader chooses how to read it."""
    remote = [tile for tile in tiles if storage.reads_by_request(tile.image.path)]
    expected = {}
    for band in {tile.band for tile in remote}:
        of_band = [tile for tile in remote if tile.band == band]
        footprint = Footprint(of_band)
        covering = footprint.covering(objects.ra_deg, objects.dec_deg)
        counts = np.bincount(covering[covering >= 0], minlength=footprint.n_places)
        for tile, place in zip(of_band, footprint.place, strict=True):
            size_px = math.ceil(grid.size_px * grid.pixel_scale_arcsec / tile.pixel_scale_arcsec - SAME_SCALE)
            for plane in (tile.image, tile.mask, tile.weight):
                if plane is not None:
                    expected[plane] = ExpectedReads(int(counts[place]), size_px)
    return expected


def _prefetch(arranged: Sequence[_Arranged], start: int, *, reader: TileReader, size_px: int) -> None:
    """Fetch the windows of the tiles on S3 that the next cutouts are mainly made of, a tile's together."""
    windows: dict[Plane, tuple[Tile, list[Box]]] = {}
    centers: dict[Plane, tuple[Tile, list[Box]]] = {}
    for index, cutout in enumerate(arranged[start : start + PREFETCHED_OBJECTS], start):
        for source in (sources[0] for sources in cutout.sources if sources):
            if storage.reads_by_request(source.tile.image.path):
                box = _window(source, cutout.target, index, size_px=size_px)
                if box is not None:
                    windows.setdefault(source.tile.image, (source.tile, []))[1].append(box)
            if source.tile.psf is not None and storage.reads_by_request(source.tile.psf.path):
                center = psf_window(source.tile, x=source.x[index], y=source.y[index])
                centers.setdefault(source.tile.psf, (source.tile, []))[1].append(center)
    for tile, boxes in windows.values():
        reader.prefetch(tile, boxes)
    for tile, boxes in centers.values():
        reader.prefetch_psf(tile, boxes)


def _window(source: _Placed, target: _Target, index: int, *, size_px: int) -> Box | None:
    """What the cutout reads of a tile, or a little more; None for nothing."""
    box = target.box_in(source, index, size_px=size_px)
    if box is None:
        return window_to_resample(source.tile, target=target.wcs, size_px=size_px)
    inside = box.clipped(source.tile.shape_px)
    return None if inside.is_empty else inside


def _measured(
    canvas: _Canvas, objects: ObjectTable, *, flags: FlagsConfig, object_flags: npt.NDArray[np.int32]
) -> CutoutBlock:
    """The finished block: what the pixels say is added."""
    grid = canvas.grid
    measured = measure(
        canvas.image,
        canvas.mask,
        variance=canvas.variance,
        grid=grid,
        flags=flags,
        noise_correlation=canvas.noise_correlation,
    )
    return CutoutBlock(
        grid=grid,
        bands=canvas.bands,
        object_id=objects.object_id,
        ra_deg=objects.ra_deg,
        dec_deg=objects.dec_deg,
        image=canvas.image,
        mask=canvas.mask,
        variance=canvas.variance,
        crpix=canvas.crpix,
        crval=canvas.crval,
        cd=canvas.cd,
        tile=np.array(canvas.tile, dtype=np.str_),
        coverage=measured.coverage,
        sky_sigma_njy=measured.sky_sigma_njy,
        psf_fwhm_arcsec=listed_or(canvas.psf_fwhm_arcsec, objects, bands=canvas.bands),
        noise_correlation=canvas.noise_correlation,
        flags=np.asarray(measured.flags | canvas.flags | object_flags, dtype=np.int32),
    )


@dataclass(frozen=True, slots=True)
class _Placed:
    """A tile and where the block's objects fall on it.

    Attributes
    ----------
    x, y : (object,) float64, 0-based pixels; NaN beyond the projection's horizon
    inside : (object,) float64, pixels to the nearest edge; negative outside
    copies : whether the tile's pixels can be copied onto the grid
    reach_px : half the cutout's diagonal in the tile's pixels: farther outside it touches no cutout
    """

    tile: Tile
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    inside: npt.NDArray[np.float64]
    copies: bool
    reach_px: float

    def psf_fwhm_arcsec(self, reader: TileReader, index: int) -> float:
        """At an object; NaN if unknown."""
        return psf_fwhm_at(reader, self.tile, x=self.x[index], y=self.y[index])


def _place(objects: ObjectTable, tiles: Sequence[Tile], *, grid: Grid) -> list[_Placed]:
    """One transformation per lattice serves all its tiles: they differ by whole pixels."""
    on_lattice: dict[str, tuple[TanWCS, npt.NDArray[np.float64], npt.NDArray[np.float64]]] = {}
    placed = []
    for tile in tiles:
        shift = (0, 0)
        if is_plain_lattice(tile):
            tan = tile_tan(tile)
            if tile.grid_key not in on_lattice:
                on_lattice[tile.grid_key] = (tan, *_pixels_of(objects, tile))
            first, x, y = on_lattice[tile.grid_key]
            shift = (round(tan.crpix[0] - first.crpix[0]), round(tan.crpix[1] - first.crpix[1]))
        else:
            x, y = _pixels_of(objects, tile)
        placed.append(_placed(tile, (x + shift[0], y + shift[1]), grid=grid))
    return placed


def _pixels_of(objects: ObjectTable, tile: Tile) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    wcs = parse_wcs(tile.wcs_header)
    x, y = wcs.all_world2pix(objects.ra_deg, objects.dec_deg, 0, quiet=True)
    return x, y


def _placed(
    tile: Tile, position: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]], *, grid: Grid
) -> _Placed:
    x, y = position
    ny, nx = tile.shape_px
    inside = np.minimum(np.minimum(x, nx - 1 - x), np.minimum(y, ny - 1 - y)) + 0.5
    ratio = grid.pixel_scale_arcsec / tile.pixel_scale_arcsec
    copies = is_plain_lattice(tile) and abs(ratio - 1.0) < SAME_SCALE
    # The extra 2 px are for rounding to whole pixels and for interpolation.
    reach_px = grid.size_px * grid.pixel_scale_arcsec / _narrowest_arcsec(tile) / math.sqrt(2.0) + 2.0
    return _Placed(tile, x, y, np.nan_to_num(inside, nan=-np.inf), copies, reach_px)


def _narrowest_arcsec(tile: Tile) -> float:
    """A pixel's width along the edge where it is least: a plate carrée's at 60 deg is half of what CD says."""
    ny, nx = tile.shape_px
    corners = sky.unit_vectors(*np.transpose(tile.corners_deg))
    chords = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)
    widths = np.degrees(2.0 * np.arcsin(chords / 2.0)) * 3600.0 / (nx, ny, nx, ny)
    # Where an edge is a pole it has no length, and says nothing of the pixels beside it: a tenth is taken then.
    narrowest = float(np.fmin.reduce(widths, initial=tile.pixel_scale_arcsec))  # NaN beyond a horizon
    return max(narrowest, 0.1 * tile.pixel_scale_arcsec)


@dataclass(slots=True)
class _Canvas:
    """The block while it is filled; arrays as in `CutoutBlock`."""

    grid: Grid
    bands: tuple[str, ...]
    image: npt.NDArray[np.float32]
    mask: npt.NDArray[np.uint16]
    variance: npt.NDArray[np.float32]
    crpix: npt.NDArray[np.float64]
    crval: npt.NDArray[np.float64]
    cd: npt.NDArray[np.float64]
    psf_fwhm_arcsec: npt.NDArray[np.float32]
    noise_correlation: npt.NDArray[np.float32]
    flags: npt.NDArray[np.int32]
    tile: list[str] = field(default_factory=list)

    @classmethod
    def blank(cls, n_objects: int, tiles: Sequence[Tile], *, grid: Grid, bands: tuple[str, ...]) -> _Canvas:
        """For so many objects; the planes are undefined until `begin`, those that no tile has are one value."""
        shape = (n_objects, len(bands), grid.size_px, grid.size_px)
        has_mask = any(tile.mask is not None for tile in tiles)
        has_variance = any(tile.weight is not None for tile in tiles)
        return cls(
            grid,
            bands,
            image=np.empty(shape, np.float32),
            mask=np.empty(shape, np.uint16) if has_mask else np.broadcast_to(np.uint16(0), shape),
            variance=np.empty(shape, np.float32)
            if has_variance
            else np.broadcast_to(np.float32(np.nan), shape),
            crpix=np.empty((n_objects, 2)),
            crval=np.empty((n_objects, 2)),
            cd=np.empty((n_objects, 2, 2)),
            psf_fwhm_arcsec=np.full(shape[:2], np.nan, np.float32),
            noise_correlation=np.full(shape[:2], np.nan, np.float32),
            flags=np.zeros(n_objects, np.int32),
        )

    def pixels(self, at: tuple[int, int]) -> Pixels:
        """Views of one band of one cutout."""
        return Pixels(self.image[at], self.mask[at], self.variance[at])

    def begin(self, at: tuple[int, int]) -> None:
        """Nothing covered: done just before a band is filled, while its pixels fit in the cache."""
        self.image[at] = np.nan
        fill_plane(self.variance[at], np.nan)
        fill_plane(self.mask[at], 0)


@dataclass(frozen=True, slots=True)
class _Target:
    """A cutout's place: its WCS and, if it is cut from a lattice, a tile of that and the cutout's first pixel.

    `origin` is (x, y) of the cutout's first pixel in `home`'s pixels.
    """

    wcs: TanWCS
    home: _Placed | None = None
    origin: tuple[int, int] = (0, 0)

    def box_in(self, placed: _Placed, index: int, *, size_px: int) -> Box | None:
        """The cutout in the tile's pixels, if the tile is on its lattice."""
        if self.home is None or placed.tile.grid_key != self.home.tile.grid_key:
            return None
        # Positions on tiles of a lattice differ by whole pixels, exactly: see _place.
        x0 = self.origin[0] + round(placed.x[index] - self.home.x[index])
        y0 = self.origin[1] + round(placed.y[index] - self.home.y[index])
        return Box(y0, y0 + size_px, x0, x0 + size_px)


@dataclass(frozen=True, slots=True)
class _Arranged:
    """Where a cutout lies, and from which tiles it is made: a list for each band, the best first."""

    target: _Target
    sources: tuple[list[_Placed], ...]


def _arrange(canvas: _Canvas, placed: Sequence[_Placed], *, objects: ObjectTable, index: int) -> _Arranged:
    """Choose the cutout's place and tiles; its WCS goes into the canvas."""
    near = [p for p in placed if p.inside[index] > -p.reach_px]
    near.sort(key=lambda p: (-p.inside[index], p.tile.tile_id))
    target = _target(near, index, canvas=canvas, objects=objects)
    canvas.crpix[index], canvas.crval[index], canvas.cd[index] = (
        target.wcs.crpix,
        target.wcs.crval,
        target.wcs.cd,
    )
    canvas.tile.append(_covering_tile(near, index, bands=canvas.bands))
    sources = tuple([p for p in near if p.tile.band == band] for band in canvas.bands)
    for of_band in sources:
        # Exact copies first: a stable sort keeps the order within both kinds.
        of_band.sort(key=lambda p: target.box_in(p, index, size_px=canvas.grid.size_px) is None)
    return _Arranged(target, sources)


def _target(near: Sequence[_Placed], index: int, *, canvas: _Canvas, objects: ObjectTable) -> _Target:
    """On the lattice of the tile that covers the center best, in the first band that has one.

    A lattice whose tiles touch the cutout without covering its center is taken when no tile at all
    covers it; otherwise the cutout has a grid of its own, north up.
    """
    grid = canvas.grid
    covering = [p for p in near if p.inside[index] >= 0]
    candidates = [p for p in covering or near if p.copies]
    homes = [p for band in canvas.bands for p in candidates if p.tile.band == band]
    if not homes:
        ra, dec = float(objects.ra_deg[index]), float(objects.dec_deg[index])
        return _Target(tan_wcs(ra, dec, scale_arcsec=grid.pixel_scale_arcsec, center_px=grid.center_px))
    home = homes[0]
    x0 = int(np.floor(home.x[index] + 0.5)) - grid.center_px
    y0 = int(np.floor(home.y[index] + 0.5)) - grid.center_px
    tan = tile_tan(home.tile)
    return _Target(TanWCS((tan.crpix[0] - x0, tan.crpix[1] - y0), tan.crval, tan.cd), home, (x0, y0))


def _covering_tile(near: Sequence[_Placed], index: int, *, bands: Sequence[str]) -> str:
    for band in bands:
        for placed in near:
            if placed.tile.band == band and placed.inside[index] >= 0:
                return placed.tile.tile_id
    return ""


def _fill(
    canvas: _Canvas,
    target: _Target,
    *,
    reader: TileReader,
    sources: Sequence[_Placed],
    at: tuple[int, int],
) -> None:
    """Fill one band of one cutout from `sources`, each where pixels are still NaN."""
    if not _read_whole(canvas, target, reader=reader, sources=sources, at=at):
        canvas.begin(at)
        _mosaic(canvas, target, reader=reader, sources=sources, at=at)


def _read_whole(
    canvas: _Canvas,
    target: _Target,
    *,
    reader: TileReader,
    sources: Sequence[_Placed],
    at: tuple[int, int],
) -> bool:
    """Read the band straight into the canvas if the best tile holds it whole; False if pixels are missing."""
    if not sources:
        return False
    best = sources[0].tile
    box = target.box_in(sources[0], at[0], size_px=canvas.grid.size_px)
    if box is None or box.clipped(best.shape_px) != box:
        return False
    if reader.read_into(best, box, out=canvas.pixels(at)):
        canvas.psf_fwhm_arcsec[at] = sources[0].psf_fwhm_arcsec(reader, at[0])
        canvas.noise_correlation[at] = 1.0
        return True
    return False


def _mosaic(
    canvas: _Canvas,
    target: _Target,
    *,
    reader: TileReader,
    sources: Sequence[_Placed],
    at: tuple[int, int],
) -> None:
    """Fill the band from one tile after the other, while pixels are missing."""
    used: list[_Placed] = []
    for source in sources:
        box = target.box_in(source, at[0], size_px=canvas.grid.size_px)
        correlation = 1.0
        if box is not None:
            n_new = _copy(canvas, at, reader=reader, tile=source.tile, box=box)
        else:
            n_new, correlation = _reproject(canvas, at, reader=reader, tile=source.tile, target=target)
            canvas.flags[at[0]] |= PixelFlag.RESAMPLED if n_new else 0
        if n_new:
            canvas.noise_correlation[at] = np.fmax(canvas.noise_correlation[at], correlation)
            used.append(source)
        if not np.isnan(canvas.image[at]).any():
            break
    if used:
        # Exact copies come first, and may be of a corner alone: the PSF is that of the tile about the center.
        main = max(used, key=lambda source: source.inside[at[0]])
        canvas.psf_fwhm_arcsec[at] = main.psf_fwhm_arcsec(reader, at[0])
    canvas.flags[at[0]] |= PixelFlag.MOSAICKED if len(used) > 1 else 0


def _copy(canvas: _Canvas, at: tuple[int, int], *, reader: TileReader, tile: Tile, box: Box) -> int:
    """Pixels newly covered by exact copies from `box` of the tile, which may reach over its edges."""
    inside = box.clipped(tile.shape_px)
    if inside.is_empty:
        return 0
    return _merge(canvas, at, box=inside.shifted(-box.y0, -box.x0), pixels=reader.read(tile, inside))


def _reproject(
    canvas: _Canvas, at: tuple[int, int], *, reader: TileReader, tile: Tile, target: _Target
) -> tuple[int, float]:
    """Pixels newly covered by resampling, and their noise correlation."""
    size_px = canvas.grid.size_px
    found = resample(reader, tile, target=target.wcs, size_px=size_px)
    if found is None:
        return 0, np.nan
    n_new = _merge(canvas, at, box=Box(0, size_px, 0, size_px), pixels=found.pixels)
    return n_new, found.noise_correlation


def _merge(canvas: _Canvas, at: tuple[int, int], *, box: Box, pixels: Pixels) -> int:
    """Take what `pixels` cover and the canvas does not yet; returns how many."""
    image = canvas.image[at][box.slices]
    new = np.isnan(image) & ~np.isnan(pixels.image)
    n_new = int(np.count_nonzero(new))
    image[new] = pixels.image[new]
    if canvas.mask.flags.writeable:
        canvas.mask[at][box.slices][new] = pixels.mask[new]
    if canvas.variance.flags.writeable:
        canvas.variance[at][box.slices][new] = pixels.variance[new]
    return n_new
