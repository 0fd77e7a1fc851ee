"""Merging: two catalogs of disjoint objects, or of the same objects with other networks, become one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from galbatch import __version__, catalog, execution, storage
from galbatch.api.merging.joining import stacked, with_all_networks
from galbatch.api.merging.kept import audits_of, write_pass_outputs
from galbatch.api.merging.sources import (
    FREE_PARTS,
    Source,
    entries_of,
    have_same_objects,
    require_free,
    require_places,
    require_same_columns,
    require_same_meaning,
    require_same_settings,
)
from galbatch.catalog import pass_outputs
from galbatch.core.columns import ID
from galbatch.core.fingerprint import Fingerprint, digest
from galbatch.planning import divide

__all__ = ["Merged", "merge"]

OWN = (
    catalog.model_property("audit"),
    catalog.model_property("doubt"),
    catalog.STORE_PROPERTY,
    catalog.EVIDENCE_PROPERTY,
)
"""Beginnings of the properties of one catalog that do not hold for another."""

MAX_OBJECTS = 20_000
"""Most rows of a leaf of the merged catalog."""


@dataclass(frozen=True)
class Merged:
    """A merged catalog.

    Attributes
    ----------
    n_rows : number of its rows
    without_pass_outputs : paths of the catalogs that kept no pass outputs, so that the merged one has none; empty if it has all,
        or if no catalog kept any
    """

    n_rows: int
    without_pass_outputs: tuple[str, ...] = ()


def merge(paths: Sequence[str], output: str, *, notify: Callable[[str], None] = lambda line: None) -> Merged:
    """Write a catalog of all rows and all networks of several complete catalogs, which stay as they are.

    Audits are added up, and pass outputs copied if all catalogs kept them.

    Parameters
    ----------
    paths : sequence of str
        Catalogs either without an object in common, with the same columns, or of the same objects.
    output : str
        Folder of the new catalog, which must not hold one; it is locked while it is written, as that of a run is.
    notify : callable
        Takes human-readable lines, such as on a lock that is watched.

    Returns
    -------
    Merged

    Raises
    ------
    UsageError
        The catalogs contradict each other: some objects are in several of them and not all, columns of one name differ in unit
        or meaning, networks of one name differ, or an object has other values in another catalog.
    LockedError
        Another merge or run is writing the output.
    LockLost
        Another merge or run took the output over; nothing was written since.
    CatalogError
        A catalog is not finished.
    DamagedError
        A file of a catalog is not as it was written; nothing is left of the new one.
    """
    require_places(paths, output)
    first, *others = [Source.open(path) for path in paths]
    for other in others:
        require_same_settings(first, other)
        require_same_meaning(first, other)
    sources = (first, *others)
    same_objects = have_same_objects(sources)
    if not same_objects:
        require_same_columns(first, others)
    with storage.Lock(execution.lock_of(output), notify=notify) as lock, ExitStack() as unfinished:
        # Another merge into the same folder may have ended since the first look.
        require_free(output)
        storage.check_writable(output)
        # Objects that contradict each other and damage are found on the way: nothing is left of a merge that is refused.
        unfinished.callback(_remove_held, output, lock)
        with storage.guarded([lock.handle]):
            _write(sources, output, same_objects=same_objects)
        unfinished.pop_all()
    n_rows = sum(len(one.index) for one in (sources[:1] if same_objects else sources))
    without = tuple(one.path for one in sources if not one.keeps_pass_outputs)
    return Merged(n_rows, without if len(without) < len(sources) else ())


def _write(sources: Sequence[Source], output: str, *, same_objects: bool) -> None:
    """Write the leaves, pass outputs and metadata of the merged catalog."""
    index = np.sort(sources[0].index if same_objects else np.concatenate([one.index for one in sources]))
    partitions = divide(index, max_objects=MAX_OBJECTS, max_bytes=1)
    join = with_all_networks if same_objects else stacked
    bundles = {name: sha for source in sources for name, sha in source.bundles.items()}
    audits = audits_of(sources, same_objects=same_objects)
    keeps = all(one.keeps_pass_outputs for one in sources)
    if keeps:
        pass_outputs.create_groups(output, partitions)
    for number, partition in enumerate(partitions):
        table = join(sources, partition)
        division = f"{partition.name} of {partition.n_objects} objects"
        footer = _footer(sources, table, division=division, bundles=bundles)
        if keeps:
            footer[pass_outputs.FOOTER_KEY] = "kept"
            write_pass_outputs(
                output,
                partition,
                sources,
                table.column(ID.name),
                fingerprint=json.loads(footer["fingerprint"]),
            )
        # Audits are those of whole catalogs, whose division was another: they stand in the first leaf.
        catalog.write_leaf(output, partition, table, footer=footer if number else {**footer, **audits.entry})
    catalog.finish(
        output,
        partitions=partitions,
        properties=_properties(sources, len(index), keeps_pass_outputs=keeps),
        n_rows_expected=len(index),
        footers=execution.AuditSum(),
    )


def _remove_held(output: str, lock: storage.Lock) -> None:
    """Remove the unfinished catalog at `output`, unless another process has taken it over."""
    if lock.is_lost:
        return
    for path in entries_of(output):
        storage.remove(path)
    for folder in (output, pass_outputs.pass_outputs_path(output)):
        storage.remove_if_empty(folder)


def _footer(
    sources: Sequence[Source], table: pa.Table, *, division: str, bundles: Mapping[str, str]
) -> dict[str, str]:
    """Return the footer of a merged leaf: what its rows follow from, and the networks."""
    shared = {key: value for key, value in sources[0].parts.items() if not key.startswith(FREE_PARTS)}
    networks = {
        key: value for one in sources for key, value in one.parts.items() if key.startswith("bundle ")
    }
    parts = {
        **shared,
        **networks,
        "merged": ", ".join(digest(dict(one.parts)) for one in sources),
        "division": division,
        "objects": digest(table.select([ID.name])),
    }
    return {
        "fingerprint": json.dumps(Fingerprint(parts).as_json(), sort_keys=True),
        "version": __version__,
        catalog.BUNDLES_KEY: json.dumps(bundles, sort_keys=True),
        "n_objects": str(table.num_rows),
    }


def _properties(sources: Sequence[Source], n_rows: int, *, keeps_pass_outputs: bool) -> dict[str, str]:
    """Return galbatch's properties of the merged catalog: those that all have, and from what it was merged."""
    found = [one.properties for one in sources]
    result: dict[str, str] = {}
    for properties in found:
        for key, value in properties.items():
            # Audits are added up, and each catalog has its own store and its own injected galaxies.
            if key.startswith("galbatch_") and not key.startswith(OWN):
                values = dict.fromkeys([*filter(None, result.get(key, "").split(" | ")), value])
                result[key] = " | ".join(values)
    return result | {
        "obs_collection": found[0]["obs_collection"],
        "galbatch_version": __version__,
        "galbatch_complete": "true",
        "galbatch_objects": str(n_rows),
        "galbatch_pass_outputs": str(keeps_pass_outputs).lower(),
        "galbatch_merged": ", ".join(properties["obs_collection"] for properties in found),
    }
