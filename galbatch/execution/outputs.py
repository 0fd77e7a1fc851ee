"""The outputs of a run: the paths of its files, the locks next to the store and the catalog, and their deletion."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

from galbatch import catalog, ingest, storage
from galbatch.catalog import pass_outputs
from galbatch.config import RunConfig

__all__ = [
    "FAILED_FILE",
    "REJECTED_FILE",
    "Stage",
    "check_outputs",
    "clean",
    "lock_of",
    "locked",
    "tile_index_of",
]

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


def clean(config: RunConfig) -> list[str]:
    """Delete the outputs of a run, and return the paths that were deleted.

    Files that galbatch did not write stay, and so does their folder.

    Raises
    ------
    LockedError
        A run is writing one of the outputs.
    """
    # Names are listed, as a mistyped path in run.toml may point to a folder with the user's own files.
    own = {
        config.cutouts.store: ingest.STORE_ENTRIES,
        config.catalog.path: (*catalog.CATALOG_ENTRIES, FAILED_FILE, REJECTED_FILE),
        pass_outputs.pass_outputs_path(config.catalog.path): pass_outputs.PASS_OUTPUT_ENTRIES,
    }
    companions = [
        *ingest.index_paths(tile_index_of(config.cutouts.store), config.survey),
        *map(storage.damage_path, own),
    ]
    removed = [path for path in companions if storage.exists(path)]
    for path in removed:
        storage.remove(path)
    for folder, entries in own.items():
        if not storage.exists(folder):
            continue
        with storage.Lock(lock_of(folder)):
            # In the order of the lists: properties first, so that a deletion that is stopped leaves no catalog that opens.
            there = [path for path in (storage.join(folder, e) for e in entries) if storage.exists(path)]
            for path in there:
                storage.remove(path)
            removed.extend(there)
        storage.remove_if_empty(folder)
    return removed
