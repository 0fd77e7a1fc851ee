"""Where pixels are stored -> windows of them: a reader for each kind of storage.

`open_plane` chooses: memory maps for plain local HDUs, astropy's ``.section`` for compressed and remote ones.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from galbatch import storage
from galbatch.types import Plane

__all__ = ["Box", "PlaneReader", "open_plane"]


@dataclass(frozen=True, slots=True)
class Box:
    """Pixels y0 <= y < y1, x0 <= x < x1."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x)."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def is_empty(self) -> bool:
        """Whether it holds no pixel."""
        return self.y1 <= self.y0 or self.x1 <= self.x0

    def shifted(self, dy: int, dx: int) -> Box:
        """The same box in coordinates that are larger by (dy, dx)."""
        return Box(self.y0 + dy, self.y1 + dy, self.x0 + dx, self.x1 + dx)

    def clipped(self, shape: tuple[int, int]) -> Box:
        """What lies within an image of `shape`."""
        return Box(max(self.y0, 0), min(self.y1, shape[0]), max(self.x0, 0), min(self.x1, shape[1]))

    @property
    def slices(self) -> tuple[slice, slice]:
        """To index (y, x)."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)


class PlaneReader(Protocol):
    """Reads windows of one plane; the file behind it is held by who opened it."""

    def read(self, box: Box) -> npt.NDArray[Any]:
        """(y, x): physical values of the window, in any byte order, maybe a view of the file.

        Raises
        ------
        ValueError, TypeError, EOFError
            The data are damaged.
        OSError
            They cannot be read now.
        """

    def prefetch(self, boxes: Sequence[Box]) -> None:
        """Fetch what `read` will be asked for next in one go; what was fetched before is forgotten."""


def open_plane(hdu: Any, plane: Plane) -> PlaneReader:
    """The reader of an opened HDU.

    A section of a plain local HDU reads row by row: 1.4 ms for 96 x 96 px, against 15 us from the map.
    """
    local = not storage.is_s3(plane.path) and not plane.path.endswith((".gz", ".bz2"))
    if local and not isinstance(hdu, fits.CompImageHDU):
        return MappedPlane(hdu, plane)
    return SectionPlane(hdu, plane)


class SectionPlane:
    """Any HDU through astropy's ``.section``."""

    def __init__(self, hdu: Any, plane: Plane) -> None:
        self._hdu = hdu
        self._index = plane.index

    def read(self, box: Box) -> npt.NDArray[Any]:
        """See `PlaneReader`."""
        return np.asarray(self._hdu.section[(*self._index, *box.slices)])

    def prefetch(self, boxes: Sequence[Box]) -> None:
        """Nothing: astropy reads when asked."""


class MappedPlane:
    """A plain HDU of a local file, memory-mapped, scaled by its BZERO, BSCALE and BLANK."""

    def __init__(self, hdu: Any, plane: Plane) -> None:
        header = hdu.header
        bits = abs(header["BITPIX"])
        kind = "f" if header["BITPIX"] < 0 else "u" if bits == 8 else "i"
        dtype, offset = f">{kind}{bits // 8}", hdu.fileinfo()["datLoc"]
        mapped = np.memmap(os.fspath(plane.path), dtype=dtype, mode="r", offset=offset, shape=hdu.shape)
        self._stored: npt.NDArray[Any] = np.asarray(mapped)  # slices of the subclass cost 10 us more
        self._stored = self._stored[plane.index]
        self._scale, self._zero = float(header.get("BSCALE", 1)), float(header.get("BZERO", 0))
        self._blank = header.get("BLANK") if kind != "f" else None

    def read(self, box: Box) -> npt.NDArray[Any]:
        """See `PlaneReader`."""
        stored = self._stored[box.slices]
        if self._scale == 1 and self._zero.is_integer() and self._blank is None:
            # Unsigned integers are stored with BZERO = 32768: they stay integers.
            return stored if self._zero == 0 else stored.astype(np.int64) + int(self._zero)
        values = stored * np.float64(self._scale) + np.float64(self._zero)
        if self._blank is not None:
            values[stored == self._blank] = np.nan
        return values

    def prefetch(self, boxes: Sequence[Box]) -> None:
        """Nothing: the kernel reads ahead."""
