"""Objects and tiles -> cutouts.

Every cutout has one WCS for all its bands. Where a tile on an undistorted TAN lattice of the grid's pixel
scale is near, it is that lattice, cut at whole pixels, and its pixels are exact copies, completed from the
lattice's other tiles. Everything else (other tracts, scales, projections) is reprojected onto it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence, Set
from typing import Protocol

import numpy as np
import numpy.typing as npt
from astropy.wcs import WCS

from galbatch import storage
from galbatch.config import FlagsConfig
from galbatch.core.flags import MaskBit
from galbatch.core.types import BLOCK_OBJECTS, CutoutBlock, CutoutSpec, Grid, ObjectTable, Plane, Tile
from galbatch.ingest.cut.canvas import Canvas
from galbatch.ingest.cut.identity import arrangements, band_key, digest_of_pixels
from galbatch.ingest.cut.measure import KnownNoise, measure
from galbatch.ingest.cut.mosaic import fill_band
from galbatch.ingest.cut.placing import Arrangement
from galbatch.ingest.cut.psf import listed_or, psf_window
from galbatch.ingest.cut.resample import window_to_resample
from galbatch.ingest.cut.tile import WiderSky, dense_tiles, large_tiles, n_cutouts, psf_of_stars, sky_levels
from galbatch.ingest.headers import SCALE_TOLERANCE_PX
from galbatch.ingest.pixels import Box, ExpectedReads, TileReader
from galbatch.ingest.tiles import tiles_near

__all__ = ["AddedLight", "StoredCutouts", "cut_block", "cut_blocks"]

DETECTION_SIGMA = 5.0
"""Standard deviations of the sky above which added light counts as detected, as a pixel of the simulation does."""

PREFETCHED_OBJECTS = 64
"""Objects whose windows are fetched from S3 together: at 239 px in 5 bands, all planes, 180 MB and 230,000 rows."""


class StoredCutouts(Protocol):
    """Cutouts of some of a partition's objects that need not be cut, such as `galbatch.ingest.BaseCutouts`."""

    @property
    def taken(self) -> npt.NDArray[np.bool_]:
        """Whether an object's cutout is stored, (object,) bool."""

    def block(self, rows: npt.NDArray[np.intp], *, list_flags: npt.NDArray[np.int32]) -> CutoutBlock:
        """Return the cutouts of the objects at `rows` in this order, with the flags of the object list (row,) int32."""


