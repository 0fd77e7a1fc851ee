"""The outputs of a run: the paths of its files, the locks next to the store and the catalog, and their deletion."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from galbatch import catalog, dashboard, ingest, storage
from galbatch.catalog import pass_outputs
from galbatch.config import ModelConfig, RunConfig, Stage
from galbatch.errors import ConfigError

__all__ = [
    "FAILED_FILE",
    "REJECTED_FILE",
    "HeldOutputs",
    "check_outputs",
    "clean",
    "is_untouched",
    "lock_of",
    "locked",
    "require_stage",
    "tile_index_of",
    "writes_catalog",
]


def writes_catalog(stage: Stage) -> bool:
    """Return whether a stage runs the networks and writes the catalog; the others write the cutout store alone."""
    return stage in ("infer", "all")


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
    # The store is locked in every stage: another run must not replace the cutouts that this one reads. Without a survey there is none.
    stores = [config.cutouts.store] if config.survey else []
    outputs = [*stores, config.catalog.path] if writes_catalog(stage) else stores
    for output in outputs:
        storage.check_writable(output)
    return outputs


def require_stage(networks: Sequence[ModelConfig], stage: Stage) -> None:
    """Raise if a run names no network, and a stage needs one.

    Raises
    ------
    ConfigError
        It does; the message says what can be done.
    """
    if not networks and writes_catalog(stage):
        raise ConfigError(
            f"run.toml: there is no [[models]], so --stage {stage} has nothing to infer: make the cutouts with --stage ingest, train a "
            "network on them (galbatch models train --store), then name its bundle in [[models]]"
        )


def is_untouched(config: RunConfig) -> bool:
    """Return whether a run's outputs hold no cutouts, pass outputs and leaves yet, which may be of another run."""
    store, catalog_path = config.cutouts.store, config.catalog.path
    return not (
        catalog.list_leaves(catalog_path) or ingest.list_done(store) or pass_outputs.list_done(catalog_path)
    )


@dataclass(frozen=True)
class HeldOutputs:
    """The outputs of a stage of a run while it holds their locks; made by `locked`."""

    config: RunConfig
    stage: Stage
    locks: tuple[storage.Lock, ...]

    @property
    def handles(self) -> tuple[storage.LockHandle, ...]:
        """The locks, as tasks on workers check them."""
        return tuple(lock.handle for lock in self.locks)

    def require(self) -> None:
        """Raise an error if a lock was found to be lost.

        Raises
        ------
        LockLost
            Another run took it over.
        """
        for lock in self.locks:
            if lock.is_lost:
                lock.handle.require()


@contextmanager
def locked(
    config: RunConfig, stage: Stage, *, waits: bool = False, notify: Callable[[str], None] = lambda line: None
) -> Iterator[HeldOutputs]:
    """Hold the locks of the outputs that a stage writes while the context lasts.

    Parameters
    ----------
    config : RunConfig
    stage : {"ingest", "photometry", "infer", "all"}
    waits : bool
        Whether to wait for a run that holds one of them.
    notify : callable
        Takes human-readable lines.

    Raises
    ------
    OutputError
        An output cannot be written.
    LockedError
        Another run is writing one of them.
    """
    # The store comes first in every run: in different orders two runs could hold one lock each, and both be refused.
    outputs = check_outputs(config, stage)
    try:
        locks = tuple(storage.Lock(lock_of(output), waits=waits, notify=notify) for output in outputs)
        with _entered(locks):
            for output, lock in zip(outputs, locks, strict=True):
                if lock.took_over:
                    _sweep(output, catalog_path=config.catalog.path)
            yield HeldOutputs(config, stage, locks)
    finally:
        # Folders that were made for the check, of a run that did not begin.
        for output in outputs:
            storage.remove_if_empty(output)


def _sweep(output: str, *, catalog_path: str) -> None:
    """Remove the temporary files that a run left in an output when it was killed."""
    # Groups are removed before they are written again, but what lies above them would stay for ever.
    storage.remove_temporaries(output)
    if output == catalog_path:
        storage.remove_temporaries(pass_outputs.pass_outputs_path(output))


@contextmanager
def _entered(locks: Sequence[storage.Lock]) -> Iterator[None]:
    """Hold locks, entered in their order; those of dead runs are watched at the same time."""
    for lock in locks:
        lock.look()
    with ExitStack() as stack:
        for lock in locks:
            stack.enter_context(lock)
        yield


def clean(config: RunConfig, *, notify: Callable[[str], None] = lambda line: None) -> list[str]:
    """Delete the outputs of a run, and return the paths that were deleted.

    Files that galbatch did not write stay, and so does their folder. `notify` takes human-readable lines.

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
        dashboard.log_path(config.catalog.path),
        dashboard.progress_path(config.catalog.path),
        # Of the networks that were run: beside a catalog of others it would speak for them.
        catalog.evidence_path(config.catalog.path),
    ]
    there = [folder for folder in own if storage.exists(folder)]
    with _entered([storage.Lock(lock_of(folder), notify=notify) for folder in there]):
        removed = [path for path in companions if storage.exists(path)]
        for folder in there:
            # In the order of the lists: properties first, so that a deletion that is stopped leaves no catalog that opens.
            paths = (storage.join(folder, entry) for entry in own[folder])
            removed.extend(path for path in paths if storage.exists(path))
        for path in removed:
            storage.remove(path)
        for folder in there:
            storage.remove_if_empty(folder)
    return removed
