"""Groups of Zarr v3 as files in memory: Zarr codes and decodes them there, storage.py moves them, whole files at once.

Zarr's own way to S3 asks three times before each file of a small group, and reads NaN where a file is gone, without
a word.
"""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import zarr
from zarr.abc.buffer import Buffer
from zarr.errors import UnstableSpecificationWarning, ZarrUserWarning
from zarr.storage import MemoryStore

from galbatch import storage
from galbatch.core.pixels import HealpixPixel

__all__ = [
    "chunk_files",
    "group_file",
    "ignore_unspecified",
    "parent_files",
    "require_written",
    "unspecified",
]


def group_file(attributes: Mapping[str, Any]) -> bytes:
    """The ``zarr.json`` of a group."""
    files: dict[str, Buffer] = {}
    zarr.create_group(MemoryStore(files), attributes=dict(attributes))
    return files["zarr.json"].to_bytes()


def parent_files(pixels: Iterable[HealpixPixel]) -> dict[str, list[storage.Piece]]:
    """The ``zarr.json`` of the groups of `pixels` and of those above, but the root, by their paths."""
    parents = {
        parent for pixel in pixels for parent in itertools.accumulate(pixel.path.split("/"), storage.join)
    }
    return {f"{parent}/zarr.json": [group_file({})] for parent in sorted(parents)}


def chunk_files(array: zarr.Array[Any], start: int, stop: int | None) -> list[str]:
    """Files of an array that hold entries `start` to `stop` of its first axis; None for the last."""
    shape = array.shards or array.chunks
    counts = [-(-length // step) for length, step in zip(array.shape, shape, strict=True)]
    last = counts[0] if stop is None else -(-stop // shape[0])
    places = itertools.product(range(start // shape[0], last), *(range(count) for count in counts[1:]))
    return ["/".join([array.path, "c", *map(str, place)]) for place in places]


def require_written(path: str, written: Collection[str]) -> None:
    """Find out that the files written below `path` are there.

    A task that was taken for dead may be writing the same group, and may have removed files of ours.

    Raises
    ------
    OSError
        Some are not: trying again may help.
    """
    missing = set(written) - set(storage.list_files(path, suffix=""))
    if missing:
        raise OSError(
            f"{path}: {len(missing)} of {len(written)} files that were written are not there, such "
            f"as {min(missing)}; another process removed them"
        )


@contextlib.contextmanager
def unspecified() -> Iterator[None]:
    """Zarr warns of what v3 does not specify yet; zarr-python and xarray read both.

    Text ids of fixed length, and the metadata of the group's arrays kept once more in the group's own: one
    request opens it then, in place of thirty.
    """
    with warnings.catch_warnings():
        ignore_unspecified()
        yield


def ignore_unspecified() -> None:
    """The same for the whole process, as workers with several threads need: contexts of warnings are not a thread's own."""
    warnings.simplefilter("ignore", UnstableSpecificationWarning)
    warnings.filterwarnings("ignore", "Consolidated metadata", ZarrUserWarning)
