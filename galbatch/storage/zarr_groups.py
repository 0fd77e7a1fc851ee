"""Committed groups of Zarr v3 in the tree of HEALPix pixels: the cutout store and the kept pass outputs are made of them.

A group is done when its ``_done.json`` exists: that is deleted before anything is rewritten and written last, so a group
without it is unfinished whatever lies there. One task owns a whole group.

Zarr codes and decodes in memory, and whole files are moved here. Zarr's own way to S3 asks three times before each of the
35 files of a small group, reads NaN where a file is gone or empty, without a word, and asks for the chunks of an unfinished
shard one after another.
"""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.buffer import Buffer
from zarr.buffer import cpu
from zarr.errors import UnstableSpecificationWarning, ZarrUserWarning
from zarr.storage import MemoryStore

from galbatch.core.pixels import ORDER_FOLDERS, HealpixPixel, split_path
from galbatch.errors import FingerprintError
from galbatch.storage import files
from galbatch.storage.base import Piece

__all__ = [
    "GROUP_ENTRIES",
    "GroupReader",
    "GroupWriter",
    "chunk_files",
    "group_path",
    "ignore_unspecified",
    "list_done",
    "list_pixels",
    "read_done",
    "remove_pixel",
    "unspecified",
    "write_root",
]

DONE_PATH = ("object_id", "_done.json")
"""Path of a group's mark, in an array's folder: Zarr and xarray warn of files that they do not know in a group's."""

GROUP_ENTRIES = ("zarr.json", *ORDER_FOLDERS)
"""All that lies in the folder of a tree of groups, in the order in which to delete it."""


# --- the tree ----------------------------------------------------------------------------------------------


def group_path(root: str, pixel: HealpixPixel, name: str) -> str:
    """Return the path of the group `name` of a pixel in the tree at `root`."""
    return files.join(root, pixel.path, name)


def write_root(root: str, attributes: Mapping[str, Any], pixels: Iterable[HealpixPixel]) -> None:
    """Write the root of a tree, and the groups above those of `pixels`; the client does, before it submits.

    Tasks then write their own groups only. Writing again what may be there takes one request each; asking first takes four.
    """
    parents = {
        parent for pixel in pixels for parent in itertools.accumulate(pixel.path.split("/"), files.join)
    }
    contents: dict[str, Sequence[Piece]] = {"zarr.json": [_group_file(attributes)]}
    contents |= {f"{parent}/zarr.json": [_group_file({})] for parent in sorted(parents)}
    files.write_files(root, contents)


def _group_file(attributes: Mapping[str, Any]) -> bytes:
    """Return the ``zarr.json`` of a group."""
    made: dict[str, Buffer] = {}
    zarr.create_group(MemoryStore(made), attributes=dict(attributes))
    return made["zarr.json"].to_bytes()


def read_done(path: str) -> dict[str, Any] | None:
    """Return what `GroupWriter.finish` was given for the group at `path`; None if it is unfinished or absent."""
    return files.read_json(files.join(path, *DONE_PATH))


def list_done(root: str) -> list[tuple[HealpixPixel, str]]:
    """Return pixel and name of all finished groups of a tree."""
    found = (split_path(path) for path in files.list_files(root, suffix=DONE_PATH[-1]))
    return [(pixel, rest.split("/")[1]) for pixel, rest in filter(None, found)]


def list_pixels(root: str) -> set[HealpixPixel]:
    """Return the pixels of which anything is there, finished or not."""
    found = (split_path(path) for path in files.list_files(root, suffix=""))
    return {pixel for pixel, _ in filter(None, found)}


def remove_pixel(root: str, pixel: HealpixPixel) -> None:
    """Remove all groups of a pixel, their marks first; an absent pixel is fine."""
    path = files.join(root, pixel.path)
    for mark in files.list_files(path, suffix=DONE_PATH[-1]):
        files.remove(files.join(path, mark))
    files.remove(path)


# --- writing -----------------------------------------------------------------------------------------------


