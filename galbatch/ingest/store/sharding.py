"""Shards of Zarr v3, encoded: the files that a plane's pixels go into."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import crc32c
import numpy as np
import numpy.typing as npt
import zarr

from galbatch import storage
from galbatch.ingest.store.layout import Codec

__all__ = ["encode_shards"]


def encode_shards(
    array: zarr.Array[Any], values: npt.NDArray[Any], *, start: int, codec: Codec
) -> Iterator[tuple[str, list[storage.Piece]]]:
    """Yield the files of the shards that hold `values`, from object `start` on, which begins a shard.

    They are what Zarr's sharding codec gives, without its three copies, which take twice the time of the writing.

    Parameters
    ----------
    array : the plane (object, band, y, x), whose chunks and shards divide objects alone
    values : (object, band, y, x)
    """
    n_objects, n_chunk = (array.shards or array.chunks)[0], array.chunks[0]
    for first in range(0, len(values), n_objects):
        part = np.ascontiguousarray(values[first : first + n_objects], array.dtype)
        # The last chunk is filled up, as Zarr's chunks are all of one shape.
        rest = np.full((-len(part) % n_chunk, *part.shape[1:]), array.fill_value, array.dtype)
        if codec.encode is None:
            pieces: list[storage.Piece] = [part.data.cast("B"), rest.tobytes()]
            lengths = [n_chunk * part[0].nbytes] * ((len(part) + len(rest)) // n_chunk)
        else:
            chunks = [part[at : at + n_chunk] for at in range(0, len(part), n_chunk)]
            if len(rest):
                chunks[-1] = np.concatenate([chunks[-1], rest])
            pieces = [codec.encode(chunk) for chunk in chunks]
            lengths = [len(piece) for piece in pieces]
        # Zarr's own name of the file: one number for each axis, of which only the first has several shards.
        key = "/".join([array.path, "c", str((start + first) // n_objects), *("0" for _ in part.shape[1:])])
        yield key, [*pieces, _shard_index(tuple(lengths), n_objects // n_chunk)]


@functools.lru_cache(maxsize=8)
def _shard_index(lengths: tuple[int, ...], n_places: int) -> bytes:
    """Return the end of a shard: offset and length of every chunk, all bits set for those not there, and a checksum."""
    index = np.full((n_places, 2), 2**64 - 1, "<u8")
    index[: len(lengths), 0] = np.cumsum((0, *lengths[:-1]))
    index[: len(lengths), 1] = lengths
    data = index.tobytes()
    return data + crc32c.crc32c(data).to_bytes(4, "little")
