"""Reading of finished groups; every file is checked against the group's ``_done.json`` when it is read."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.buffer import Buffer
from zarr.buffer import cpu
from zarr.storage import MemoryStore

from galbatch.errors import DamagedError, FingerprintError
from galbatch.storage import files
from galbatch.storage.zarr_groups.tree import DONE_PATH, read_mark, unspecified

__all__ = ["GroupReader", "chunk_files"]


class GroupReader:
    """A finished group, open for reading. The files of an array must be fetched before it is read.

    Parameters
    ----------
    path : str
        Path of the group.

    Raises
    ------
    FingerprintError
        The group does not exist or is unfinished.
    DamagedError
        A file has changed since it was written.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        mark = read_mark(path)
        if mark is None:
            raise FingerprintError(f"{path}: not there or unfinished; galbatch run makes it")
        self._checksums = mark.files
        self._files: dict[str, Buffer] = {}
        self.fetch(["zarr.json"])
        with unspecified():
            self.group = zarr.open_group(MemoryStore(self._files), mode="r", zarr_format=3)

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the group."""
        return self.group.attrs.asdict()

    def array(self, name: str) -> zarr.Array[Any] | None:
        """Return an array of the group, None if it has none of that name; to read it, fetch the files of `chunk_files`."""
        with unspecified():
            array = self.group.get(name)
        return array if isinstance(array, zarr.Array) else None

    def read(self, arrays: Mapping[str, zarr.Array[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Return the values of whole arrays, whose files are fetched at the same time."""
        self.fetch([name for array in arrays.values() for name in chunk_files(array, 0, None)])
        return {name: np.asarray(array[...]) for name, array in arrays.items()}

    def fetch(self, names: Sequence[str]) -> None:
        """Fetch these files into memory and drop all others; files that are in memory already are not fetched again.

        Raises
        ------
        DamagedError
            A file does not exist, or has changed since it was written.
        """
        self.forget(self._files.keys() - set(names))
        wanted = [name for name in names if name not in self._files]
        for name in wanted:
            if name not in self._checksums:
                raise self.damaged(name, f"is not listed in the group's {DONE_PATH}")
        try:
            found = files.read_files(self.path, wanted)
        except FileNotFoundError as error:
            # The error has the path in its text only.
            gone = next((name for name in wanted if name in str(error)), wanted[0])
            raise self.damaged(gone, "is gone") from None
        for name, data in found.items():
            if problem := self._checksums[name].problem(data):
                raise self.damaged(name, problem)
            self._files[name] = cpu.Buffer.from_bytes(data)

    def forget(self, names: Iterable[str]) -> None:
        """Drop files that were fetched."""
        for name in set(names):
            del self._files[name]

    def damaged(self, name: str, problem: str) -> DamagedError:
        """Return the error for a damaged file of the group."""
        return DamagedError(files.join(self.path, name), problem)


def chunk_files(array: zarr.Array[Any], start: int, stop: int | None) -> list[str]:
    """Return the names of an array's files with the entries from `start` to before `stop` (None: the end) of its first axis."""
    # A sharded array has one file per shard, any other one per chunk.
    shape = array.shards or array.chunks
    # -(-a // b) rounds up; the array's other axes are read whole.
    counts = [-(-length // step) for length, step in zip(array.shape, shape, strict=True)]
    last = counts[0] if stop is None else -(-stop // shape[0])
    places = itertools.product(range(start // shape[0], last), *(range(count) for count in counts[1:]))
    return ["/".join([array.path, "c", *map(str, place)]) for place in places]
