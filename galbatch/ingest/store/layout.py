"""The arrays of the cutout store, their codecs, and how they are divided into shards and chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numcodecs
import numpy as np
import numpy.typing as npt
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, ZstdCodec

from galbatch import storage
from galbatch.core.flags import MaskBit, SkySource, flag_attributes
from galbatch.core.types import BLOCK_OBJECTS, Grid, Resampling
from galbatch.storage import zarr_groups

__all__ = [
    "BAND",
    "COORDINATES",
    "OPTIONAL_ARRAYS",
    "PLANE_ATTRIBUTES",
    "PLANE_AXES",
    "PLANE_CODECS",
    "PLANE_DTYPES",
    "SMALL_ARRAYS",
    "STORE_ENTRIES",
    "Codec",
    "Division",
    "blocks_in_memory",
    "bytes_per_object",
    "plane_attributes",
    "reading_bytes",
]

# The tables that these follow from: benchmarks/NOTES.md, "The cutout store".

# Object stores like objects of 5 to 64 MB. 96 px in 2 bands: 256 cutouts are 19 MB; 239 px in 5 bands: 16 are 18 MB.
MAX_SHARD_BYTES = 32 * 10**6
MIN_SHARD_BYTES = 5 * 10**6
LARGEST_SHARD_BYTES = 64 * 10**6  # of a single cutout; larger ones are divided

# What reading one object fetches. Larger chunks read blocks 10 % faster, and one object up to 1.6 times slower.
MAX_CHUNK_BYTES = 10**6

# The last chunk of a group is filled up: in a group of that size this takes 6 % at most.
MIN_CHUNKS = 16


@dataclass(frozen=True, slots=True)
class Codec:
    """The codec of a plane's chunks, as Zarr writes it down and as a function; None where chunks are stored as they are."""

    metadata: BytesBytesCodec | None = None
    encode: Callable[[npt.NDArray[Any]], bytes] | None = None


# Noise hardly compresses: 10 % for twice the time. Variances save 30 % for twice the time, 0.1 ms a cutout of 239 px:
# worth it where a worker writes less than 700 MB/s. Masks shrink to nothing, and are written in a third of the time.
PLANE_CODECS: dict[str, Codec] = {
    "image": Codec(),
    "mask": Codec(ZstdCodec(level=1), numcodecs.Zstd(1).encode),
    "variance": Codec(
        BloscCodec(cname="lz4", clevel=1, shuffle="bitshuffle"),
        numcodecs.Blosc("lz4", 1, numcodecs.Blosc.BITSHUFFLE).encode,
    ),
}

STORE_ENTRIES = zarr_groups.GROUP_ENTRIES
"""All that this room writes in a store's folder, in the order in which to delete it."""

PLANE_AXES = ("object", "band", "y", "x")
PLANE_DTYPES = {"image": "float32", "mask": "uint16", "variance": "float32"}
PLANE_ATTRIBUTES: dict[str, dict[str, Any]] = {
    "image": {"units": "nJy", "long_name": "flux density per pixel; NaN: no data"},
    "mask": {"long_name": "mask bits", **flag_attributes(MaskBit)},
    "variance": {"units": "nJy^2", "long_name": "variance of the flux density per pixel; NaN: unknown"},
}

# reproject resamples an image alone: what stands beside it is then made by galbatch's own kernel.
APPROXIMATE = {
    "mask": "approximate: where pixels were resampled, all bits under galbatch's low_pass kernel, which reaches farther",
    "variance": "approximate: where pixels were resampled, that of galbatch's low_pass kernel",
}


@dataclass(frozen=True, slots=True)
class SmallArray:
    """An array of a group that is no plane: names of its axes, unit ("" for none), and what it holds."""

    axes: tuple[str, ...]
    units: str
    long_name: str

    @property
    def attributes(self) -> dict[str, Any]:
        """The array's attributes, by the names of the CF conventions, which xarray shows."""
        return (
            {"units": self.units, "long_name": self.long_name}
            if self.units
            else {"long_name": self.long_name}
        )


_PER_OBJECT, _PER_BAND = ("object",), ("object", "band")

SMALL_ARRAYS = {
    "object_id": SmallArray(_PER_OBJECT, "", "id of the object, as in the object list"),
    "ra_deg": SmallArray(_PER_OBJECT, "deg", "right ascension, ICRS"),
    "dec_deg": SmallArray(_PER_OBJECT, "deg", "declination, ICRS"),
    "crpix": SmallArray(("object", "world_axis"), "pixel", "FITS CRPIX of a TAN projection, 1-based"),
    "crval": SmallArray(("object", "world_axis"), "deg", "FITS CRVAL of a TAN projection: ra, dec, ICRS"),
    "cd": SmallArray(
        ("object", "world_axis", "pixel_axis"), "deg/pixel", "FITS CD matrix of a TAN projection"
    ),
    "tile": SmallArray(_PER_OBJECT, "", "index into the group's attribute tiles; -1: none"),
    "coverage": SmallArray(_PER_BAND, "", "share of pixels with data"),
    "sky_sigma_njy": SmallArray(_PER_BAND, "nJy", "noise of the sky per pixel; NaN: unknown"),
    "sky_source": SmallArray(
        _PER_BAND,
        "",
        "where the noise of the sky comes from: "
        + ", ".join(f"{source.value} {source.name.lower()}" for source in SkySource),
    ),
    "psf_fwhm_arcsec": SmallArray(_PER_BAND, "arcsec", "full width at half maximum of the PSF; NaN: unknown"),
    "psf_fwhm_stars_arcsec": SmallArray(
        _PER_BAND, "arcsec", "width of the PSF by stars of the tile; NaN: too few of them"
    ),
    "sky_level_njy": SmallArray(
        _PER_BAND, "nJy", "level of the sky a pixel in strips of the tile; NaN: not measured"
    ),
    "sky_level_err_njy": SmallArray(
        _PER_BAND, "nJy", "error of the level, by the scatter from part to part of them; NaN: not measured"
    ),
    "noise_correlation": SmallArray(
        _PER_BAND, "", "noise of a large aperture over the root of its summed variances"
    ),
    "flags": SmallArray(_PER_OBJECT, "", "what the pixels and the object list say"),
    "n_tiles": SmallArray(_PER_OBJECT, "", "number of tiles that gave pixels; 0: none"),
    "band_key": SmallArray(
        _PER_BAND, "", "digest of all that the pixels follow from; equal keys: equal pixels"
    ),
    "pixel_digest": SmallArray(_PER_BAND, "", "digest of image, sky noise and PSF width"),
}

