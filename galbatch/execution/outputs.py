"""The outputs of a run: the paths of its files, and the locks next to the store and the catalog."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

from galbatch import storage
from galbatch.config import RunConfig

__all__ = ["FAILED_FILE", "REJECTED_FILE", "Stage", "check_outputs", "lock_of", "locked", "tile_index_of"]

Stage = Literal["ingest", "infer", "all"]
"""The part of a run to execute: make cutouts, infer from existing cutouts, or both."""

FAILED_FILE = "_failed.json"
"""Name of the file in the catalog's folder with the partitions that failed, and their reasons."""

REJECTED_FILE = "rejected.parquet"
"""Name of the file in the catalog's folder with the rows of the object list that were dropped, and their reasons."""


def tile_index_of(store: str) -> str:
    """Return the prefix of the paths of the tile indexes, which lie next to the store at `store`."""
    # Not next to the tiles, whose folder may be read-only.
    return store.rstrip("/") + "_tiles"


def lock_of(output: str) -> str:
    """Return the path of an output's lock."""
    # Next to the output, as Zarr takes any file inside a store for a part of it.
    return output.rstrip("/") + "_lock.json"


def check_outputs(config: RunConfig, stage: Stage) -> list[str]:
    """Make the folders of the outputs that a stage writes, and return their paths.

    Raises
    ------
    OutputError
        One of them cannot be written.
    """
    store, catalog_path = config.cutouts.store, config.catalog.path
    # The store is locked in every stage: another run must not replace the cutouts that this one reads.
    outputs = [store] if stage == "ingest" else [store, catalog_path]
    for output in outputs:
        storage.check_writable(output)
    return outputs


@contextmanager
def locked(config: RunConfig, stage: Stage) -> Iterator[None]:
    """Hold the locks of the outputs that a stage writes while the context lasts.

    Raises
    ------
    OutputError
        An output cannot be written.
    LockedError
        Another run is writing one of them.
    """
    # The store comes first in every run: in different orders two runs could hold one lock each, and both be refused.
    with ExitStack() as stack:
        for output in check_outputs(config, stage):
            stack.enter_context(storage.Lock(lock_of(output)))
        yield
