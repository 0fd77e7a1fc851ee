"""The run's outputs: their paths, and the locks beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

from galbatch import storage
from galbatch.config import RunConfig

__all__ = ["FAILED_FILE", "REJECTED_FILE", "Stage", "check_outputs", "lock_of", "locked", "tile_index_of"]

Stage = Literal["ingest", "infer", "all"]
"""The part of a run that is asked for: cutouts, results from cutouts that exist, or both."""

FAILED_FILE = "_failed.json"
"""In the catalog's folder: the partitions that failed, with their reasons."""

REJECTED_FILE = "rejected.parquet"
"""In the catalog's folder: rows of the object list that were left out."""


def tile_index_of(store: str) -> str:
    """Return the beginning of the paths of the tile indexes: beside the store, as they belong to its inputs."""
    return store.rstrip("/") + "_tiles"


def lock_of(output: str) -> str:
    """Return the path of the lock beside an output: not inside, where Zarr would take it for a part of the store."""
    return output.rstrip("/") + "_lock.json"


def check_outputs(config: RunConfig, stage: Stage) -> list[str]:
    """Make the folders of the outputs that a stage writes, and return their paths.

    Raises
    ------
    OutputError
        One cannot be written where it is asked for.
    """
    store, catalog_path = config.cutouts.store, config.catalog.path
    outputs = [store] if stage == "ingest" else [store, catalog_path]
    for output in outputs:
        storage.check_writable(output)
    return outputs


@contextmanager
def locked(config: RunConfig, stage: Stage) -> Iterator[None]:
    """Hold the locks of the outputs that a stage writes.

    Raises
    ------
    OutputError
        An output cannot be written where it is asked for.
    LockedError
        Another run is writing one.
    """
    with ExitStack() as stack:
        for output in check_outputs(config, stage):
            stack.enter_context(storage.Lock(lock_of(output)))
        yield