OPTIONAL_ARRAYS = (
    "n_tiles",
    "band_key",
    "pixel_digest",
    "sky_source",
    "psf_fwhm_stars_arcsec",
    "sky_level_njy",
    "sky_level_err_njy",
)
"""Arrays that stores of INGEST_VERSION 5 to 8 and cutouts of other programs lack."""

BAND = "band"
"""The array (band,) of names, which makes xarray's ``.sel(band="g")`` work."""

COORDINATES = "object_id ra_deg dec_deg"
"""The arrays that xarray takes for coordinates, as the CF conventions list them in the group's attribute ``coordinates``."""

# int64 id, 2 positions, 4 + 4 values of the WCS, tile, flags and number of tiles; 7 float32, two int64 and an int8 a band.
SMALL_BYTES, SMALL_BYTES_PER_BAND = 8 + 16 + 64 + 8 + 2, 45


def bytes_per_object(grid: Grid, bands: Sequence[str], planes: Sequence[str]) -> int:
    """Return the bytes that one object takes in the store, before the codecs of mask and variance."""
    pixels = grid.size_px**2 * len(bands)
    of_planes = sum(np.dtype(PLANE_DTYPES[plane]).itemsize for plane in planes)
    return pixels * of_planes + SMALL_BYTES + SMALL_BYTES_PER_BAND * len(bands)


def plane_attributes(plane: str, resampling: Resampling) -> dict[str, Any]:
    """Return the attributes of a plane's array, with a comment where it is approximate because pixels were resampled."""
    comment = APPROXIMATE.get(plane) if resampling != "low_pass" else None
    return {**PLANE_ATTRIBUTES[plane], **({"comment": comment} if comment else {})}


def blocks_in_memory(store_path: str, grid: Grid, bands: Sequence[str]) -> int:
    """Return the number of blocks that are in memory while a group is written: of a shard, and on S3 as many that are being written."""
    shard_objects = Division.of((len(bands), grid.size_px, grid.size_px), n_objects=BLOCK_OBJECTS).shard[0]
    return (2 if storage.overlaps_writes(store_path) else 1) * max(1, shard_objects // BLOCK_OBJECTS)


def reading_bytes(grid: Grid, bands: Sequence[str]) -> int:
    """Return the bytes of memory that reading the images of a block takes: the block, the files it is read from, and a decoded shard."""
    block = BLOCK_OBJECTS * bytes_per_object(grid, bands, ("image",))
    division = Division.of((len(bands), grid.size_px, grid.size_px), n_objects=BLOCK_OBJECTS)
    # float32. Files and decoded shard are there at the same time as the block, whichever of the two is larger.
    shard = int(np.prod(division.shard)) * 4
    return block + max(block, shard) + min(block, shard)


@dataclass(frozen=True, slots=True)
class Division:
    """Shape of a plane's shards and of the chunks in them: (object, band, y, x)."""

    shard: tuple[int, ...]
    chunk: tuple[int, ...]

    @classmethod
    def of(cls, cutout: tuple[int, ...], *, n_objects: int) -> Division:
        """Return the division for `n_objects` cutouts of shape (band, y, x); all planes are divided as the image is."""
        n_bytes = int(np.prod(cutout)) * 4
        if n_bytes > LARGEST_SHARD_BYTES:
            # A shard takes some bands of one cutout, or if a band alone is too large some of its rows.
            _, n_rows, n_columns = cutout
            n_bands, n_parts = LARGEST_SHARD_BYTES // (n_rows * n_columns * 4), 1
            if n_bands == 0:
                n_bands, n_parts = 1, -(-n_rows * n_columns * 4 // LARGEST_SHARD_BYTES)
            part = (1, n_bands, -(-n_rows // n_parts), n_columns)
            return cls(part, part)
        # Powers of two, so that blocks, shards and chunks nest. Shards of more than one block hold small cutouts,
        # up to the least size that object stores like: what waits for the next block takes memory.
        least = 2 * _power_of_two(MIN_SHARD_BYTES // n_bytes)
        shard = min(_power_of_two(MAX_SHARD_BYTES // n_bytes), max(BLOCK_OBJECTS, least))
        chunk = min(shard, _power_of_two(MAX_CHUNK_BYTES // n_bytes), _power_of_two(n_objects // MIN_CHUNKS))
        return cls((shard, *cutout), (chunk, *cutout))


def _power_of_two(limit: int) -> int:
    """Return the largest power of two up to `limit`, at least 1."""
    return 1 << max(0, limit.bit_length() - 1)
