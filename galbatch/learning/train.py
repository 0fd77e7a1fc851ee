"""Train a bundle: data in, a bundle with its card and training curve out. Joins simulation or store with models."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from galbatch import models, reporting, simulation, storage
from galbatch.errors import ConfigError, UsageError
from galbatch.learning.labeled import Labelled, open_labelled
from galbatch.learning.training_bars import TrainingBars

__all__ = [
    "Outcome",
    "Source",
    "Task",
    "changed",
    "checkpoint_path",
    "fit_bundle",
    "prepare",
    "read_settings",
    "settings_for",
    "simulated",
    "train_bundle",
]

PARENT_RATE_SHARE = 0.1
PARENT_RECORD = "parent_training"
"""In a bundle's record: that of the bundle it was fine-tuned from, whose objects are not held out either."""
WORTH_PROCESSES = 2000  # galaxies; a process takes seconds to start and draws tens of galaxies a second


@dataclass(frozen=True)
class Source:
    """Where the data of a training come from: a store and a table of labels, or the simulation.

    Attributes
    ----------
    store, labels : of cutouts, and the table with the true parameters; None: simulate
    id_column : of the labels
    objects, population : of the simulation; None: the recipe's
    """

    store: str | None = None
    labels: str | None = None
    id_column: str = "object_id"
    objects: int | None = None
    population: str | None = None


@dataclass(frozen=True)
class Task:
    """A training that was checked as far as it can be without data.

    Attributes
    ----------
    output : the bundle to write
    settings : of the training
    source : of the data
    recipe : how galaxies are simulated
    parent : whose weights are the start; None: drawn
    """

    output: Path
    settings: models.TrainingSettings
    source: Source
    recipe: models.Recipe
    parent: models.Bundle | None = None


@dataclass(frozen=True)
class Outcome:
    """A bundle that was written: its training, its sha256, and the files beside it."""

    trained: models.Trained
    sha256: str
    card: Path
    curve: Path


