"""Compare a catalog with the run.toml that should have made it."""

from __future__ import annotations

from collections import Counter

from galbatch import catalog, cluster
from galbatch.config import RunConfig
from galbatch.core.fingerprint import refuse_difference
from galbatch.errors import FingerprintError
from galbatch.execution import leaf
from galbatch.execution.preparing import prepare

__all__ = ["verify_against"]


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
