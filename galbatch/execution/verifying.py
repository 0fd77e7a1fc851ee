"""Compare a catalog with the run.toml that should have made it."""

from __future__ import annotations

from collections import Counter

from galbatch import catalog, cluster
from galbatch.config import RunConfig
from galbatch.core.fingerprint import refuse_difference
from galbatch.errors import FingerprintError
from galbatch.execution import leaf
from galbatch.execution.preparing import prepare
from galbatch.planning import Plan

__all__ = ["verify_against"]


def verify_against(config: RunConfig, catalog_path: str, workers: cluster.Workers | None = None) -> list[str]:
    """Compare a catalog with the run that should have made it; returns the problems found.

    Every object of the list is there exactly once, and every leaf carries this run's fingerprint.
    """
    at = config.catalog.model_copy(update={"path": catalog_path})
    plan = prepare(config.model_copy(update={"catalog": at}), workers)  # the engine is read from its leaves
    problems = []
    for part in plan.partitions:
        footer = catalog.read_footer(catalog_path, part.partition)
        if footer is None:
            problems.append(f"{catalog_path} {part.partition.name}: no leaf; galbatch run does what is left")
            continue
        try:
            where = f"{catalog_path} {part.partition.name}"
            refuse_difference(where, leaf.footer_fingerprint(footer), part.leaf)
        except FingerprintError as error:
            problems.append(str(error))
    return problems + _id_problems(plan, catalog_path)


def _id_problems(plan: Plan, catalog_path: str) -> list[str]:
    """Return what is wrong with the object ids: missing, extra or repeated; leaf by leaf, as a catalog need not fit in memory."""
    n_missing = n_extra = n_twice = 0
    there = set(catalog.list_leaves(catalog_path))
    expected = {p.partition.pixel: p.partition for p in plan.partitions}
    for pixel in (*expected, *sorted(there - expected.keys())):
        found = Counter(catalog.leaf_ids(catalog_path, pixel) if pixel in there else [])
        listed = set(plan.take(expected[pixel]).table.object_id.tolist()) if pixel in expected else set()
        n_missing += len(listed - found.keys())
        n_extra += len(found.keys() - listed)
        n_twice += found.total() - len(found)
    if not n_missing + n_extra + n_twice:
        return []
    return [
        f"{catalog_path}: {n_missing} objects of the list are missing, {n_extra} are not in the list, "
        f"{n_twice} stand twice"
    ]
