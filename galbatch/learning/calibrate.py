"""Calibrate a bundle: held-out objects in, a bundle with its card out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from galbatch import models, simulation, storage
from galbatch.errors import UsageError
from galbatch.learning.labeled import LabeledImages
from galbatch.learning.progress import calibration_progress
from galbatch.learning.sources import DataSource, open_source, simulate_labeled
from galbatch.learning.train import PARENT_RECORD

__all__ = ["CalibratedBundle", "CalibrationTask", "calibrate_bundle", "prepare_calibration"]

DEFAULT_OBJECTS = 4000  # simulated, of which half choose and half are reported


@dataclass(frozen=True)
class CalibrationTask:
    """A calibration that was checked as far as it can be without data.

    Attributes
    ----------
    bundles : candidates
    output : the bundle to write
    source : of the held-out objects
    settings : of the calibration
    compared : other bundles, for their residuals on the test part
    also : populations to simulate that the bundle is shown on as well
    """

    bundles: tuple[models.Bundle, ...]
    output: Path
    source: DataSource
    settings: models.CalibrationSettings
    compared: tuple[models.Bundle, ...] = ()
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class CalibratedBundle:
    """A calibrated bundle that was written.

    Attributes
    ----------
    calibration : what was chosen and found, with the bundle's metadata
    sha256 : of the file
    card : file of its card
    figure : where the figure of its coverage goes, for those who draw it
    """

    calibration: models.Calibration
    sha256: str
    card: Path
    figure: Path


def prepare_calibration(
    bundles: Sequence[str],
    output: Path,
    *,
    source: DataSource,
    settings: models.CalibrationSettings,
    compare_with: Sequence[str] = (),
    also: Sequence[str] = (),
) -> CalibrationTask:
    """Check a calibration before anything is started.

    Parameters
    ----------
    bundles : files, or demo:gampen, demo:sfnet
    output : the bundle to write
    source : of the held-out objects; without a store the simulation's population is named
    settings : of the calibration
    compare_with : other bundles of the same parameters, for their residuals on the same objects
    also : populations to simulate that the bundle is shown on as well; they choose nothing

    Raises
    ------
    UsageError
        Arguments contradict each other, there is nothing to calibrate, or the output cannot be written.
    """
    if output.suffix != ".pt":
        raise UsageError(f"-o {output}: a bundle's name ends in .pt")
    _check_source(source)
    for rate in settings.dropout_rates:
        if not 0 <= rate < 1:
            raise UsageError(f"--dropout {rate:g}: a rate lies in [0, 1)")
    candidates = tuple(models.load_bundle(models.bundle_path(path)) for path in bundles)
    models.check_candidates(candidates, settings.dropout_rates)
    compared = tuple(models.load_bundle(models.bundle_path(path)) for path in compare_with)
    models.check_candidates((*candidates[:1], *compared))
    for population in also:
        simulation.require_population(population)
    if source.population in also:
        raise UsageError(f"--also {source.population}: is the population of --simulate; name another one")
    for bundle in (*candidates, *compared):
        _refuse_training_seed(bundle, source, also, settings.seed)
    storage.check_writable(str(output.resolve().parent))
    return CalibrationTask(candidates, output, source, settings, compared, tuple(also))


def _check_source(source: DataSource) -> None:
    source.check()
    if (source.store is None) == (source.population is None):
        raise UsageError(
            "models calibrate: state where held-out objects come from: --simulate paper or survey, or --store and --labels"
        )
    if source.store is not None and source.objects is not None:
        raise UsageError("--objects is of the simulation; with --store all objects with labels are used")


def _refuse_training_seed(bundle: models.Bundle, source: DataSource, also: Sequence[str], seed: int) -> None:
    """Refuse the seed of the bundle's training: it would draw the same galaxies again, and split a store in the same way."""
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