def prepare(
    architecture: str,
    output: Path,
    *,
    source: Source,
    parent: str | None = None,
    settings: Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> Task:
    """Check what a training was asked for, before anything is started.

    Parameters
    ----------
    parent : bundle to fine-tune
    settings : TOML file, over the parent's settings or the recipe's; with a store and no parent over the defaults
    options : single settings, over all others; None keeps what they say

    Raises
    ------
    UsageError
        Arguments contradict each other, a file is not there, a setting is wrong, or the output cannot be written.
    """
    if architecture not in models.RECIPES:
        raise UsageError(f"models train {architecture}: expected one of {', '.join(models.RECIPES)}")
    if (source.store is None) != (source.labels is None):
        raise UsageError("--store and --labels go together: cutouts, and a table with their true parameters")
    if source.store is not None and (source.objects is not None or source.population is not None):
        raise UsageError("--objects and --population are of the simulation; with --store they mean nothing")
    if output.suffix != ".pt":
        raise UsageError(f"-o {output}: a bundle's name ends in .pt")
    if output.is_dir():
        raise UsageError(f"-o {output}: is a folder; name the file to write")
    storage.check_writable(str(output.resolve().parent))
    bundle = None if parent is None else models.load_bundle(models.bundle_path(parent))
    recipe = changed(models.RECIPES[architecture], objects=source.objects, population=source.population)
    base = bundle or (recipe.settings if source.store is None else None)
    if base is None and settings is None:
        raise UsageError(
            "--store without --settings or --from: state at least bands and parameters in a file of settings"
        )
    given: dict[str, Any] = {}
    if source.population is not None:  # the recipe's words are of its own
        given["training_data"] = f"galaxies of the population {source.population}, drawn by galbatch simulate"
    given |= {} if settings is None else read_settings(settings)
    given |= {name: value for name, value in (options or {}).items() if value is not None}
    asked = settings_for(
        architecture, given, base=base, name=output.stem, source=settings.name if settings else "settings"
    )
    return Task(output, asked, source, recipe, bundle)


def train_bundle(
    task: Task,
    *,
    device: str = "auto",
    resume: bool = False,
    keep_checkpoint: bool = False,
    console: Console | None = None,
) -> Outcome:
    """Do a task: get the data, train, write the bundle; say on `console` how it goes. Raises as `fit_bundle`."""
    console = console or Console(quiet=True)
    checkpoint = checkpoint_path(task.output)
    device = models.device_name(device)
    if resume:
        models.require_settings(checkpoint, task.settings)
    else:
        models.require_no_checkpoint(checkpoint)
    with _data(task, console) as data, TrainingBars.on(console, n_epochs=task.settings.epochs) as bars:
        return fit_bundle(
            data,
            task.output,
            settings=task.settings,
            parent=task.parent,
            session=models.Session(device, checkpoint, resume, bars.start, bars.epoch, bars.batch),
            keep_checkpoint=keep_checkpoint,
        )


@contextlib.contextmanager
def _data(task: Task, console: Console) -> Iterator[Labelled]:
    """The data of a task, and a word about them."""
    if task.source.store is None or task.source.labels is None:
        console.print(f"simulating {task.recipe.n_objects} galaxies", highlight=False)
        yield simulated(task.recipe, task.settings)
        return
    with open_labelled(
        task.source.store,
        task.source.labels,
        settings=task.settings,
        id_column=task.source.id_column,
        scratch=task.output.with_name(f"{task.output.name}.pixels"),
    ) as data:
        for line in data.notes:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        yield data


def checkpoint_path(output: Path) -> Path:
    """Where the training of the bundle `output` keeps its state."""
    return output.with_name(f"{output.name}.ckpt")


def fit_bundle(
    data: Labelled,
    output: Path,
    *,
    settings: models.TrainingSettings,
    parent: models.Bundle | None = None,
    session: models.Session | None = None,
    keep_checkpoint: bool = False,
) -> Outcome:
    """Train, and write the bundle to `output`, its card (``.md``) and training curve (``.png``) beside it.

    The session's checkpoint is removed once the bundle is there, unless it is to be kept.

    Raises
    ------
    UsageError
        Data, settings, parent or checkpoint do not fit each other.
    """
    session = session or models.Session()
    trained = models.train(
        data.images, data.labels, settings=settings, extras=data.extras, parent=parent, session=session
    )
    inherited = {} if parent is None else {PARENT_RECORD: parent.metadata.training}
    record = {**trained.metadata.training, **data.origin, **inherited}
    metadata = dataclasses.replace(trained.metadata, training=record)
    sha256 = models.save_bundle(str(output), models.script_of(trained.network), metadata)
    card, curve = output.with_suffix(".md"), output.with_suffix(".png")
    card.write_text(models.card_text(metadata, sha256), encoding="utf-8")
    reporting.write_training_curve(trained.history, str(curve), title=f"{metadata.name} {metadata.version}")
    if not keep_checkpoint and session.checkpoint is not None:
        session.checkpoint.unlink(missing_ok=True)
    return Outcome(dataclasses.replace(trained, metadata=metadata), sha256, card, curve)


def read_settings(path: Path) -> dict[str, Any]:
    """Content of a settings file.

    Raises
    ------
    ConfigError
        The file is not there, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is no TOML: {error}") from None


def settings_for(
    architecture: str,
    given: Mapping[str, Any],
    *,
    base: models.TrainingSettings | models.Bundle | None,
    name: str,
    source: str,
) -> models.TrainingSettings:
    """Settings of a file and options over those of a recipe or a parent.

    Parameters
    ----------
    architecture : gampen or sfnet
    given : what is to be other than in the base
    base : a recipe's settings; a parent, whose learning rate is taken times 0.1; None: the paper's defaults
    name : of the bundle, unless `given` names it
    source : what messages begin with

    Raises
    ------
    ConfigError
        A key is not known, or values do not fit.
    """
    start = _start(base)
    for what in (given, start):
        if what.get("architecture", architecture) != architecture:
            raise ConfigError(
                f"{source}: architecture is {what['architecture']}, and {architecture} is to be trained"
            )
    if "head" in given:  # what belongs to another head goes with it
        start = {key: value for key, value in start.items() if key not in ("loss", "edges", "components")}
    named = {} if isinstance(base, models.TrainingSettings) else {"name": name}
    return models.parse_settings({**start, **named, "architecture": architecture, **given}, source=source)


def _start(base: models.TrainingSettings | models.Bundle | None) -> dict[str, Any]:
    if base is None:
        return {}
    if isinstance(base, models.TrainingSettings):
        return {f.name: getattr(base, f.name) for f in dataclasses.fields(base)}
    start = models.settings_of(base.metadata)
    rate = start.get("learning_rate", models.TrainingSettings.learning_rate)
    return {**start, "learning_rate": PARENT_RATE_SHARE * rate}


def simulated(recipe: models.Recipe, settings: models.TrainingSettings) -> Labelled:
    """Freshly drawn galaxies with the settings' bands and parameters.

    Raises
    ------
    UsageError
        The simulation does not have what the settings ask for.
    """
    _require_simulated(settings)
    drawn = simulation.training_set(
        recipe.n_objects,
        bands=settings.bands,
        size_px=settings.size_px or recipe.size_px,
        population=recipe.population,
        seed=recipe.seed,
        processes=len(os.sched_getaffinity(0)) if recipe.n_objects >= WORTH_PROCESSES else None,
    )
    truth = drawn.truth
    labels = [truth.column(parameter.name).to_numpy() for parameter in settings.parameters]
    origin = {
        "simulated": recipe.n_objects,
        "population": recipe.population,
        "simulation_seed": recipe.seed,
    }
    extras = models.Extras(psf_fwhm_arcsec=drawn.psf_fwhm_arcsec)
    strata = {"size_arcsec": np.asarray(truth["re_arcsec"].to_numpy(), dtype=np.float64)}
    values = np.stack(labels, axis=1).astype(np.float64)
    return Labelled(drawn.images, values, extras, origin, strata=strata)


def _require_simulated(settings: models.TrainingSettings) -> None:
    """Refuse what the simulation does not have, before galaxies are drawn for an hour."""
    known = simulation.draw_population(1, bands=settings.bands, seed=1).column_names
    unknown = [p.name for p in settings.parameters if p.name not in known]
    if unknown:
        raise UsageError(
            f"parameters: {', '.join(unknown)}: not in the simulation, which has {', '.join(known)}"
        )
    if settings.auxiliary_inputs:
        names = ", ".join(column.name for column in settings.auxiliary_inputs)
        raise UsageError(
            f"auxiliary_inputs: {names}: the simulation has none; give --store and --labels, or leave them out"
        )
    if settings.pixel_scale_arcsec != simulation.PIXEL_SCALE_ARCSEC:
        raise UsageError(
            f"pixel_scale_arcsec: is {settings.pixel_scale_arcsec:g}, and simulated stamps have "
            f"{simulation.PIXEL_SCALE_ARCSEC:g}; for other pixels run galbatch simulate in the survey's layout and give --store and --labels"
        )


def changed(
    recipe: models.Recipe, *, objects: int | None = None, population: str | None = None
) -> models.Recipe:
    """The recipe with another number of galaxies or population; None keeps its own."""
    changes: dict[str, Any] = {}
    if objects is not None:
        changes["n_objects"] = objects
    if population is not None:
        changes["population"] = population
        told = models.TRAINING_DATA.get(population, "")
        changes["settings"] = dataclasses.replace(recipe.settings, training_data=told)
    return dataclasses.replace(recipe, **changes)
