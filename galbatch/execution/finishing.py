"""The end of a run: the catalog's metadata from the leaves that exist, and the list of what failed."""

from __future__ import annotations

from collections.abc import Mapping

from galbatch import __version__, catalog, storage
from galbatch.config import RunConfig
from galbatch.core.fingerprint import Fingerprint
from galbatch.errors import OutputError
from galbatch.execution import leaf
from galbatch.execution.outputs import FAILED_FILE
from galbatch.planning import Plan

__all__ = ["finish", "read_failures", "record_failures"]


def record_failures(catalog_path: str, failed: Mapping[str, str]) -> None:
    """Replace the file that lists the partitions that failed with their reasons; remove it if none failed."""
    path = storage.join(catalog_path, FAILED_FILE)
    if failed:
        storage.publish_json(path, dict(failed))
    else:
        storage.remove(path)


def read_failures(catalog_path: str) -> dict[str, str]:
    """Return the reasons of the partitions that failed in the last run, by their names; empty if the file is damaged."""
    try:
        return storage.read_json(storage.join(catalog_path, FAILED_FILE)) or {}
    except OutputError:
        # The partitions are left to do in any case, as the outputs say.
        return {}


def finish(config: RunConfig, plan: Plan) -> bool:
    """Write the HATS metadata from the leaves that exist, properties last; return whether the catalog is complete."""
    # Leaves of partitions that failed do not exist: the metadata lists those that do.
    there = set(catalog.list_leaves(config.catalog.path))
    partitions = [part.partition for part in plan.partitions if part.partition.pixel in there]
    complete = len(partitions) == len(plan.partitions)
    if not partitions:
        return complete
    posterior = config.posterior
    properties = {
        "obs_collection": config.catalog.name,
        "galbatch_version": __version__,
        "galbatch_complete": str(complete).lower(),
        "galbatch_objects": str(len(plan.objects)),
        **{catalog.model_property("engine", model.name): model.engine for model in plan.models},
        "galbatch_passes": str(posterior.passes),
        "galbatch_method": posterior.method,
        "galbatch_seed": str(posterior.seed),
        "galbatch_pass_outputs": str(posterior.keep_pass_outputs).lower(),
        **{catalog.model_property("bundle", model.name): ", ".join(model.sha256) for model in plan.models},
        "galbatch_release": ", ".join(plan.tile_labels("release")),
        "galbatch_background": ", ".join(plan.tile_labels("background")),
        # The fingerprint of the whole catalog is made from those of its leaves.
        "galbatch_fingerprint": Fingerprint(
            {p.partition.name: p.leaf.digest for p in plan.partitions}
        ).digest,
    }
    catalog.finish(
        config.catalog.path,
        partitions=partitions,
        properties=properties,
        n_rows_expected=sum(partition.n_objects for partition in partitions),
        footers=leaf.AuditSum(),
    )
    return complete