class AddedLight(Protocol):
    """Light that is added to cutouts before anything is measured in them, such as `galbatch.simulation.InjectedLight`."""

    def of(self, object_id: npt.NDArray[np.int64]) -> AddedLight:
        """Return the light of some of the objects."""

    @property
    def key(self) -> int:
        """A digest of the light, by which the pixels' keys differ from those without it."""

    def image(
        self,
        object_id: int,
        bands: Sequence[str],
        psf_fwhm_arcsec: npt.NDArray[np.float32],
        *,
        grid: Grid,
        offset_px: tuple[float, float],
    ) -> npt.NDArray[np.float64]:
        """Return the light (band, y, x), nJy per pixel, of an object, whose center lies `offset_px` (x, y) from that of the central pixel."""

    def photon_noise(
        self,
        object_id: int,
        bands: Sequence[str],
        light_njy: npt.NDArray[np.float64],
        *,
        electrons_per_njy: Sequence[float],
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the noise (nJy) of an object's light (band, y, x) and its variance (nJy^2); 0 in bands without `electrons_per_njy` (NaN)."""


def cut_blocks(
    objects: ObjectTable,
    tiles: Sequence[Tile],
    *,
    spec: CutoutSpec,
    flags: FlagsConfig,
    object_flags: npt.NDArray[np.int32],
    stored: StoredCutouts | None = None,
    light: AddedLight | None = None,
) -> Iterator[CutoutBlock]:
    """Cut all objects of a partition, 256 at a time, but for those whose cutouts are stored; else as `cut_block`.

    `light` is added to the cutouts.
    """
    wanted = [tile for tile in tiles if tile.band in spec.bands]
    taken = np.zeros(len(objects), np.bool_) if stored is None else stored.taken
    left = objects if stored is None else objects.take(np.flatnonzero(~taken))
    # By all objects, whether stored or not: what is known of the stars does not depend on it.
    dense = dense_tiles(objects, wanted, grid=spec.grid)
    with TileReader(expected=_expected(left, wanted, grid=spec.grid)) as reader:
        for start in range(0, len(objects), BLOCK_OBJECTS):
            rows = np.arange(start, min(start + BLOCK_OBJECTS, len(objects)))
            to_cut, there = rows[~taken[rows]], rows[taken[rows]]
            parts = []
            if len(to_cut):
                block = objects.take(to_cut)
                canvas = _cut(block, wanted, reader=reader, spec=spec, dense=dense)
                if light is not None:
                    _add_light(canvas, block, light, reader=reader, flags=flags)
                own = object_flags[to_cut]
                parts.append(_measured(canvas, block, reader, flags=flags, object_flags=own, dense=dense))
                del canvas  # or its planes would stay while the next block is cut
            if stored is not None and len(there):
                parts.append(stored.block(there, list_flags=object_flags[there]))
            if len(parts) == 1:
                yield parts.pop()
            else:
                yield CutoutBlock.joined(parts).take(np.argsort(np.concatenate([to_cut, there])))


def cut_block(
    objects: ObjectTable,
    tiles: Sequence[Tile],
    *,
    spec: CutoutSpec,
    flags: FlagsConfig,
    object_flags: npt.NDArray[np.int32],
) -> CutoutBlock:
    """Cut every object on the grid and in the bands of `spec`.

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
    wanted = [tile for tile in tiles if tile.band in spec.bands]
    dense = large_tiles(wanted)
    with TileReader() as reader:
        canvas = _cut(objects, wanted, reader=reader, spec=spec, dense=dense)
        return _measured(canvas, objects, reader, flags=flags, object_flags=object_flags, dense=dense)


def _cut(
    objects: ObjectTable, tiles: Sequence[Tile], *, reader: TileReader, spec: CutoutSpec, dense: Set[Plane]
) -> Canvas:
    """Return the filled canvas of a block: every object is placed first, so that windows can be fetched together, then filled."""
    near = [tiles[index] for index in tiles_near(objects, tiles, radius_deg=spec.grid.half_diagonal_deg)]
    canvas = Canvas.blank(len(objects), near, spec=spec)
    arranged = arrangements(objects, near, spec=spec)
    for index, cutout in enumerate(arranged):
        # The WCS is that of the lattice or the cutout's own, so it is known before any pixel is read.
        wcs = cutout.target.wcs
        canvas.crpix[index], canvas.crval[index], canvas.cd[index] = wcs.crpix, wcs.crval, wcs.cd
        canvas.tile.append(cutout.tile_id)
        if index % PREFETCHED_OBJECTS == 0:
            _prefetch(arranged, index, reader=reader, spec=spec)
        for band, sources in enumerate(cutout.sources):
            at = (index, band)
            filled = fill_band(canvas, cutout.target, reader=reader, sources=sources, at=at)
            canvas.band_key[at] = band_key(cutout, objects, spec=spec, at=at, n_filled_by=filled, dense=dense)
    return canvas


def _expected(objects: ObjectTable, tiles: Sequence[Tile], *, grid: Grid) -> dict[Plane, ExpectedReads]:
    """Return how many windows of each remote plane will be read: by that the reader chooses between windows and the whole file."""
    remote = [tile for tile in tiles if storage.reads_by_request(tile.image.path)]
    n_of_tile = n_cutouts(objects, remote)
    expected = {}
    for tile in remote:
        size_px = math.ceil(
            grid.size_px * grid.pixel_scale_arcsec / tile.pixel_scale_arcsec - SCALE_TOLERANCE_PX
        )
        # Image, mask and weight are read in the same windows; their PSF map only at one pixel an object.
        for plane in tile.pixel_planes:
            expected[plane] = ExpectedReads(n_of_tile[tile.image], size_px)
    return expected


def _prefetch(arranged: Sequence[Arrangement], start: int, *, reader: TileReader, spec: CutoutSpec) -> None:
    """Fetch the windows of the remote tiles that the next cutouts are mainly made of, a tile's together."""
    size_px = spec.grid.size_px
    windows: dict[Plane, tuple[Tile, list[Box]]] = {}
    centers: dict[Plane, tuple[Tile, list[Box]]] = {}
    for index, cutout in enumerate(arranged[start : start + PREFETCHED_OBJECTS], start):
        # Only the best tile of each band: the others are read where it leaves pixels open, which is known only then.
        for source in (sources[0] for sources in cutout.sources if sources):
            tile = source.tile
            if storage.reads_by_request(tile.image.path):
                box = cutout.target.box_in(source, index, size_px=size_px)
                if box is None:
                    box = window_to_resample(
                        tile, target=cutout.target.wcs, size_px=size_px, resampling=spec.resampling
                    )
                else:
                    box = box.clipped(tile.shape_px)
                if box is not None and not box.is_empty:
                    windows.setdefault(tile.image, (tile, []))[1].append(box)
            # Kernel images are read once for each cell, not for each object.
            psf = tile.psf if tile.psf_cells is None else None
            if psf is not None and storage.reads_by_request(psf.path):
                center = psf_window(tile, x=source.x[index], y=source.y[index])
                centers.setdefault(psf, (tile, []))[1].append(center)
    for tile, boxes in windows.values():
        reader.prefetch(tile, boxes)
    for tile, boxes in centers.values():
        reader.prefetch_psf(tile, boxes)


def _add_light(
    canvas: Canvas, objects: ObjectTable, light: AddedLight, *, reader: TileReader, flags: FlagsConfig
) -> None:
    """Add light to the images of a block, and mark the pixels in which a survey's pipeline would have detected it.

    Pixels without data stay without.
    """
    grid, bands = canvas.spec.grid, canvas.spec.bands
    none = np.zeros(len(objects), np.int32)
    sky_sigma_njy = _measured(canvas, objects, reader, flags=flags, object_flags=none).sky_sigma_njy
    widths = listed_or(canvas.psf_fwhm_arcsec, objects, bands=bands)
    if not canvas.mask.flags.writeable:
        # The one value that stands for all pixels of a survey without masks.
        canvas.mask = canvas.mask.copy()
    for index, object_id in enumerate(objects.object_id.tolist()):
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ("RA---TAN", "DEC--TAN")
        wcs.wcs.crpix, wcs.wcs.crval = canvas.crpix[index], canvas.crval[index]
        wcs.wcs.cd = canvas.cd[index]
        x, y = wcs.wcs_world2pix(objects.ra_deg[index], objects.dec_deg[index], 0)
        offset_px = (float(x) - grid.size_px // 2, float(y) - grid.size_px // 2)
        added = light.image(object_id, bands, widths[index], grid=grid, offset_px=offset_px)
        main = [canvas.main_tile.get((index, band)) for band in range(len(bands))]
        electrons = [math.nan if tile is None else tile.electrons_per_njy for tile in main]
        noise, variance = light.photon_noise(object_id, bands, added, electrons_per_njy=electrons)
        canvas.image[index] += (added + noise).astype(np.float32)
        if canvas.variance.flags.writeable:
            canvas.variance[index] += variance.astype(np.float32)
        # The sky's noise is measured where nothing was detected; else the galaxy's own light would be taken for noise.
        seen = added > DETECTION_SIGMA * sky_sigma_njy[index][:, None, None]
        canvas.mask[index][seen] |= int(MaskBit.DETECTED)
    canvas.band_key ^= np.int64(light.key)


def _measured(
    canvas: Canvas,
    objects: ObjectTable,
    reader: TileReader,
    *,
    flags: FlagsConfig,
    object_flags: npt.NDArray[np.int32],
    dense: Set[Plane] = frozenset(),
) -> CutoutBlock:
    """Return the finished block, with the quantities measured in its pixels; the reader's tiles tell the noise where these do not.

    Stars are looked for in tiles whose image planes are in `dense`.
    """
    spec, noise = canvas.spec, KnownNoise(canvas.noise_correlation, WiderSky(reader, canvas))
    measured = measure(
        canvas.image, canvas.mask, variance=canvas.variance, grid=spec.grid, flags=flags, noise=noise
    )
    level, level_err = sky_levels(reader, canvas)
    # A width in the object list goes before the tile's: the user may know the PSF at each object.
    psf_fwhm_arcsec = listed_or(canvas.psf_fwhm_arcsec, objects, bands=spec.bands)
    return CutoutBlock(
        grid=spec.grid,
        bands=spec.bands,
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
        sky_source=measured.sky_source,
        psf_fwhm_arcsec=psf_fwhm_arcsec,
        psf_fwhm_stars_arcsec=psf_of_stars(reader, canvas, tiles=dense),
        sky_level_njy=level,
        sky_level_err_njy=level_err,
        noise_correlation=canvas.noise_correlation,
        flags=np.asarray(measured.flags | canvas.flags | object_flags, dtype=np.int32),
        resampling=spec.resampling,
        n_tiles=np.array([len(used) for used in canvas.tiles_used], np.int16),
        band_key=canvas.band_key,
        pixel_digest=digest_of_pixels(canvas.image, measured.sky_sigma_njy, psf_fwhm_arcsec),
    )
