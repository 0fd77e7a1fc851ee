"""What bundles were trained on, and which objects are held out of it: a calibration on training objects would flatter."""

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
"""In a bundle's record: that of the bundle it was fine-tuned from, whose objects are not held out either."""


def refuse_training_seed(bundle: models.Bundle, source: DataSource, also: Sequence[str], seed: int) -> None:
    """Refuse the seed of a bundle's training: it would draw the same galaxies again, and split a store in the same way.

    Parameters
    ----------
    bundle : with its training's record
    source : of the held-out objects
    also : further populations to simulate
    seed : of the simulation, and of the split

    Raises
    ------
    UsageError
        The bundle, or a parent of it, was trained with this seed on such objects.
    """
    name = bundle.metadata.name
    for record in _training_records(bundle):
        population = record.get("population")
        if population in {source.population, *also} and record.get("simulation_seed") == seed:
            raise UsageError(
                f"--seed {seed}: {name} was trained on galaxies of population {population} with this "
                "seed; held-out ones need another"
            )
        is_same_store = source.store is not None and record.get("store") == Path(source.store).name
        if is_same_store and record.get("seed") == seed:
            raise UsageError(
                f"--seed {seed}: the training of {name} divided {record['store']} with this seed; to divide what "
                "it set aside, another is needed"
            )


def _training_records(bundle: models.Bundle) -> Iterator[Mapping[str, Any]]:
    """Yield the record of the bundle's training, of its parent's, and so on."""
    record: Mapping[str, Any] | None = bundle.metadata.training
    while record:
        yield record
        record = record.get(PARENT_RECORD)


def held_out_objects(
    data: LabeledImages, bundles: Sequence[models.Bundle]
) -> tuple[models.HeldOut, list[str]]:
    """Return the objects that no bundle was trained on, and a note for each training that used the store of `data`.

    Of a store that a bundle was trained on these are the test part of its split, which the training set aside.
    """
    held_out = models.HeldOut(
        data.images,
        data.labels,
        object_id=data.extras.object_id,
        auxiliary=data.extras.auxiliary,
        strata=data.strata,
    )
    notes = []
    # The parts of a split follow from the ids alone, so objects with other labels of the same store are left out as well.
    for bundle, record in ((trained, record) for trained in bundles for record in _training_records(trained)):
        if "store" not in data.origin or record.get("store") != data.origin["store"]:
            continue
        split = models.split_objects(
            held_out.ids,
            seed=int(record["seed"]),
            validation_share=float(record["validation_share"]),
            test_share=float(record["test_share"]),
        )
        notes.append(
            f"{bundle.metadata.name} was trained on {data.origin['store']}: of its {len(held_out)} objects the {len(split.test)} "
            "are used that the training set aside"
        )
        # What is left is split again by the next record: an object counts as held out if all trainings left it alone.
        held_out = held_out.take(split.test)
    return held_out, notes


def describe_objects(data: LabeledImages, *, is_part: bool) -> str:
    """Return what the held-out objects are, for a bundle's card.

    Parameters
    ----------
    data : of a store or of the simulation
    is_part : whether only those are used that a training set aside
    """
    origin = data.origin
    if "store" not in origin:
        return f"simulated galaxies of population {origin['population']}, seed {origin['simulation_seed']}"
    objects = f"objects of {origin['store']} with labels of {origin['labels']}"
    return f"{objects}, of those the training set aside" if is_part else objects
