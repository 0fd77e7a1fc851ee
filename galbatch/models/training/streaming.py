"""Images that are too many for the memory: they are read block by block, in an order that mixes a few blocks at a time.

Data do not pass through a second file: each block is read once for the training set and once for the validation set of an epoch.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch.core.prefetch import prefetch

__all__ = ["BlockImages", "HeldBlocks", "n_mixed_blocks", "read_parts", "shuffled"]

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

# Blocks read while others are trained on. One takes 0.1 s at 60 MB, in which a GPU trains on a few batches.
PREFETCHED_BLOCKS = 2


@dataclass
class HeldBlocks:
    """The decoded blocks in memory, by number, and the most bytes that were held at a time."""

    blocks: dict[int, Floats] = field(default_factory=dict)
    peak_bytes: int = 0

    def add(self, number: int, block: Floats) -> None:
        """Hold a block."""
        self.blocks[number] = block
        self.peak_bytes = max(self.peak_bytes, sum(held.nbytes for held in self.blocks.values()))


@dataclass(frozen=True, eq=False)
class BlockImages:
    """Images that are indexed like an array (object, band, y, x), and are read block by block when they are needed.

    Attributes
    ----------
    shape : lengths of the axes (object, band, y, x)
    numbers : (object,) int64, number of each object's image among those of all blocks, which follow each other
    begins : (block + 1,) int64, number of the first image of each block, and the number of images at the end
    read : function that returns the images (image, band, y, x) float32, nJy, of the block with a number
    n_mixed : number of blocks among which the order of an epoch is drawn, which are in memory at a time
    held : blocks that are in memory
    """

    shape: tuple[int, ...]
    numbers: Rows
    begins: Rows
    read: Callable[[int], Floats]
    n_mixed: int
    held: HeldBlocks = field(default_factory=HeldBlocks)

    @property
    def projected_bytes(self) -> int:
        """The bytes of all blocks that are in memory while a network is trained, those that are read ahead included."""
        image_bytes = 4 * int(np.prod(self.shape[1:], dtype=np.int64))
        return (self.n_mixed + 1 + PREFETCHED_BLOCKS) * image_bytes * int(np.diff(self.begins).max())

    def __getitem__(self, rows: Any) -> Floats:
        """Return the images (row, band, y, x) float32, nJy, of some rows; each of their blocks is read once."""
        numbers = np.atleast_1d(self.numbers[rows])
        images = np.empty((len(numbers), *self.shape[1:]), np.float32)
        blocks = self._blocks_of(numbers)
        for block in np.unique(blocks):
            # The last block stays: who reads rows in small groups, in order, reads it once.
            if block not in self.held.blocks:
                self.held.blocks.clear()
                self.held.add(block, self.read(block))
            images[blocks == block] = self.held.blocks[block][numbers[blocks == block] - self.begins[block]]
        return images if np.ndim(rows) or isinstance(rows, slice) else images[0]

    def take(self, rows: Rows) -> BlockImages:
        """Return the images of some rows; nothing is read."""
        return dataclasses.replace(
            self, shape=(len(rows), *self.shape[1:]), numbers=self.numbers[rows], held=HeldBlocks()
        )

    def shuffled(self, rows: Rows, rng: np.random.Generator) -> Rows:
        """Return the rows in a random order for which `n_mixed` + 1 blocks at most must be in memory at any time.

        The blocks begin one after the other, in a random order, and the rows of each are scattered evenly over the time in which
        `n_mixed` blocks begin. So the first and the last rows of an epoch are of fewer blocks.
        """
        # (block,) the place of each block in the order of this epoch
        begins_at = rng.permutation(len(self.begins) - 1)
        place = begins_at[self._blocks_of(self.numbers[rows])] + self.n_mixed * rng.random(len(rows))
        order: Rows = rows[np.argsort(place, kind="stable")]
        return order

    def parts(self, parts: Sequence[Rows]) -> Iterator[Floats]:
        """Yield the images of each part of the rows. Each block is read once, and held from its first to its last part."""
        last: dict[int, int] = {}
        for number, rows in enumerate(parts):
            last.update(dict.fromkeys(self._blocks_of(self.numbers[rows]).tolist(), number))
        # Their keys are in the order of first use, as in the loop below.
        self.held.blocks.clear()
        with prefetch(map(self.read, last), n_ahead=PREFETCHED_BLOCKS) as coming:
            for number, rows in enumerate(parts):
                blocks = self._blocks_of(self.numbers[rows]).tolist()
                for block in dict.fromkeys(blocks):
                    if block not in self.held.blocks:
                        self.held.add(block, next(coming))
                yield self[rows] if len(rows) else np.empty((0, *self.shape[1:]), np.float32)
                for block in [b for b in self.held.blocks if last[b] == number]:
                    del self.held.blocks[block]

    def _blocks_of(self, numbers: Rows) -> Rows:
        """Return the block of each image."""
        return np.searchsorted(self.begins, numbers, side="right") - 1


def n_mixed_blocks(block_bytes: int, memory_bytes: float) -> int:
    """Return how many blocks are mixed so that all that is held of them takes `memory_bytes` at most, but at least two blocks.

    Held are the blocks that are mixed, one that begins, and those that are prefetched, of which one is being read.
    """
    return max(2, int(memory_bytes // max(1, block_bytes)) - 1 - PREFETCHED_BLOCKS)


def shuffled(images: Any, rows: Rows, rng: np.random.Generator) -> Rows:
    """Return the rows of an epoch in random order: any order for images in memory, for others one that mixes a few blocks."""
    if isinstance(images, BlockImages):
        return images.shuffled(rows, rng)
    order: Rows = rng.permutation(rows)
    return order


@contextlib.contextmanager
def read_parts(images: Any, parts: Sequence[Rows]) -> Iterator[Iterable[Floats]]:
    """Iterate over the images of each part of the rows, (row, band, y, x) float32, nJy, while the context lasts."""
    if not isinstance(images, BlockImages):
        yield (np.asarray(images[rows], dtype=np.float32) for rows in parts)
        return
    with contextlib.closing(images.parts(parts)) as found:  # type: ignore[type-var]
        yield found
