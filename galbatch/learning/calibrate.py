"""Calibration of a bundle on held-out objects; the result is a bundle with its model card."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from galbatch import models, simulation, storage
from galbatch.errors import UsageError
from galbatch.learning.further_columns import with_further_columns
from galbatch.learning.held_out import describe_objects, held_out_objects, refuse_training_seed
from galbatch.learning.progress import calibration_progress, line_printer
from galbatch.learning.second_opinion import measure_disagreement
from galbatch.learning.several_grids import open_for_bundle
from galbatch.learning.sources import DataSource, grid_settings, simulate_labeled
from galbatch.learning.stopping import measure_stopping

__all__ = ["CalibratedBundle", "CalibrationTask", "calibrate_bundle", "prepare_calibration"]

# Half of the objects choose the inflation factors: with 2,000 a factor is known to about 2 %, with 100 to 10 %.
DEFAULT_OBJECTS = 4000


@dataclass(frozen=True)
class CalibrationTask:
    """A calibration whose arguments were checked, as far as that needs no data.

    Attributes
    ----------
    bundles : the candidates, of which the best is calibrated
    output : path of the bundle to write
    source : where the held-out objects come from
    settings : settings of the calibration
    compared : other bundles, whose residuals on the test part are shown
    also : further simulated populations on which the bundle is tested
    """

    bundles: tuple[models.Bundle, ...]
    output: Path
    source: DataSource
    settings: models.CalibrationSettings
    compared: tuple[models.Bundle, ...] = ()
    also: tuple[str, ...] = ()

    def count_runs(self, held_out: models.HeldOut, comparison: models.Comparison) -> int:
        """Return the number of objects that the networks are run on, for the progress bar.

        Each candidate is run on the calibration part; the chosen one and each compared bundle on the test part.
        """
        # A bundle is a candidate of its own at each dropout rate to try.
        n_candidates = len(self.bundles) * max(1, len(self.settings.dropout_rates))
        choosing, test = held_out.split(seed=self.settings.seed, share=self.settings.share)
        others = sum(map(len, comparison.populations.values()))
        return len(choosing) * n_candidates + len(test) * (1 + len(comparison.bundles)) + others


@dataclass(frozen=True)
class CalibratedBundle:
    """A calibrated bundle that was written.

    Attributes
    ----------
    calibration : the chosen dropout rate and factors, the measured coverage, and the bundle's metadata
    sha256 : sha256 of the file
    card : path of its model card
    figure : path for the figure of its coverage, which is not drawn here
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
    """Return a calibration whose arguments were checked; nothing is started.

    Parameters
    ----------
    bundles : sequence of str
        Paths of the candidates, or demo:gampen, demo:sfnet.
    output : Path
        The bundle to write.
    source : DataSource
        Where the held-out objects come from: a store, or a population to simulate.
    settings : CalibrationSettings
    compare_with : sequence of str
        Other bundles with the same parameters, whose residuals on the same objects are shown.
    also : sequence of str
        Further populations to simulate, on which the calibrated bundle is tested. They choose nothing.

    Returns
    -------
    CalibrationTask

    Raises
    ------
    UsageError
        Arguments contradict each other, there is nothing to calibrate, or the output cannot be written.
    """
    # Everything that can be wrong is found now: simulating and running the objects takes many minutes.
    if output.suffix != ".pt":
        raise UsageError(f"-o {output}: a bundle's name ends in .pt")
    candidates = tuple(models.load_bundle(models.bundle_path(path)) for path in bundles)
    source.further.check(source.labels)
    _check_source(source, takes_pixels=candidates[0].metadata.input.takes_pixels)
    if candidates[0].metadata.input.more_grids and (source.population is not None or also):
        raise UsageError(
            f"{candidates[0].metadata.name}: takes cutouts on several grids, which the simulation does not draw; give --store and --labels"
        )
    for rate in settings.dropout_rates:
        if not 0 <= rate < 1:
            raise UsageError(f"--dropout {rate:g}: a rate lies in [0, 1)")
    models.check_candidates(candidates, settings.dropout_rates)
    compared = tuple(models.load_bundle(models.bundle_path(path)) for path in compare_with)
    # All candidates have the same parameters by now, so the first stands for them.
    models.check_candidates((*candidates[:1], *compared))
    for population in also:
        simulation.require_population(population)
    if source.population in also:
        raise UsageError(f"--also {source.population}: is the population of --simulate; name another one")
    for bundle in (*candidates, *compared):
        refuse_training_seed(bundle, source, also, settings.seed)
    storage.check_writable(str(output.resolve().parent))
    return CalibrationTask(candidates, output, source, settings, compared, tuple(also))


def _check_source(source: DataSource, *, takes_pixels: bool) -> None:
    if source.is_simulated == (source.population is None):
        tables = "--store and --labels" if takes_pixels else "--labels"
        raise UsageError(
            f"models calibrate: state where held-out objects come from: --simulate paper or survey, or {tables}"
        )
    if source.population is None:
        source.check(takes_pixels=takes_pixels)
    elif not takes_pixels:
        raise UsageError("--simulate: a network that takes columns alone is calibrated with --labels")
    if not source.is_simulated and source.objects is not None:
        raise UsageError("--objects is of the simulation; with --labels all objects with labels are used")