def calibrate_bundle(task: CalibrationTask, *, console: Console | None = None) -> CalibratedBundle:
    """Get the held-out objects of a task, choose dropout rate and correction, and write the bundle.

    Parameters
    ----------
    task : as `prepare_calibration` made it
    console : shows how it goes; None: nothing is shown

    Raises
    ------
    UsageError
        Held-out objects are too few, or the data do not fit the bundle.
    """
    console = console or Console(quiet=True)
    found = _Calibrating(task, console).run()
    sha256 = models.save_bundle(str(task.output), found.choice.bundle.script, found.metadata)
    card = task.output.with_suffix(".md")
    card.write_text(models.card_text(found.metadata, sha256), encoding="utf-8")
    # OUT.png is the name of a training curve, which may be there.
    figure = task.output.with_name(f"{task.output.stem}_calibration.png")
    return CalibratedBundle(found, sha256, card, figure)


class _Calibrating:
    """One calibration while it runs."""

    def __init__(self, task: CalibrationTask, console: Console) -> None:
        metadata = task.bundles[0].metadata
        self._task = task
        self._console = console
        self._input = models.TrainingSettings(
            name=metadata.name,
            architecture="gampen",  # not looked at: only what the networks take and say matters
            bands=metadata.input.bands,
            parameters=metadata.parameters,
            size_px=metadata.input.size_px,
            pixel_scale_arcsec=metadata.input.pixel_scale_arcsec,
            auxiliary_inputs=metadata.input.auxiliary_inputs,
        )

    def run(self) -> models.Calibration:
        """Get the data, choose, and measure."""
        task = self._task
        n_objects = task.source.objects or DEFAULT_OBJECTS
        recipe = self._recipe(task.source.population or "", n_objects)
        with open_source(task.source, recipe, self._input, output=task.output, notify=self._notify) as data:
            held_out, notes = _set_aside(data, (*task.bundles, *task.compared))
            for note in notes:
                self._notify(note)
            settings = dataclasses.replace(task.settings, data=self._describe(data, is_part=bool(notes)))
            comparison = models.Comparison(self._other_populations(n_objects // 2), task.compared)
            n_runs = _count_runs(task, held_out, comparison)
            with calibration_progress(self._console, n_runs) as progress:
                return models.calibrate(
                    task.bundles, held_out, settings, comparison=comparison, progress=progress
                )

    def _notify(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _recipe(self, population: str, n_objects: int) -> models.Recipe:
        seed = self._task.settings.seed
        return models.Recipe(self._input, n_objects=n_objects, population=population, seed=seed)

    def _other_populations(self, n_objects: int) -> dict[str, models.HeldOut]:
        """Draw galaxies of the other populations, about as many of each as the test part of the first has."""
        drawn = {}
        for population in self._task.also:
            self._notify(f"simulating {n_objects} galaxies of population {population}")
            data = simulate_labeled(self._recipe(population, n_objects), self._input)
            drawn[f"Galaxies of population {population}"] = models.HeldOut(
                data.images, data.labels, strata=data.strata
            )
        return drawn

    def _describe(self, data: LabeledImages, *, is_part: bool) -> str:
        """Return what the held-out objects are, for the card."""
        source, seed = self._task.source, self._task.settings.seed
        if source.store is None:
            return f"simulated galaxies of population {source.population}, seed {seed}"
        objects = f"objects of {data.origin['store']} with labels of {data.origin['labels']}"
        return f"{objects}, of those the training set aside" if is_part else objects


def _set_aside(data: LabeledImages, bundles: Sequence[models.Bundle]) -> tuple[models.HeldOut, list[str]]:
    """Return the objects that no bundle was trained on, and a note for each training that used the store of `data`."""
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
        held_out = held_out.take(split.test)
    return held_out, notes


def _count_runs(task: CalibrationTask, held_out: models.HeldOut, comparison: models.Comparison) -> int:
    """Return the number of objects to run.

    The calibration part is run for each candidate, the test part once, and once for each compared bundle.
    """
    n_candidates = len(task.bundles) * max(1, len(task.settings.dropout_rates))
    choosing, test = held_out.split(seed=task.settings.seed, share=task.settings.share)
    others = sum(map(len, comparison.populations.values()))
    return len(choosing) * n_candidates + len(test) * (1 + len(comparison.bundles)) + others
