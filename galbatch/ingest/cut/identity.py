"""Keys of pixels, from headers alone, and digests of pixels once they are there.

Two cutouts with the same key have the same pixels, so that a cutout of an older store can be taken in place of cutting it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence, Set

import numpy as np
import numpy.typing as npt
import xxhash

from galbatch.core.types import BLOCK_OBJECTS, CutoutSpec, ObjectTable, Plane, Tile
from galbatch.ingest.cut.placing import Arrangement, arrange, place_tiles
from galbatch.ingest.cut.tile import dense_tiles
from galbatch.ingest.tiles import tiles_near

__all__ = ["arrangements", "band_key", "digest_of_pixels", "possible_keys"]


def possible_keys(objects: ObjectTable, tiles: Sequence[Tile], *, spec: CutoutSpec) -> npt.NDArray[np.int64]:
    """Return the keys (object, band, key) int64 of which one is that of the cutout that would be cut; 0 fills the rows.

    No pixel is read, so that it is not known after how many of the tiles in reach a cutout is full: there is a key for each number.
    """
    found: list[list[list[int]]] = []
    wanted = [tile for tile in tiles if tile.band in spec.bands]
    dense = dense_tiles(objects, wanted, grid=spec.grid)
    for start in range(0, len(objects), BLOCK_OBJECTS):
        block = objects.take(slice(start, start + BLOCK_OBJECTS))
        near = [wanted[i] for i in tiles_near(block, wanted, radius_deg=spec.grid.half_diagonal_deg)]
        for row, cutout in enumerate(arrangements(block, near, spec=spec)):
            found.append(
                [
                    _keys(cutout, block, spec=spec, at=(row, band), dense=dense)
                    for band in range(len(spec.bands))
                ]
            )
    most = max((len(keys) for bands in found for keys in bands), default=1)
    padded = [[keys + [0] * (most - len(keys)) for keys in bands] for bands in found]
    return np.array(padded, np.int64).reshape(len(objects), len(spec.bands), most)


def arrangements(objects: ObjectTable, tiles: Sequence[Tile], *, spec: CutoutSpec) -> list[Arrangement]:
    """Return the place and the tiles of the cutout of each object; `tiles` are those near any of them."""
    placed = place_tiles(objects, tiles, grid=spec.grid)
    return [
        arrange(placed, index, objects=objects, grid=spec.grid, bands=spec.bands)
        for index in range(len(objects))
    ]


def band_key(
    cutout: Arrangement,
    objects: ObjectTable,
    *,
    spec: CutoutSpec,
    at: tuple[int, int],
    n_filled_by: int | None,
    dense: Set[Plane],
) -> int:
    """Return the key of one band of one cutout, not 0.

    It follows from the object's position and its PSF width in the list, the place of the cutout, the tiles that were tried for the
    band in their order, in which of these stars are looked for, and the settings of the band.

    Parameters
    ----------
    at : numbers of the object and the band
    n_filled_by : number of tiles after which no pixel was missing: those left in reach do not matter; None where some stayed missing
    dense : image planes of the tiles in which stars are looked for
    """
    keys = _keys(cutout, objects, spec=spec, at=at, dense=dense)
    return keys[-1 if n_filled_by is None else n_filled_by - 1]


def _keys(
    cutout: Arrangement, objects: ObjectTable, *, spec: CutoutSpec, at: tuple[int, int], dense: Set[Plane]
) -> list[int]:
    """Return the keys of a cutout that is full after one tile, after two, and so on, and last that of one that is never full."""
    row, band = at
    listed = objects.psf_fwhm_arcsec.get(spec.bands[band])
    wcs = cutout.target.wcs
    numbers = [
        objects.ra_deg[row],
        objects.dec_deg[row],
        *wcs.crpix,
        *wcs.crval,
        *np.ravel(wcs.cd),
        np.nan if listed is None else listed[row],
    ]
    settings = spec.settings[band] if spec.settings else ""
    key = hashlib.sha256(f"{spec.bands[band]} {spec.grid.label} {spec.resampling} {settings}".encode())
    key.update(np.array(numbers, np.float64).tobytes())
    keys = []
    for source in cutout.sources[band]:
        key.update(source.identity)
        # With more objects from a tile its stars are looked for, and the cutout has a width by them.
        if source.tile.image in dense:
            key.update(b"stars")
        keys.append(_as_key(key.digest()))
    key.update(b"not full")
    return [*keys, _as_key(key.digest())]


def _as_key(found: bytes) -> int:
    # 0 stands for no key.
    return int.from_bytes(found[:8], "little", signed=True) or 1


def digest_of_pixels(
    image: npt.NDArray[np.float32],
    sky_sigma_njy: npt.NDArray[np.float32],
    psf_fwhm_arcsec: npt.NDArray[np.float32],
) -> npt.NDArray[np.int64]:
    """Return a digest (object, band) int64, not 0, of all that a network reads of a band: it stays where a tile has another date alone.

    Parameters
    ----------
    image : (object, band, y, x) float32, nJy
    sky_sigma_njy, psf_fwhm_arcsec : (object, band) float32
    """
    found = np.empty(image.shape[:2], np.int64)
    for at in np.ndindex(found.shape):
        # XXH3 reads 25 GB/s, SHA-256 1.8: with it a cutout would take half as long again.
        key = xxhash.xxh3_64(image[at].data)
        key.update(np.array([sky_sigma_njy[at], psf_fwhm_arcsec[at]], np.float32).tobytes())
        found[at] = _as_key(key.digest())
    return found