def calibrate_bundle(task: CalibrationTask, *, console: Console | None = None) -> CalibratedBundle:
    """Choose dropout rate and inflation factors on held-out objects, and write the calibrated bundle and its card.

    Parameters
    ----------
    task : CalibrationTask
        The result of `prepare_calibration`.
    console : Console or None
        Shows the progress. None shows nothing.

    Returns
    -------
    CalibratedBundle

    Raises
    ------
    UsageError
        There are too few held-out objects, or the data do not fit the bundle.
    """
    console = console or Console(quiet=True)
    found = _Calibrating(task, console).run()
    sha256 = models.save_bundle(str(task.output), found.choice.bundle.script, found.metadata)
    card = task.output.with_suffix(".md")
    card.write_text(models.card_text(found.metadata, sha256), encoding="utf-8")
    # OUT.png is the name of a training's curve, which may exist already.
    figure = task.output.with_name(f"{task.output.stem}_calibration.png")
    return CalibratedBundle(found, sha256, card, figure)


class _Calibrating:
    """One calibration while it runs."""

    def __init__(self, task: CalibrationTask, console: Console) -> None:
        self._task = task
        self._console = console
        self._notify = line_printer(console)
        self._input = grid_settings(task.bundles[0].metadata)[0]

    def run(self) -> models.Calibration:
        """Read the held-out objects, choose on one half of them, and measure on the other."""
        task = self._task
        n_objects = task.source.objects or DEFAULT_OBJECTS
        recipe = self._recipe(task.source.population or "", n_objects)
        data = open_for_bundle(task.source, recipe, task.bundles[0].metadata, notify=self._notify)
        held_out, notes = held_out_objects(data, (*task.bundles, *task.compared))
        for note in notes:
            self._notify(note)
        if task.source.labels:
            held_out = with_further_columns(
                held_out,
                task.source.further,
                tables=task.source.tables,
                id_column=task.source.id_column,
            )
        described = describe_objects(data, is_part=bool(notes))
        settings = dataclasses.replace(task.settings, data=described)
        others = {}
        for population in task.also:
            # As many galaxies as the test part has: half of the held-out ones.
            drawn = simulate_labeled(
                self._recipe(population, n_objects // 2), self._input, notify=self._notify
            )
            others[f"Galaxies of population {population}"], _ = held_out_objects(drawn, ())
        comparison = models.Comparison(others, task.compared)
        n_runs = task.count_runs(held_out, comparison)
        with calibration_progress(self._console, n_runs) as progress:
            found = models.calibrate(
                task.bundles, held_out, settings, comparison=comparison, progress=progress
            )
        found = self._with_stopping(_with_prior(found, held_out, described), held_out, described)
        return self._with_disagreement(found, held_out, described)

    def _with_disagreement(
        self, found: models.Calibration, held_out: models.HeldOut, described: str
    ) -> models.Calibration:
        """Return the calibration with the relation of the calibrated network's estimates to the photometry."""
        calibrated = dataclasses.replace(found.choice.bundle, metadata=found.metadata)
        seed = self._task.settings.seed
        disagreement = measure_disagreement(
            calibrated, held_out, seed=seed, data=described, notify=self._notify
        )
        return dataclasses.replace(
            found, metadata=dataclasses.replace(found.metadata, disagreement=disagreement)
        )

    def _with_stopping(
        self, found: models.Calibration, held_out: models.HeldOut, described: str
    ) -> models.Calibration:
        """Return the calibration with that of stopping, from the part of the objects that chose."""
        settings = self._task.settings
        choosing, _ = held_out.split(seed=settings.seed, share=settings.share)
        stopping = measure_stopping(
            found.choice.bundle,
            choosing,
            models.StoppingSettings(seed=settings.passes.seed, data=described),
            console=self._console,
        )
        return dataclasses.replace(found, metadata=dataclasses.replace(found.metadata, stopping=stopping))

    def _recipe(self, population: str, n_objects: int) -> models.Recipe:
        seed = self._task.settings.seed
        return models.Recipe(self._input, n_objects=n_objects, population=population, seed=seed)


def _with_prior(found: models.Calibration, held_out: models.HeldOut, described: str) -> models.Calibration:
    """Return the calibration with a prior of the held-out objects' labels, where the bundle has none of its training."""
    metadata = found.metadata
    # The shipped bundles' priors lie beside them, under the hash of a file that the calibrated bundle does not have.
    prior = models.prior_of(metadata, found.choice.bundle.sha256) or models.estimate_prior(
        held_out.labels, metadata.parameters, source="calibration", data=described
    )
    return dataclasses.replace(found, metadata=dataclasses.replace(metadata, prior=prior))