class GroupWriter:
    """Writes one group; what was there before goes first.

    Arrays are made in `group`, in memory, and `flush` writes what Zarr has made of them, and lets go of it. If anything
    raises before `finish` has returned, the group stays unfinished.

    Parameters
    ----------
    path : of the group
    attributes : of the group
    """

    def __init__(self, path: str, attributes: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self._files: dict[str, Buffer] = {}
        self._store = MemoryStore(self._files)
        self._written: set[str] = set()
        self.group = zarr.create_group(self._store, attributes=dict(attributes or {}))
        files.remove(files.join(path, *DONE_PATH))
        files.remove(path)

    def create_array(self, name: str, **options: Any) -> zarr.Array[Any]:
        """Return a new array of the group, which is written with all its chunks.

        A chunk that is not written reads as the fill value without error: a lost one must show.
        """
        return self.group.create_array(name, config={"write_empty_chunks": True}, **options)

    def add_array(self, name: str, values: npt.NDArray[Any], *, axes: Sequence[str], units: str = "") -> None:
        """Add a small array, in one chunk."""
        array = self.create_array(
            name,
            shape=values.shape,
            chunks=tuple(max(1, length) for length in values.shape),
            dtype=values.dtype,
            dimension_names=tuple(axes),
            attributes={"units": units} if units else {},
        )
        array[...] = values

    def write(self, contents: Mapping[str, Sequence[Piece]]) -> None:
        """Write files that were made without Zarr, by their paths below the group."""
        if contents:
            files.write_files(self.path, contents)
            self._written.update(contents)

    def flush(self, prefix: str = "") -> int:
        """Write the files that Zarr has made below `prefix`, and forget them; return their number."""
        names = [name for name in self._files if name.startswith(prefix)]
        self.write({name: [self._files.pop(name).as_buffer_like()] for name in names})
        return len(names)

    def finish(self, done: Mapping[str, Any]) -> None:
        """Write the metadata, and last the mark, which holds `done`.

        Raises
        ------
        OSError
            Files that were written are not there: a task that was taken for dead may be writing the same group, and may
            have removed files of ours. Trying again may help.
        """
        with unspecified():
            zarr.consolidate_metadata(self._store)
        self.flush()
        missing = self._written - set(files.list_files(self.path, suffix=""))
        if missing:
            raise OSError(
                f"{self.path}: {len(missing)} of {len(self._written)} files that were written are not there, such "
                f"as {min(missing)}; another process removed them"
            )
        files.publish_json(files.join(self.path, *DONE_PATH), dict(done))


# --- reading -----------------------------------------------------------------------------------------------


class GroupReader:
    """A finished group; the files that an array is decoded from are fetched first.

    Parameters
    ----------
    path : of the group
    remedy : what helps where a file is damaged, for the message

    Raises
    ------
    FingerprintError
        Nothing is there, or it is damaged.
    """

    def __init__(self, path: str, *, remedy: str) -> None:
        self.path = path
        self._remedy = remedy
        self._files: dict[str, Buffer] = {}
        self.fetch(["zarr.json"])
        with unspecified():
            self.group = zarr.open_group(MemoryStore(self._files), mode="r", zarr_format=3)

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the group."""
        return self.group.attrs.asdict()

    def array(self, name: str) -> zarr.Array[Any] | None:
        """Return an array, None if the group has none of that name; reading it takes the files of `chunk_files`."""
        with unspecified():
            array = self.group.get(name)
        return array if isinstance(array, zarr.Array) else None

    def read(self, arrays: Mapping[str, zarr.Array[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Return the values of whole arrays, fetched all at once."""
        self.fetch([name for array in arrays.values() for name in chunk_files(array, 0, None)])
        return {name: np.asarray(array[...]) for name, array in arrays.items()}

    def fetch(self, names: Sequence[str]) -> None:
        """Have these files in memory, and no others: one that is wanted again is not fetched again.

        Raises
        ------
        FingerprintError
            A file is gone or empty.
        """
        self.forget(self._files.keys() - set(names))
        try:
            found = files.read_files(self.path, [name for name in names if name not in self._files])
        except FileNotFoundError as error:
            raise self.damaged(f"a file is gone ({error})") from None
        for name, data in found.items():
            if not data:
                raise self.damaged(f"{name} is empty")
            self._files[name] = cpu.Buffer.from_bytes(data)

    def forget(self, names: Iterable[str]) -> None:
        """Let go of files that were fetched."""
        for name in set(names):
            del self._files[name]

    def damaged(self, what: str) -> FingerprintError:
        """Return the error that says what is wrong with the group, and what helps."""
        return FingerprintError(f"{self.path}: {what}; {self._remedy}")


def chunk_files(array: zarr.Array[Any], start: int, stop: int | None) -> list[str]:
    """Return the files of an array that hold entries `start` to `stop` of its first axis; None for the last."""
    shape = array.shards or array.chunks
    counts = [-(-length // step) for length, step in zip(array.shape, shape, strict=True)]
    last = counts[0] if stop is None else -(-stop // shape[0])
    places = itertools.product(range(start // shape[0], last), *(range(count) for count in counts[1:]))
    return ["/".join([array.path, "c", *map(str, place)]) for place in places]


# --- warnings ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def unspecified() -> Iterator[None]:
    """Silence Zarr's warnings of what v3 does not specify yet; zarr-python and xarray read both.

    Text ids of fixed length, and the metadata of the group's arrays kept once more in the group's own: one
    request opens it then, in place of thirty.
    """
    with warnings.catch_warnings():
        ignore_unspecified()
        yield


def ignore_unspecified() -> None:
    """Silence them in the whole process, as workers with several threads need: contexts of warnings are no thread's own."""
    warnings.simplefilter("ignore", UnstableSpecificationWarning)
    warnings.filterwarnings("ignore", "Consolidated metadata", ZarrUserWarning)
