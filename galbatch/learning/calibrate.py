"""Calibrate a bundle: held-out objects in, a bundle with its card and a figure out. Joins simulation or store with models."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from galbatch import models, reporting, simulation, storage
from galbatch.errors import UsageError
from galbatch.learning import train as fit
from galbatch.learning.labeled import Labelled, open_labelled

__all__ = ["CalibrationTask", "Written", "calibrate_bundle", "prepare"]

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
    rivals : other bundles, for their residuals on the test part
    also : populations to simulate that the bundle is shown on as well
    """

    bundles: tuple[models.Bundle, ...]
    output: Path
    source: fit.Source
    settings: models.CalibrationSettings
    rivals: tuple[models.Bundle, ...] = ()
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    """A calibrated bundle: what was found, its sha256, and the files beside it."""

    calibration: models.Calibration
    sha256: str
    card: Path
    figure: Path


def prepare(
    bundles: Sequence[str],
    output: Path,
    *,
    source: fit.Source,
    settings: models.CalibrationSettings,
    beside: Sequence[str] = (),
    also: Sequence[str] = (),
) -> CalibrationTask:
    """Check what a calibration was asked for, before anything is started.

    Parameters
    ----------
    bundles : files, or demo:gampen, demo:sfnet
    source : without a store the simulation's population is named
    beside : other bundles of the same parameters, for their residuals on the same objects
    also : populations to simulate that the bundle is shown on as well; they choose nothing

    Raises
    ------
    UsageError
        Arguments contradict each other, there is nothing to calibrate, or the output cannot be written.
    """
    if output.suffix != ".pt":
        raise UsageError(f"-o {output}: a bundle's name ends in .pt")
    if (source.store is None) != (source.labels is None):
        raise UsageError("--store and --labels go together: cutouts, and a table with their true parameters")
    if (source.store is None) == (source.population is None):
        raise UsageError(
            "models calibrate: state where held-out objects come from: --simulate paper or survey, or --store and --labels"
        )
    if source.store is not None and source.objects is not None:
        raise UsageError("--objects is of the simulation; with --store all objects with labels are used")
    for rate in settings.dropout_rates:
        if not 0 <= rate < 1:
            raise UsageError(f"--dropout {rate:g}: a rate lies in [0, 1)")
    loaded = tuple(models.load_bundle(models.bundle_path(path)) for path in bundles)
    models.check_candidates(loaded, settings.dropout_rates)
    rivals = tuple(models.load_bundle(models.bundle_path(path)) for path in beside)
    models.check_candidates((*loaded[:1], *rivals))
    for population in also:
        simulation.require_population(population)
    if source.population in also:
        raise UsageError(f"--also {source.population}: is the population of --simulate; name another one")
    for bundle in (*loaded, *rivals):
        _refuse_training_seed(bundle, source, also, settings.seed)
    storage.check_writable(str(output.resolve().parent))
    return CalibrationTask(loaded, output, source, settings, rivals, tuple(also))


def _refuse_training_seed(bundle: models.Bundle, source: fit.Source, also: Sequence[str], seed: int) -> None:
    """Galaxies drawn with the seed of the training were trained on; its split of a store is that of the same seed, too."""
    populations = {source.population, *also}
    for record in _records(bundle):
        population = record.get("population")
        if population in populations and record.get("simulation_seed") == seed:
            raise UsageError(
                f"--seed {seed}: {bundle.metadata.name} was trained on galaxies of population {population} with this "
                "seed; held-out ones need another"
            )
        if (
            source.store is not None
            and record.get("store") == Path(source.store).name
            and record.get("seed") == seed
        ):
            raise UsageError(
                f"--seed {seed}: the training of {bundle.metadata.name} divided {record['store']} with this seed; to divide what "
                "it set aside, another is needed"
            )


def _records(bundle: models.Bundle) -> Iterator[Mapping[str, Any]]:
    """Of the bundle's training, and of its parent's, and so on."""
    record: Mapping[str, Any] | None = bundle.metadata.training
    while record:
        yield record
        record = record.get(fit.PARENT_RECORD)


