"""Read all bytes of the outputs, and compare a catalog with the run.toml that should have made it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from galbatch import catalog, cluster, ingest, storage
from galbatch.catalog import pass_outputs
from galbatch.config import RunConfig
from galbatch.core.fingerprint import refuse_difference
from galbatch.core.pixels import HealpixPixel
from galbatch.errors import DamagedError, FingerprintError, OutputError
from galbatch.execution import leaf
from galbatch.execution.preparing import prepare
from galbatch.execution.progress import read_progress

__all__ = ["verify_against", "verify_outputs", "verify_store"]


def verify_outputs(catalog_path: str, store: str | None = None) -> list[str]:
    """Check a catalog, its pass outputs and, if asked, its cutout store; every byte of them is read.

    What is damaged is recorded beside each: `galbatch run` and `galbatch retry` make it again.

    Parameters
    ----------
    store : path of the cutout store; None: cutouts are not read

    Returns
    -------
    list of str
        Human-readable problems; [] if all is good.
    """
    checked = catalog.check(catalog_path)
    kept = pass_outputs.pass_outputs_path(catalog_path)
    found = {catalog_path: checked.damaged, kept: pass_outputs.find_damage(catalog_path)}
    problems = checked.problems + pass_outputs.problems(catalog_path)
    if store is not None:
        found[store] = ingest.find_damage(store)
        problems += _lost_groups(store, catalog.list_leaves(catalog_path))
    for output, damaged in found.items():
        if output != catalog_path:
            problems += [text for text in _damage_texts(output, damaged) if text not in problems]
        problems += _recorded(output, damaged)
    return problems


def _lost_groups(store: str, leaves: Iterable[HealpixPixel]) -> list[str]:
    """Return a message for each group of cutouts or photometry that a leaf's pixel lacks and others have: every partition has the same."""
    done = set(ingest.list_groups(store))
    names = sorted({name for _, name in done})
    problems = []
    for pixel in leaves:
        path = storage.join(store, pixel.path)
        if not names:
            problems.append(f"{path}: no cutouts of the leaf {pixel.name}")
        problems += [
            f"{path}/{name}: gone, though the catalog has the leaf {pixel.name}; galbatch run makes it again"
            for name in names
            if (pixel, name) not in done
        ]
    return problems


def _damage_texts(output: str, damaged: Mapping[str, str]) -> list[str]:
    return [str(DamagedError(storage.join(output, name), what)) for name, what in damaged.items()]


def _recorded(output: str, damaged: Mapping[str, str]) -> list[str]:
    """Record what is damaged beside an output, for the next run; return a message if that is not possible."""
    try:
        storage.record_damage(output, damaged)
    except (OutputError, OSError) as error:
        return [f"{output}: what is damaged cannot be recorded: {error}"]
    return []


def verify_store(
    store: str, against: RunConfig | None = None, workers: cluster.Workers | None = None
) -> list[str]:
    """Check a cutout store without a catalog, reading every byte; what is damaged is recorded beside it.

    Parameters
    ----------
    store : str
        Path of the store.
    against : RunConfig or None
        The run that should have made it: every partition must have its cutouts, with the run's fingerprint. None: not compared.
    workers : Workers or None
        Workers that read the headers if there are many tiles. None reads them in this process.

    Returns
    -------
    list of str
        Human-readable problems; [] if all is good.
    """
    if not ingest.list_done(store):
        return [f"{store}: no finished cutouts there; galbatch run --stage ingest makes them"]
    damaged = ingest.find_damage(store)
    problems = _damage_texts(store, damaged) + _recorded(store, damaged)
    if against is None or problems:
        return problems
    at = against.cutouts.model_copy(update={"store": store})
    config = against.model_copy(update={"cutouts": at})
    try:
        state = read_progress(config, prepare(config, workers, loads=False))
    except FingerprintError as error:
        return [str(error)]
    names = (part.partition.name for part in state.plan.partitions)
    return [
        f"{store} {name}: no cutouts; galbatch run makes them" for name in names if name not in state.ingested
    ]


def verify_against(config: RunConfig, catalog_path: str, workers: cluster.Workers | None = None) -> list[str]:
    """Return the differences between a catalog and the run that should have made it; empty if there are none.

    Every object of the list must be in the catalog exactly once, and every leaf must have the run's fingerprint.

    Parameters
    ----------
    config : RunConfig
        The run; its ``[catalog] path`` is not used.
    catalog_path : str
        Folder of the catalog.
    workers : Workers or None
        Workers that read the headers if there are many tiles. None reads them in this process.
    """
    # With the catalog's own path, so that the engines recorded in its leaves are taken: another one is another fingerprint.
    at = config.catalog.model_copy(update={"path": catalog_path})
    plan = prepare(config.model_copy(update={"catalog": at}), workers)
    problems = []
    for part in plan.partitions:
        footer = catalog.read_footer(catalog_path, part.partition)
        if footer is None:
            problems.append(f"{catalog_path} {part.partition.name}: no leaf; galbatch run makes it")
            continue
        try:
            where = f"{catalog_path} {part.partition.name}"
            refuse_difference(where, leaf.footer_fingerprint(footer), part.leaf)
        except FingerprintError as error:
            problems.append(str(error))
    # Ids are compared leaf by leaf, as those of a whole catalog may not fit into memory.
    n_missing = n_extra = n_twice = 0
    there = set(catalog.list_leaves(catalog_path))
    expected = {p.partition.pixel: p.partition for p in plan.partitions}
    for pixel in (*expected, *sorted(there - expected.keys())):
        # A leaf without a partition holds extra objects, a partition without a leaf misses all of its own.
        found = Counter(catalog.leaf_ids(catalog_path, pixel) if pixel in there else [])
        listed = set(plan.take(expected[pixel]).table.object_id.tolist()) if pixel in expected else set()
        n_missing += len(listed - found.keys())
        n_extra += len(found.keys() - listed)
        n_twice += found.total() - len(found)
    if n_missing + n_extra + n_twice:
        problems.append(
            f"{catalog_path}: {n_missing} objects of the list are missing, {n_extra} are not in the list, "
            f"{n_twice} stand twice"
        )
    return problems
