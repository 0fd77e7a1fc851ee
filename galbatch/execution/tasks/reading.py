"""Reading of a partition's cutouts by the steps that need them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from galbatch import ingest
from galbatch.core.fingerprint import Fingerprint, refuse_difference
from galbatch.core.pixels import Partition
from galbatch.core.types import BLOCK_OBJECTS, CutoutBlock
from galbatch.errors import FingerprintError
from galbatch.execution.tasks.base import GridTask

__all__ = ["read_cutouts"]


def read_cutouts(
    store: str,
    partition: Partition,
    grid: GridTask,
    *,
    fingerprint: Fingerprint,
    needs_planes: Callable[[CutoutBlock, npt.NDArray[np.intp]], bool] | None = None,
) -> Iterator[tuple[npt.NDArray[np.intp], CutoutBlock]]:
    """Yield the blocks of cutouts on a grid, each with the index of its objects in the partition, (object,) intp.

    Parameters
    ----------
    store : str
    partition : Partition
    grid : GridTask
    fingerprint : Fingerprint
        The fingerprint that the cutouts must have.
    needs_planes : callable or None
        Takes a block without planes and the index of its objects; those of which it says no come without pixels. None: all
        come with them.

    Raises
    ------
    FingerprintError
        There are no cutouts, or they were made with other settings or inputs.
    """
    done = ingest.read_done(store, partition, grid.grid)
    where = f"{store} {partition.name} {grid.grid.label}"
    if done is None:
        raise FingerprintError(f"{where}: no cutouts there; run galbatch run --stage ingest first")
    refuse_difference(where, done["fingerprint"], fingerprint)
    # Without objects the store has a group with _done.json but without arrays to read.
    if not len(grid.rows):
        return
    # The store's blocks are those that ingest cut: 256 objects each, in the order of `grid.rows`.
    starts = range(0, len(grid.rows), BLOCK_OBJECTS)
    rows = (grid.rows[start : start + BLOCK_OBJECTS] for start in starts)

    def of_block(start: int, cutouts: CutoutBlock) -> bool:
        assert needs_planes is not None
        return needs_planes(cutouts, grid.rows[start : start + len(cutouts)])

    blocks = ingest.read_blocks(
        store, partition, grid.grid, needs_planes=None if needs_planes is None else of_block
    )
    yield from zip(rows, blocks, strict=True)
