"""Keys of pixels: digests of all that the pixels of a cutout follow from, computed from headers alone.

Two cutouts with the same key have the same pixels, so that a cutout of an older store can be taken in place of cutting it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from galbatch.core.fingerprint import digest
from galbatch.core.types import BLOCK_OBJECTS, CutoutSpec, ObjectTable, Tile
from galbatch.ingest.cut.placing import Arrangement, arrange, place_tiles
from galbatch.ingest.tiles import tiles_near

__all__ = ["arrangements", "band_keys", "keys_of_objects", "tile_identity"]


def tile_identity(tile: Tile) -> list[object]:
    """Return what tells a tile from another version of it: id, band, size and version of its files, calibration and PSF."""
    # Paths are left out, so that a survey may be moved.
    identity = tile.identity and [tile.identity.size_bytes, tile.identity.version]
    return [tile.tile_id, tile.band, identity, tile.njy_per_unit, tile.psf_fwhm_arcsec]


def keys_of_objects(
    objects: ObjectTable, tiles: Sequence[Tile], *, spec: CutoutSpec
) -> npt.NDArray[np.int64]:
    """Return the keys (object, band) int64 of the cutouts that would be cut of objects; no pixel is read."""
    keys = [np.empty((0, len(spec.bands)), np.int64)]
    wanted = [tile for tile in tiles if tile.band in spec.bands]
    for start in range(0, len(objects), BLOCK_OBJECTS):
        block = objects.take(slice(start, start + BLOCK_OBJECTS))
        near = [wanted[i] for i in tiles_near(block, wanted, radius_deg=spec.grid.half_diagonal_deg)]
        keys.append(band_keys(arrangements(block, near, spec=spec), block, spec=spec))
    return np.concatenate(keys)


def arrangements(objects: ObjectTable, tiles: Sequence[Tile], *, spec: CutoutSpec) -> list[Arrangement]:
    """Return the place and the tiles of the cutout of each object; `tiles` are those near any of them."""
    placed = place_tiles(objects, tiles, grid=spec.grid)
    return [
        arrange(placed, index, objects=objects, grid=spec.grid, bands=spec.bands)
        for index in range(len(objects))
    ]


def band_keys(
    arranged: Sequence[Arrangement], objects: ObjectTable, *, spec: CutoutSpec
) -> npt.NDArray[np.int64]:
    """Return the keys (object, band) int64 of cutouts; none is 0.

    A key follows from the object's position and its PSF width in the list, the place of the cutout, the tiles that touch it
    in the band, the order in which they are tried, and the settings of the band. All tiles in reach count, also those that
    proved not to be needed: whether they are is known only once pixels are read.
    """
    keys = np.empty((len(objects), len(spec.bands)), np.int64)
    of_tiles = {
        id(source.tile): digest(tile_identity(source.tile)).encode()
        for source in {id(s.tile): s for cutout in arranged for band in cutout.sources for s in band}.values()
    }
    for column, band in enumerate(spec.bands):
        settings = spec.settings[column] if spec.settings else ""
        common = hashlib.sha256(f"{band} {spec.grid.label} {spec.resampling} {settings}".encode())
        listed = objects.psf_fwhm_arcsec.get(band, np.full(len(objects), np.nan, np.float32))
        for row, cutout in enumerate(arranged):
            wcs = cutout.target.wcs
            numbers = [
                objects.ra_deg[row],
                objects.dec_deg[row],
                *wcs.crpix,
                *wcs.crval,
                *np.ravel(wcs.cd),
                listed[row],
            ]
            key = common.copy()
            key.update(np.array(numbers, np.float64).tobytes())
            key.update(b"".join(of_tiles[id(source.tile)] for source in cutout.sources[column]))
            # 0 stands for no key.
            keys[row, column] = int.from_bytes(key.digest()[:8], "little", signed=True) or 1
    return keys
