"""Calibrate a bundle: held-out objects in, a bundle with its card out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from galbatch import models, simulation, storage
from galbatch.errors import UsageError
from galbatch.learning.held_out import describe_objects, held_out_objects, refuse_training_seed
from galbatch.learning.progress import calibration_progress, line_printer
from galbatch.learning.sources import DataSource, open_source, simulate_labeled

__all__ = ["CalibratedBundle", "CalibrationTask", "calibrate_bundle", "prepare_calibration"]

# Half of them choose: with 2,000 objects a factor is known to about 2 %, with 100 to 10 %.
DEFAULT_OBJECTS = 4000


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

    def count_runs(self, held_out: models.HeldOut, comparison: models.Comparison) -> int:
        """Return the number of objects to run.

        The calibration part is run for each candidate, the test part once, and once for each compared bundle.
        """
        n_candidates = len(self.bundles) * max(1, len(self.settings.dropout_rates))
        choosing, test = held_out.split(seed=self.settings.seed, share=self.settings.share)
        others = sum(map(len, comparison.populations.values()))
        return len(choosing) * n_candidates + len(test) * (1 + len(comparison.bundles)) + others


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
        refuse_training_seed(bundle, source, also, settings.seed)
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
        self._notify = line_printer(console)
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
            held_out, notes = held_out_objects(data, (*task.bundles, *task.compared))
            for note in notes:
                self._notify(note)
            described = describe_objects(data, is_part=bool(notes))
            settings = dataclasses.replace(task.settings, data=described)
            others = {}
            for population in task.also:
                # About as many galaxies as the test part of the held-out ones has.
                drawn = simulate_labeled(
                    self._recipe(population, n_objects // 2), self._input, notify=self._notify
                )
                others[f"Galaxies of population {population}"], _ = held_out_objects(drawn, ())
            comparison = models.Comparison(others, task.compared)
            n_runs = task.count_runs(held_out, comparison)
            with calibration_progress(self._console, n_runs) as progress:
                return models.calibrate(
                    task.bundles, held_out, settings, comparison=comparison, progress=progress
                )

    def _recipe(self, population: str, n_objects: int) -> models.Recipe:
        seed = self._task.settings.seed
        return models.Recipe(self._input, n_objects=n_objects, population=population, seed=seed)
