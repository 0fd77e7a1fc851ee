"""Deletion of a run's outputs."""

from __future__ import annotations

from galbatch import catalog, ingest, storage
from galbatch.catalog import pass_outputs
from galbatch.config import RunConfig
from galbatch.execution.outputs import FAILED_FILE, REJECTED_FILE, lock_of, tile_index_of

__all__ = ["clean"]


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
    indexes = ingest.index_paths(tile_index_of(config.cutouts.store), config.survey)
    removed = [path for path in indexes if storage.exists(path)]
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
