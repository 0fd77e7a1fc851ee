"""The end of a run: the catalog's metadata from the leaves that exist, and the list of what failed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence

from galbatch import __version__, catalog, dashboard, storage
from galbatch.config import RunConfig
from galbatch.core.fingerprint import Fingerprint
from galbatch.errors import OutputError
from galbatch.execution import leaf
from galbatch.execution.outputs import FAILED_FILE
from galbatch.planning import ModelPlan, Plan

__all__ = ["KeptFailures", "finish", "read_failures", "record_failures"]

# Time between two writes of the file of failures.
WRITE_S = 1.0


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


class KeptFailures:
    """A sink that passes everything on to another one, and keeps the file of failures current while the run lasts.

    Parameters
    ----------
    sink : ProgressSink
    catalog_path : str

    Attributes
    ----------
    failed : dict of str
        The reasons of all failures to write, by the names of the partitions; those of earlier runs may be added.
    """

    def __init__(self, sink: dashboard.ProgressSink, catalog_path: str) -> None:
        self.start, self.advance, self.note = sink.start, sink.advance, sink.note
        self._sink = sink
        self._catalog = catalog_path
        self.failed: dict[str, str] = {}
        self._n_new = 0
        self._written_s = -WRITE_S

    def __enter__(self) -> KeptFailures:
        return self

    def __exit__(self, *_: object) -> None:
        self._written_s = -WRITE_S
        self.write_due()

    def record(self, event: dashboard.Event) -> None:
        """Pass the event on; keep it if a partition failed."""
        if event.kind == "failed" and event.partition:
            self.failed[event.partition] = f"{event.numbers['step']}: {event.numbers['reason']}"
            self._n_new += 1
            self.write_due()
        self._sink.record(event)

    def replace(self, failed: dict[str, str]) -> None:
        """Write these failures instead, at the end of a run."""
        self.failed, self._n_new, self._written_s = failed, self._n_new + 1, -WRITE_S
        self.write_due()

    def write_due(self) -> None:
        """Write the file if there are new failures, once a second at most: it is written as a whole."""
        if not self._n_new or time.monotonic() - self._written_s < WRITE_S:
            return
        self._written_s = time.monotonic()
        # A full disk is no reason to end the run: the next second tries again.
        with contextlib.suppress(OSError, OutputError):
            record_failures(self._catalog, self.failed)
            self._n_new = 0


def finish(config: RunConfig, plan: Plan) -> int:
    """Write the HATS metadata from the leaves that exist, properties last; return how many. Without leaves nothing is written."""
    # Leaves of partitions that failed do not exist: the metadata lists those that do.
    there = set(catalog.list_leaves(config.catalog.path))
    partitions = [part.partition for part in plan.partitions if part.partition.pixel in there]
    if not partitions:
        return 0
    complete = len(partitions) == len(plan.partitions)
    posterior = config.posterior
    properties = {
        "obs_collection": config.catalog.name,
        **config.catalog.stated,
        "galbatch_layouts": ", ".join(dict.fromkeys(survey.layout for survey in config.survey)),
        **_of_models(plan.models),
        "galbatch_version": __version__,
        "galbatch_complete": str(complete).lower(),
        "galbatch_objects": str(len(plan.objects)),
        "galbatch_passes": str(posterior.passes),
        "galbatch_method": posterior.method,
        "galbatch_seed": str(posterior.seed),
        "galbatch_pass_outputs": str(posterior.keep_pass_outputs).lower(),
        "galbatch_release": ", ".join(plan.tile_labels("release")),
        "galbatch_background": ", ".join(plan.tile_labels("background")),
        **(catalog.store_property(config.catalog.path, config.cutouts.store) if config.cutouts.keep else {}),
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
    return len(partitions)


def _of_models(models: Sequence[ModelPlan]) -> dict[str, str]:
    """Return the properties about each network of the run."""
    found: dict[str, str] = {}
    for model in models:
        if model.citation:
            found[catalog.model_property("citation", model.name)] = model.citation
        if model.prior:
            found[catalog.model_property("prior", model.name)] = model.prior
        found[catalog.model_property("engine", model.name)] = model.engine
        found[catalog.model_property("bundle", model.name)] = ", ".join(model.sha256)
        found |= catalog.trained_property(model.name, model.trained)
    return found
