"""Growth: what a task takes from older outputs, and by what it knows that it would be the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from galbatch import catalog, ingest, models, planning, storage
from galbatch.config import RunConfig
from galbatch.core.columns import IDENTITY, Column, parse_columns
from galbatch.core.fingerprint import PER_LEAF_PARTS, differences, shown
from galbatch.core.pixels import HealpixPixel, PixelIndex
from galbatch.core.types import CutoutSpec
from galbatch.errors import ConfigError, DamagedError

if TYPE_CHECKING:
    from galbatch.execution.tasks import GridTask, InferTask, IngestTask
    from galbatch.planning import Base, ModelPlan, Plan

__all__ = ["base_notes", "base_of", "base_rows", "columns_of", "identity_of_rows", "stored_cutouts"]


def base_of(config: RunConfig) -> Base:
    """Return the older outputs that a run takes from, as they are now.

    Raises
    ------
    ConfigError
        There is no such output, it is the one that the run writes, or it is of a version that does not tell from what its
        values follow.
    """
    store, older = config.cutouts.base, config.catalog.base
    groups = _groups(store, config.cutouts.store) if store else []
    leaves = _leaves(older, config.catalog.path) if older else []
    return planning.Base(store or "", PixelIndex(groups), older or "", PixelIndex(leaves))


def _groups(store: str, own: str) -> list[HealpixPixel]:
    if storage.absolute(store) == storage.absolute(own):
        raise ConfigError(
            f"run.toml: [cutouts] base and store are both {store}; the base is not changed: give store another path"
        )
    pixels = sorted({pixel for pixel, _ in ingest.list_done(store)})
    if not pixels:
        raise ConfigError(
            f"run.toml: [cutouts] base: {store}: no cutouts there; give the store of an older run, or leave base out"
        )
    return pixels


def _leaves(older: str, own: str) -> list[HealpixPixel]:
    if storage.absolute(older) == storage.absolute(own):
        raise ConfigError(
            f"run.toml: [catalog] base and path are both {older}; the base is not changed: give path another name"
        )
    leaves = catalog.list_leaves(older)
    if not leaves:
        raise ConfigError(
            f"run.toml: [catalog] base: {older}: no leaf of a catalog there; give the folder that holds dataset/, or leave base out"
        )
    names = catalog.read_schema(older).names
    if not any(key == IDENTITY for _, key in parse_columns(names).values()):
        raise ConfigError(
            f"run.toml: [catalog] base: {older}: has no column that tells from what its values follow, such as "
            f"{IDENTITY.name('gampen')}; it is of an older version, whose values cannot be taken: leave base out"
        )
    return leaves


def base_notes(plan: Plan) -> list[str]:
    """Return human-readable lines on what the run and its base have in common, read from one leaf of the base."""
    base = plan.base
    for part in plan.partitions:
        for pixel in base.leaves.overlapping(part.partition):
            try:
                footer = catalog.read_footer(base.catalog, pixel) or {}
            except DamagedError:
                continue
            parts = json.loads(footer.get("fingerprint", "{}")).get("parts", {})
            told = [
                f"{what}: {shown(old)} there, {shown(new)} here"
                for what, old, new in differences(*_parts_in_common(parts, part.leaf.parts))
            ]
            known = f"base {base.catalog}: values and cutouts are taken from it where they would be the same; a plan's times and bytes are those without it"
            return [known, *([f"base {base.catalog}: {'; '.join(told)}"] if told else [])]
    return []


def _parts_in_common(
    there: Mapping[str, str], here: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the parts of two fingerprints without those of one partition, and of networks that only one of the two has."""
    networks = [
        {key.removeprefix("bundle ") for key in parts if key.startswith("bundle ")} for parts in (there, here)
    ]
    single = networks[0] ^ networks[1]
    before, now = (
        {
            key: value
            for key, value in parts.items()
            if key not in PER_LEAF_PARTS and key.rpartition(" ")[2] not in single
        }
        for parts in (there, here)
    )
    return before, now


def stored_cutouts(task: IngestTask, grid: GridTask) -> ingest.BaseCutouts | None:
    """Return the cutouts of a task's objects on a grid that are in the base; None without a base here."""
    if task.base is None or not len(grid.rows):
        return None
    objects = task.objects.take(grid.rows)
    spec = CutoutSpec(grid.grid, grid.bands, task.resampling, grid.settings)
    return ingest.BaseCutouts(
        task.base,
        objects,
        ingest.possible_keys(objects, task.tiles, spec=spec),
        spec=spec,
        planes=task.planes,
        thresholds=task.fingerprint.parts.get(planning.FLAG_THRESHOLDS),
    )


def columns_of(task: InferTask, model: ModelPlan, ensemble: models.Ensemble) -> Sequence[Column]:
    """Return the columns that a network fills, in the order of the leaf."""
    return models.network_columns(ensemble, name=model.model, quantiles=task.posterior.quantiles)


def base_rows(task: InferTask, model: ModelPlan, ensemble: models.Ensemble) -> catalog.BaseRows | None:
    """Return the rows of a network in the base, for the task's objects; None without a base here."""
    if task.base is None:
        return None
    return catalog.BaseRows(
        task.base,
        task.partition,
        task.objects.object_id,
        network=model.name,
        columns=columns_of(task, model, ensemble),
        with_pass_outputs=task.posterior.keep_pass_outputs,
    )


def identity_of_rows(
    settings: str,
    object_id: npt.NDArray[Any],
    pixel_digest: npt.NDArray[np.int64],
    auxiliary: npt.NDArray[np.float32] | None,
) -> npt.NDArray[np.int64]:
    """Return what the values of a network for each object follow from, as a digest, (object,) int64; none is 0.

    Parameters
    ----------
    settings : str
        Digest of the network's bundles, engine and settings.
    object_id : (object,) int64 or str
        The draws follow from the id.
    pixel_digest : (object, band) int64
        Digests of the pixels, in the network's bands and their order.
    auxiliary : (object, number) float32, or None
    """
    common = hashlib.sha256(settings.encode())
    result = np.empty(len(object_id), np.int64)
    for row, (one_id, pixels) in enumerate(zip(object_id.tolist(), pixel_digest, strict=True)):
        found = common.copy()
        found.update(f"{type(one_id).__name__} {one_id} ".encode())
        found.update(np.ascontiguousarray(pixels).tobytes())
        if auxiliary is not None:
            found.update(np.ascontiguousarray(auxiliary[row]).tobytes())
        # 0 stands for no identity.
        result[row] = int.from_bytes(found.digest()[:8], "little", signed=True) or 1
    return result