def calibrate_bundle(task: CalibrationTask, *, console: Console | None = None) -> Written:
    """Do a task: get the data, choose, report, write; say on `console` how it goes.

    Raises
    ------
    UsageError
        Held-out objects are too few, or the data do not fit the bundle.
    """
    console = console or Console(quiet=True)
    with _data(task, console) as data:
        held_out = models.HeldOut(
            data.images,
            data.labels,
            object_id=data.extras.object_id,
            auxiliary=data.extras.auxiliary,
            strata=data.strata,
        )
        held_out, words = _not_trained_on(held_out, data, (*task.bundles, *task.rivals))
        for line in (*data.notes, *words):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        settings = dataclasses.replace(
            task.settings, data=_described(task.source, task.settings, data, words)
        )
        populations = {name: _simulated(task, name, console) for name in task.also}
        comparison = models.Comparison(
            {f"Galaxies of population {name}": objects for name, objects in populations.items()}, task.rivals
        )
        with _bar(console, _n_runs(task, held_out, comparison)) as bar:
            found = models.calibrate(task.bundles, held_out, settings, comparison=comparison, progress=bar)
    sha256 = models.save_bundle(str(task.output), found.choice.bundle.script, found.metadata)
    card = task.output.with_suffix(".md")
    figure = task.output.with_name(f"{task.output.stem}_calibration.png")  # beside a training curve, OUT.png
    card.write_text(models.card_text(found.metadata, sha256), encoding="utf-8")
    title = f"{found.metadata.name} {found.metadata.version}"
    reporting.write_calibration(found.before, found.after, str(figure), title=title)
    return Written(found, sha256, card, figure)


@contextlib.contextmanager
def _data(task: CalibrationTask, console: Console) -> Iterator[Labelled]:
    """The held-out objects."""
    source = task.source
    if source.store is not None and source.labels is not None:
        scratch = task.output.with_name(f"{task.output.name}.pixels")
        with open_labelled(
            source.store, source.labels, settings=_taken(task), id_column=source.id_column, scratch=scratch
        ) as data:
            yield data
        return
    yield _drawn(task, source.population or "", source.objects or DEFAULT_OBJECTS, console)


def _simulated(task: CalibrationTask, population: str, console: Console) -> models.HeldOut:
    """Half as many galaxies of another population as are held out: about those of the test part."""
    n_objects = (task.source.objects or DEFAULT_OBJECTS) // 2
    data = _drawn(task, population, n_objects, console)
    return models.HeldOut(data.images, data.labels, strata=data.strata)


def _drawn(task: CalibrationTask, population: str, n_objects: int, console: Console) -> Labelled:
    settings = _taken(task)
    recipe = models.Recipe(settings, n_objects=n_objects, population=population, seed=task.settings.seed)
    console.print(f"simulating {n_objects} galaxies of population {population}", highlight=False)
    return fit.simulated(recipe, settings)


def _taken(task: CalibrationTask) -> models.TrainingSettings:
    """Bands, grid, parameters and columns of the bundles."""
    metadata = task.bundles[0].metadata
    return models.TrainingSettings(
        name=metadata.name,
        architecture="gampen",  # not looked at: what matters is what a network takes and says
        bands=metadata.input.bands,
        parameters=metadata.parameters,
        size_px=metadata.input.size_px,
        pixel_scale_arcsec=metadata.input.pixel_scale_arcsec,
        auxiliary_inputs=metadata.input.auxiliary_inputs,
    )


def _not_trained_on(
    held_out: models.HeldOut, data: Labelled, bundles: Sequence[models.Bundle]
) -> tuple[models.HeldOut, list[str]]:
    """Of the store that a bundle was trained on only the objects of its test part, and a word about it."""
    words = []
    # Parts hang on ids, so those of other labels of the store are left out as well.
    for bundle, record in ((trained, record) for trained in bundles for record in _records(trained)):
        if "store" not in data.origin or record.get("store") != data.origin["store"]:
            continue
        split = models.split_objects(
            held_out.ids,
            seed=int(record["seed"]),
            validation_share=float(record["validation_share"]),
            test_share=float(record["test_share"]),
        )
        words.append(
            f"{bundle.metadata.name} was trained on {data.origin['store']}: of its {len(held_out)} objects the {len(split.test)} "
            "are used that the training set aside"
        )
        held_out = held_out.take(split.test)
    return held_out, words


def _described(
    source: fit.Source, settings: models.CalibrationSettings, data: Labelled, words: Sequence[str]
) -> str:
    """What the held-out objects are, for the card."""
    if source.store is None:
        return f"simulated galaxies of population {source.population}, seed {settings.seed}"
    told = f"objects of {data.origin['store']} with labels of {data.origin['labels']}"
    return f"{told}, of those the training set aside" if words else told


def _n_runs(task: CalibrationTask, held_out: models.HeldOut, comparison: models.Comparison) -> int:
    """Objects to run: the calibration part for each candidate, the test part once, and once for each rival."""
    n_candidates = len(task.bundles) * max(1, len(task.settings.dropout_rates))
    choosing, test = held_out.split(seed=task.settings.seed, share=task.settings.share)
    others = sum(map(len, comparison.populations.values()))
    return len(choosing) * n_candidates + len(test) * (1 + len(comparison.bundles)) + others


@contextlib.contextmanager
def _bar(console: Console, total: int) -> Iterator[Callable[[int], None]]:
    columns = (
        TextColumn("passes"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("objects, left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("passes", total=total)
        yield lambda n: progress.update(bar, advance=n)
