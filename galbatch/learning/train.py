"""Train a bundle: images with known values in, a bundle with its card out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from galbatch import models, storage
from galbatch.config import read_toml
from galbatch.errors import UsageError
from galbatch.learning.held_out import PARENT_RECORD
from galbatch.learning.labeled import LabeledImages
from galbatch.learning.progress import TrainingProgress, line_printer
from galbatch.learning.settings import resolve_settings
from galbatch.learning.sources import DataSource, open_source

__all__ = [
    "TrainedBundle",
    "TrainingTask",
    "checkpoint_path",
    "prepare_training",
    "train_and_save",
    "train_bundle",
]


@dataclass(frozen=True)
class TrainingTask:
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
    source: DataSource
    recipe: models.Recipe
    parent: models.Bundle | None = None


@dataclass(frozen=True)
class TrainedBundle:
    """A bundle that was written.

    Attributes
    ----------
    trained : its network, history and metadata
    sha256 : of the file
    card : file of its card
    figure : where its training curve goes, for those who draw it
    """

    trained: models.Trained
    sha256: str
    card: Path
    figure: Path


def prepare_training(
    architecture: str,
    output: Path,
    *,
    source: DataSource,
    parent: str | None = None,
    settings: Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> TrainingTask:
    """Check a training before anything is started.

    Parameters
    ----------
    architecture : gampen or sfnet
    output : the bundle to write
    source : of the data
    parent : bundle to fine-tune
    settings : TOML file, over the parent's settings or the recipe's; with a store and no parent over the defaults
    options : single settings, over all others; None keeps what they say

    Raises
    ------
    UsageError
        Arguments contradict each other, a file is not there, a setting is wrong, or the output cannot be written.
    """
    _check_arguments(architecture, output, source)
    bundle = None if parent is None else models.load_bundle(models.bundle_path(parent))
    recipe = source.adapt_recipe(models.RECIPES[architecture])
    base = bundle or (recipe.settings if source.store is None else None)
    if base is None and settings is None:
        raise UsageError(
            "--store without --settings or --from: state at least bands and parameters in a file of settings"
        )
    given: dict[str, Any] = {}
    if source.population is not None:
        # The recipe describes the galaxies of its own population.
        given["training_data"] = f"galaxies of the population {source.population}, drawn by galbatch simulate"
    # A file replaces what the recipe or parent says, and options of the command line what the file says.
    given |= {} if settings is None else read_toml(settings)
    given |= {name: value for name, value in (options or {}).items() if value is not None}
    resolved = resolve_settings(
        architecture, given, base=base, name=output.stem, source=settings.name if settings else "settings"
    )
    return TrainingTask(output, resolved, source, recipe, bundle)


def _check_arguments(architecture: str, output: Path, source: DataSource) -> None:
    if architecture not in models.RECIPES:
        raise UsageError(f"models train {architecture}: expected one of {', '.join(models.RECIPES)}")
    source.check()
    if source.store is not None and (source.objects is not None or source.population is not None):
        raise UsageError("--objects and --population are of the simulation; with --store they mean nothing")
    if output.suffix != ".pt":
        raise UsageError(f"-o {output}: a bundle's name ends in .pt")
    if output.is_dir():
        raise UsageError(f"-o {output}: is a folder; name the file to write")
    storage.check_writable(str(output.resolve().parent))


def train_bundle(
    task: TrainingTask,
    *,
    device: str = "auto",
    resume: bool = False,
    keep_checkpoint: bool = False,
    console: Console | None = None,
) -> TrainedBundle:
    """Get the data of a task, train, and write the bundle.

    Parameters
    ----------
    task : as `prepare_training` made it
    device : cpu, cuda, or auto: cuda if there is one
    resume : continue from the checkpoint of an earlier run
    keep_checkpoint : leave the checkpoint there when all is done
    console : shows how it goes; None: nothing is shown

    Raises
    ------
    UsageError
        Data, settings, parent or checkpoint do not fit each other.
    """
    console = console or Console(quiet=True)
    checkpoint = checkpoint_path(task.output)
    device = models.device_name(device)
    if resume:
        models.require_settings(checkpoint, task.settings)
    else:
        models.require_no_checkpoint(checkpoint)
    notify = line_printer(console)
    with (
        open_source(task.source, task.recipe, task.settings, output=task.output, notify=notify) as data,
        TrainingProgress.on(console, n_epochs=task.settings.epochs) as progress,
    ):
        session = models.Session(device, checkpoint, resume, progress.start, progress.epoch, progress.batch)
        written = train_and_save(
            data, task.output, settings=task.settings, parent=task.parent, session=session
        )
    # Only now: until the bundle is there, the checkpoint is all that is left of days of training.
    if not keep_checkpoint:
        checkpoint.unlink(missing_ok=True)
    return written


def checkpoint_path(output: Path) -> Path:
    """Return the file in which the training of the bundle `output` keeps its state."""
    return output.with_name(f"{output.name}.ckpt")


def train_and_save(
    data: LabeledImages,
    output: Path,
    *,
    settings: models.TrainingSettings,
    parent: models.Bundle | None = None,
    session: models.Session | None = None,
) -> TrainedBundle:
    """Train on `data`, and write the bundle to `output` and its card (``.md``) next to it.

    Raises
    ------
    UsageError
        Data, settings, parent or checkpoint do not fit each other.
    """
    trained = models.train(
        data.images,
        data.labels,
        settings=settings,
        extras=data.extras,
        parent=parent,
        session=session or models.Session(),
    )
    inherited = {} if parent is None else {PARENT_RECORD: parent.metadata.training}
    record = {**trained.metadata.training, **data.origin, **inherited}
    metadata = dataclasses.replace(trained.metadata, training=record)
    sha256 = models.save_bundle(str(output), models.script_of(trained.network), metadata)
    card = output.with_suffix(".md")
    card.write_text(models.card_text(metadata, sha256), encoding="utf-8")
    return TrainedBundle(
        dataclasses.replace(trained, metadata=metadata), sha256, card, output.with_suffix(".png")
    )
