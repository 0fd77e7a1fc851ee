"""The objects that no training has used. A calibration on training objects would find errors that are too small."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from galbatch import models
from galbatch.errors import UsageError
from galbatch.learning.labeled import LabeledImages
from galbatch.learning.sources import DataSource

__all__ = ["PARENT_RECORD", "describe_objects", "held_out_objects", "refuse_training_seed"]

PARENT_RECORD = "parent_training"
"""Key in the training record of a bundle that was fine-tuned: the training record of its parent bundle."""


def refuse_training_seed(bundle: models.Bundle, source: DataSource, also: Sequence[str], seed: int) -> None:
    """Raise an error if a calibration has the seed of a bundle's training.

    With the same seed the simulation draws the training galaxies again, and a store is divided as it was for the training.

    Parameters
    ----------
    bundle : Bundle
        The bundle, whose metadata have the record of its training.
    source : DataSource
        Where the held-out objects come from.
    also : sequence of str
        Further populations to simulate.
    seed : int
        Seed of the simulation and of the split into two parts.

    Raises
    ------
    UsageError
        The bundle or one of its parents was trained with this seed on such objects.
    """
    name = bundle.metadata.name
    for record in _training_records(bundle):
        population = record.get("population")
        if population in {source.population, *also} and record.get("simulation_seed") == seed:
            raise UsageError(
                f"--seed {seed}: {name} was trained on galaxies of population {population} with this "
                "seed; held-out ones need another"
            )
        # Stores and tables are compared by name: their paths differ between machines.
        origin = (
            {"store": Path(source.store).name} if source.store else {"tables": source.label_sources.names}
        )
        if (shared := _shared_name(record, origin)) and record.get("seed") == seed:
            raise UsageError(
                f"--seed {seed}: the training of {name} divided {shared} with this seed; to divide what "
                "it set aside, another is needed"
            )


def _shared_name(record: Mapping[str, Any], origin: Mapping[str, Any]) -> str:
    """Return the name of a store or table that a training and other data have in common; "" if there is none.

    A store is what objects have in common, whichever table has their labels; without one it is any of the tables.
    """
    if "store" in origin:
        return str(origin["store"]) if record.get("store") == origin["store"] else ""
    return next((name for name in origin.get("tables", ()) if name in record.get("tables", ())), "")


def _training_records(bundle: models.Bundle) -> Iterator[Mapping[str, Any]]:
    """Yield the training record of a bundle, of its parent, of the parent's parent, and so on."""
    record: Mapping[str, Any] | None = bundle.metadata.training
    while record:
        yield record
        record = record.get(PARENT_RECORD)


def held_out_objects(
    data: LabeledImages, bundles: Sequence[models.Bundle]
) -> tuple[models.HeldOut, list[str]]:
    """Return the objects that no bundle was trained on, and a note for each training that used the store or a table of `data`.

    From data that a bundle was trained on, only the test part of the training's split is taken, which was set aside.
    """
    held_out = models.HeldOut(
        data.images,
        data.labels,
        object_id=data.extras.object_id,
        auxiliary=data.extras.auxiliary,
        strata=data.strata,
    )
    notes = []
    # A split follows from seed and ids alone, so the test part is found again, whichever labels the objects have now.
    for bundle, record in ((trained, record) for trained in bundles for record in _training_records(trained)):
        if not (shared := _shared_name(record, data.origin)):
            continue
        split = models.split_objects(
            held_out.ids,
            seed=int(record["seed"]),
            validation_share=float(record["validation_share"]),
            test_share=float(record["test_share"]),
        )
        notes.append(
            f"{bundle.metadata.name} was trained on {shared}: of its {len(held_out)} objects the {len(split.test)} "
            "are used that the training set aside"
        )
        # The next record splits what is left: an object is held out only if every training set it aside.
        held_out = held_out.take(split.test)
    return held_out, notes


def describe_objects(data: LabeledImages, *, is_part: bool) -> str:
    """Return a description of the held-out objects for a bundle's model card.

    Parameters
    ----------
    data : LabeledImages
    is_part : bool
        Whether only the objects are used that a training set aside.
    """
    origin = data.origin
    if "population" in origin:
        return f"simulated galaxies of population {origin['population']}, seed {origin['simulation_seed']}"
    objects = f"objects of {origin.get('store') or ', '.join(origin['tables'])}"
    if "labels" in origin:
        objects += f" with labels of {origin['labels']}"
    return f"{objects}, of those the training set aside" if is_part else objects
