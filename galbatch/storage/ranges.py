"""Files that are read in ranges of bytes, by requests over a network."""

from __future__ import annotations

import bisect
import io
import os
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, BinaryIO

from galbatch.storage.base import FileSystem
from galbatch.storage.local import temporary_file

__all__ = ["BLOCK_BYTES", "PIECE_BYTES", "RangedFile", "fetch_range"]

BLOCK_BYTES = 64 * 1024
"""Smallest number of bytes to fetch if the reader has not said what it needs; enough for a FITS header."""

PIECE_BYTES = 16 * 2**20
"""Larger ranges are fetched in pieces of this size, several at a time, as one connection to S3 has 50 to 90 MB/s."""

# Four pieces of 16 MiB are in memory at a time.
PARALLEL_PIECES = 4


class RangedFile(io.RawIOBase):
    """An open file that fetches the ranges that are read, at least `BLOCK_BYTES`, and those that `prefetch` names.

    Parameters
    ----------
    system : FileSystem
    path : str
    size_bytes : int or None
        Size of the file. None: the file system is asked.

    Raises
    ------
    FileNotFoundError
        The file does not exist.
    """

    # Enough for the headers of a file's HDUs and the tables of its compressed blocks.
    MAX_BLOCKS = 16

    def __init__(self, system: FileSystem, path: str, *, size_bytes: int | None = None) -> None:
        self.path = path
        self.size_bytes = system.identity(path).size_bytes if size_bytes is None else size_bytes
        self._system = system
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._prefetched: dict[object, tuple[list[int], list[bytes]]] = {}
        self._kept: list[tuple[int, int, BinaryIO]] = []

    def close(self) -> None:
        for _, _, file in self._kept:
            file.close()
        self._kept.clear()
        self._prefetched.clear()
        super().close()

    def keep(self, start: int, stop: int) -> None:
        """Fetch a range into a temporary file, from which it is read from now on; raises as `fetch_range` does."""
        self._kept.append((start, stop, fetch_range(self._system, self.path, start, stop)))

    def prefetch(self, ranges: Iterable[tuple[int, int]], *, owner: object = None) -> None:
        """Fetch ranges that do not overlap, at the same time, and drop those fetched before for the same owner.

        Each plane of a file is an owner of its own, so that the ranges of one plane do not replace those of another.
        """
        wanted = sorted(ranges)
        # Dropped before the new ones are fetched: two blocks of pixels may not fit into memory.
        self._prefetched.pop(owner, None)
        fetched = self._system.read_ranges(self.path, wanted)
        self._prefetched[owner] = ([start for start, _ in wanted], fetched)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size_bytes}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        stop = min(self._position + len(view), self.size_bytes)
        n_bytes = max(0, stop - self._position)
        if n_bytes:
            view[:n_bytes] = self._bytes(self._position, stop)
        self._position += n_bytes
        return n_bytes

    def readall(self) -> bytes:
        return self.read(max(0, self.size_bytes - self._position)) or b""

    def _bytes(self, start: int, stop: int) -> bytes:
        """Return a range of the file, from what was fetched before or fetched now."""
        for first, last, file in self._kept:
            if first <= start and stop <= last:
                return os.pread(file.fileno(), stop - start, start - first)
        for starts, fetched in self._prefetched.values():
            at = bisect.bisect_right(starts, start) - 1
            if at >= 0 and stop <= starts[at] + len(fetched[at]):
                return fetched[at][start - starts[at] : stop - starts[at]]
        for first, block in self._blocks.items():
            if first <= start and stop <= first + len(block):
                self._blocks.move_to_end(first)
                return block[start - first : stop - first]
        end = min(max(stop, start + BLOCK_BYTES), self.size_bytes)
        data = b"".join(self._system.read_ranges(self.path, _in_pieces(start, end)))
        # Only small ranges are kept: larger ones hold pixels, which are read once.
        if len(data) <= 4 * BLOCK_BYTES:
            self._blocks[start] = data
            while len(self._blocks) > self.MAX_BLOCKS:
                self._blocks.popitem(last=False)
        return data[: stop - start]


def fetch_range(system: FileSystem, path: str, start: int, stop: int) -> BinaryIO:
    """Return an open temporary file with the bytes ``start <= i < stop`` of `path`; closing it deletes it.

    Raises
    ------
    OutputError
        There is no space in ``TMPDIR``.
    OSError
        The file at `path` is shorter, or cannot be read now.
    """
    pieces = _in_pieces(start, stop)
    groups = (pieces[i : i + PARALLEL_PIECES] for i in range(0, len(pieces), PARALLEL_PIECES))
    return temporary_file(data for group in groups for data in system.read_ranges(path, group))


def _in_pieces(start: int, stop: int) -> list[tuple[int, int]]:
    return [(first, min(first + PIECE_BYTES, stop)) for first in range(start, stop, PIECE_BYTES)]
