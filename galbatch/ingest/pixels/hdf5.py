"""HDF5 files: the only door to h5py. A plane is a dataset, its `index` the place on the axes before (y, x)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from galbatch import storage
from galbatch.core.process import OptionalPackage, require
from galbatch.core.types import Plane
from galbatch.errors import TileError
from galbatch.ingest.pixels.planes import Box
from galbatch.ingest.pixels.structure import FAULTS, is_damage, told_damage

h5py = OptionalPackage("h5py")

__all__ = ["HDF5_SUFFIXES", "DatasetPlane", "Hdf5File", "open_hdf5"]

HDF5_SUFFIXES = tuple(
    f"{name}{packing}" for name in (".h5", ".hdf5", ".hdf", ".he5") for packing in ("", ".gz", ".bz2")
)
# Of these a message shows: GalaxiesML's files have some 100 datasets.
MAX_SHOWN = 40


class Hdf5File:
    """An HDF5 file open for reading, local or on S3, to be closed by the caller.

    Attributes
    ----------
    is_packed : bool
        Whether the file was found to be packed as a whole; it is read from its unpacked content then.

    Raises
    ------
    TileError
        It is no HDF5 file, or truncated.
    FileNotFoundError
        There is no such file.
    MissingPackage
        h5py is not installed.
    """

    def __init__(self, path: str) -> None:
        require("h5py", where=path)
        self.path = path
        self._datasets: dict[str, Any] = {}
        # h5py reads from the open file, so that paths of S3 and of other storage work as local ones do.
        content = storage.open_content(path)
        self._raw: BinaryIO = content.file
        self.is_packed = bool(content.packing)
        try:
            self._file = h5py.File(self._raw, "r")
        except FAULTS as error:
            self._raw.close()
            if not is_damage(error):  # the disk or the network, not the file: worth another try
                raise
            raise TileError(
                f"{path}: is no HDF5 file, or is truncated ({error}); fetch it again or exclude it"
            ) from None

    @property
    def attributes(self) -> dict[str, Any]:
        """The file's own attributes."""
        return dict(self._file.attrs)

    def dataset(self, name: str, *, key: str) -> Any:
        """Return a dataset by its name; `key` is the config key that named it.

        Raises
        ------
        TileError
            There is none; the message shows which there are.
        """
        found = self.find(name)
        if found is not None:
            return found
        raise TileError(
            f"{self.path}: there is no dataset {name!r}; there are {self._shown()}; name the right one: {key} = .."
        )

    def values(self, name: str, *, key: str) -> npt.NDArray[Any]:
        """Return the whole content of a dataset; raises as `dataset` does, and where its data are damaged."""
        try:
            return np.asarray(self.dataset(name, key=key)[...])
        except OSError as error:
            if error.errno is not None:
                raise
            raise TileError(
                f"{self.path}: {name} cannot be read ({error}); the file is damaged: fetch it again or exclude it"
            ) from None

    def find(self, name: str) -> Any:
        """Return a dataset by its name, also one in other capitals if only one has these letters; None if there is none."""
        if name not in self._datasets:  # h5py takes 0.3 ms to look a name up, more than to read a stamp
            found = self._file.get(name)
            alike = [key for key in self._file if key.lower() == name.lower()]
            if found is None and len(alike) == 1:
                found = self._file[alike[0]]
            self._datasets[name] = found if isinstance(found, h5py.Dataset) else None
        return self._datasets[name]

    def _shown(self) -> str:
        found: list[str] = []

        def note(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                found.append(f"{name} {item.shape}")

        self._file.visititems(note)
        more = f" and {len(found) - MAX_SHOWN} more" if len(found) > MAX_SHOWN else ""
        return ", ".join(found[:MAX_SHOWN]) + more if found else "none"

    def plane(self, plane: Plane) -> DatasetPlane:
        """Return the reader of a plane, whose `hdu` is the name of a dataset and whose `index` is a place on its first axes."""
        return DatasetPlane(self.dataset(str(plane.hdu), key="dataset"), plane)

    def close(self) -> None:
        """Close the file."""
        # h5py's first: it uses the file below until it is closed.
        self._file.close()
        self._raw.close()


@contextlib.contextmanager
def open_hdf5(path: str) -> Iterator[Hdf5File]:
    """Open an HDF5 file that is closed at the end of the context."""
    file = Hdf5File(path)
    with contextlib.closing(file), told_damage(path):
        yield file


class DatasetPlane:
    """The reader of windows of one plane of a dataset."""

    held_bytes = 0

    def __init__(self, dataset: Any, plane: Plane) -> None:
        self._dataset = dataset
        self._index = plane.index

    def read(self, box: Box) -> npt.NDArray[Any]:
        try:
            return self._dataset[(*self._index, *box.slices)]
        except OSError as error:
            if error.errno is not None:
                raise
            raise ValueError(str(error)) from None  # a damaged chunk: another try would not help

    def prefetch(self, boxes: Sequence[Box]) -> None:
        """Do nothing: HDF5 reads the chunks that it needs."""
