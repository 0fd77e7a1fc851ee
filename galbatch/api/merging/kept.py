"""Pass outputs and audits of adaptive passes, which a merged catalog has beside its rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galbatch import catalog, execution
from galbatch.api.merging.sources import Source
from galbatch.catalog import pass_outputs
from galbatch.core.pixels import Partition
from galbatch.core.types import BLOCK_OBJECTS, places_of

__all__ = ["audits_of", "write_pass_outputs"]


def audits_of(sources: Sequence[Source], *, same_objects: bool) -> execution.AuditSum:
    """Return the audits of all catalogs, added up; a network that several catalogs have of the same objects counts once."""
    result, known = execution.AuditSum(), set[str]()
    for one in sources:
        for pixel in one.leaves:
            result.add(catalog.read_footer(one.path, pixel) or {}, without=known)
        known |= set(one.bundles) if same_objects else set()
    return result


def write_pass_outputs(
    output: str,
    partition: Partition,
    sources: Sequence[Source],
    ids: pa.ChunkedArray,
    *,
    fingerprint: Mapping[str, Any],
) -> None:
    """Write the pass outputs of every network for a partition of the merged catalog at `output`.

    Parameters
    ----------
    sources : the catalogs, all of which kept theirs
    ids : (object,) int64 or str, the partition's objects in the order of its leaf
    fingerprint : that of the leaf, as JSON

    Raises
    ------
    DamagedError, FingerprintError
        As `galbatch.catalog.pass_outputs.open_pass_outputs`.
    """
    object_id = np.array(ids.to_pylist(), object) if ids.type == pa.string() else ids.to_numpy()
    for network in dict.fromkeys(name for one in sources for name in one.bundles):
        groups = [
            group for one in sources if network in one.bundles for group in _groups(one, network, partition)
        ]
        origin = groups[0].origin
        writer = pass_outputs.PassOutputsWriter(
            output, partition, origin, object_id=object_id, n_outputs=groups[0].n_outputs
        )
        for start in range(0, len(object_id), BLOCK_OBJECTS):
            found: dict[int, tuple[npt.NDArray[np.float32], ...]] = {}
            for group in groups:
                places = places_of(object_id[start : start + BLOCK_OBJECTS], group.object_id)
                (rows,) = np.nonzero(places >= 0)
                # A network that several catalogs have gave the same outputs in each: its values were compared.
                found |= zip((start + rows).tolist(), group.outputs_at(places[rows]), strict=True)
            for row in sorted(found):
                writer.append(row, found[row])
        writer.finish(fingerprint)


def _groups(one: Source, network: str, partition: Partition) -> list[pass_outputs.PassOutputs]:
    """Return the pass outputs of a network in the leaves of a catalog that share sky with a partition."""
    found = []
    for leaf in one.leaves.overlapping(partition):
        footer = catalog.read_footer(one.path, leaf) or {}
        fingerprint = json.loads(footer["fingerprint"])
        found.append(pass_outputs.open_pass_outputs(one.path, leaf, network, fingerprint=fingerprint))
    return found
