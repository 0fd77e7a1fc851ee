"""Training of a network on images with known values; the result is a bundle with its model card."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from galbatch import models, storage
from galbatch.config import read_toml
from galbatch.core.process import require
from galbatch.errors import UsageError
from galbatch.learning.held_out import PARENT_RECORD
from galbatch.learning.labeled import LabeledImages
from galbatch.learning.progress import TrainingProgress, line_printer
from galbatch.learning.second_opinion import measure_disagreement
from galbatch.learning.settings import resolve_settings
from galbatch.learning.sources import DataSource, open_source
from galbatch.learning.stopping import measure_stopping

__all__ = [
    "TrainedBundle",
    "TrainingTask",
    "checkpoint_path",
    "prepare_training",
    "train_and_save",
    "train_bundle",
]

SET_ASIDE = "objects that the training set aside"


@dataclass(frozen=True)
class TrainingTask:
    """A training whose arguments were checked, as far as that needs no data.

    Attributes
    ----------
    output : path of the bundle to write
    settings : settings of the training
    source : where the images come from
    recipe : number, population and seed of simulated galaxies; not used if the source has labels, None without a simulation
    parent : bundle whose weights the training starts from; None: random weights
    """

    output: Path
    settings: models.TrainingSettings
    source: DataSource
    recipe: models.Recipe | None
    parent: models.Bundle | None = None


@dataclass(frozen=True)
class TrainedBundle:
    """A bundle that was written.

    Attributes
    ----------
    trained : the network, the losses of each epoch, and the metadata
    sha256 : sha256 of the file
    card : path of its model card
    figure : path for its training curve, which is not drawn here
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
    """Return a training whose arguments were checked; nothing is started.

    Parameters
    ----------
    architecture : {"gampen", "sfnet", "mlp", "timm"}
    output : Path
        The bundle to write.
    source : DataSource
        Where the images come from.
    parent : str or None
        Path of a bundle to fine-tune, or demo:gampen, demo:sfnet.
    settings : Path or None
        TOML file with settings. They replace those of the parent, else those of the recipe if galaxies are simulated, else
        the defaults.
    options : mapping of str or None
        Single settings, which replace those of the file; values of None are ignored.

    Returns
    -------
    TrainingTask

    Raises
    ------
    UsageError
        Arguments contradict each other, a file does not exist, a setting is wrong, or the output cannot be written.
    """
    _check_arguments(architecture, output, source)
    if architecture == "timm":
        require("timm", where="models train timm")  # Told now, not once the cutouts are read.
    bundle = None if parent is None else models.load_bundle(models.bundle_path(parent))
    # A recipe describes simulated galaxies: with labels its bands and parameters would be the wrong ones.
    # Galaxies for an encoder are simulated as for an sfnet, whose settings say nothing of it.
    of_recipe = "sfnet" if architecture == "timm" else architecture
    recipe = source.adapt_recipe(models.RECIPES[of_recipe]) if of_recipe in models.RECIPES else None
    has_settings = source.is_simulated and architecture in models.RECIPES
    base = bundle or (recipe.settings if recipe is not None and has_settings else None)
    if base is None and settings is None:
        given_by = architecture if source.is_simulated else "--labels" if source.store is None else "--store"
        raise UsageError(
            f"{given_by} without --settings or --from: state at least parameters, and bands or auxiliary_inputs, in a file of settings"
        )
    given: dict[str, Any] = {}
    if source.population is not None:
        # The text in the recipe is about the galaxies of its own population.
        given["training_data"] = f"galaxies of the population {source.population}, drawn by galbatch simulate"
    # The later replaces the earlier: recipe or parent, file, options of the command line.
    given |= {} if settings is None else read_toml(settings)
    given |= {name: value for name, value in (options or {}).items() if value is not None}
    resolved = resolve_settings(
        architecture, given, base=base, name=output.stem, source=settings.name if settings else "settings"
    )
    return TrainingTask(output, resolved, source, recipe, bundle)


def _check_arguments(architecture: str, output: Path, source: DataSource) -> None:
    if architecture not in models.ARCHITECTURES:
        raise UsageError(f"models train {architecture}: expected one of {', '.join(models.ARCHITECTURES)}")
    source.check(takes_pixels=architecture != "mlp")
    if not source.is_simulated and (source.objects is not None or source.population is not None):
        raise UsageError("--objects and --population are of the simulation; with --labels they mean nothing")
    if source.spoiled and not source.is_simulated:
        raise UsageError(
            "--augment: spoils simulated galaxies; cutouts with --labels are as the survey has them"
        )
    if output.suffix != ".pt":
        raise UsageError(f"-o {output}: a bundle's name ends in .pt")
    if output.is_dir():
        raise UsageError(f"-o {output}: is a folder; name the file to write")
    # Found out now, not after hours of training.
    storage.check_writable(str(output.resolve().parent))


def train_bundle(
    task: TrainingTask,
    *,
    data: LabeledImages | None = None,
    device: str = "auto",
    resume: bool = False,
    keep_checkpoint: bool = False,
    checkpoint_every_s: float = math.inf,
    console: Console | None = None,
) -> TrainedBundle | None:
    """Train a network on the images of a task, and write the bundle and its card.

    Started several times by torchrun, the processes train together, and the first one writes.

    Parameters
    ----------
    task : TrainingTask
        The result of `prepare_training`.
    data : LabeledImages or None
        The objects to learn from, which were opened before. None: those of the task's source.
    device : {"auto", "cpu", "cuda"}
        auto is cuda if it is available.
    resume : bool
        Continue from the checkpoint of a training that was stopped.
    keep_checkpoint : bool
        Do not delete the checkpoint at the end.
    checkpoint_every_s : float
        Seconds after which the state is kept within an epoch.
    console : Console or None
        Shows the progress. None shows nothing.

    Returns
    -------
    TrainedBundle or None
        None in all processes but the first.

    Raises
    ------
    UsageError
        Data, settings, parent or checkpoint do not fit each other.
    """
    console = console or Console(quiet=True)
    checkpoint = checkpoint_path(task.output)
    device = models.device_name(device)
    # Without --resume an existing checkpoint is refused: it may be all that is left of a long training.
    if resume:
        models.require_settings(checkpoint, task.settings)
    else:
        models.require_no_checkpoint(checkpoint)
    with models.join_processes(device) as processes:
        processes.check_batch(task.settings.batch)
        console = console if processes.is_first else Console(quiet=True)
        if data is None:
            data = open_source(task.source, task.recipe, task.settings, notify=line_printer(console))
        with TrainingProgress.on(console, n_epochs=task.settings.epochs) as progress:
            session = models.Session(
                device,
                checkpoint,
                resume,
                progress.start,
                progress.epoch,
                progress.batch,
                checkpoint_every_s=checkpoint_every_s,
                processes=processes,
            )
            trained = _trained(data, settings=task.settings, parent=task.parent, session=session)
    if not processes.is_first:
        return None
    written = _saved(trained, data, task.output, settings=task.settings, device=device, console=console)
    # Deleted only now: until the bundle is written, the checkpoint is all that is left of the training.
    if not keep_checkpoint:
        checkpoint.unlink(missing_ok=True)
    return written


def checkpoint_path(output: Path) -> Path:
    """Return the path of the checkpoint of the training that writes the bundle `output`."""
    return output.with_name(f"{output.name}.ckpt")


def train_and_save(
    data: LabeledImages,
    output: Path,
    *,
    settings: models.TrainingSettings,
    parent: models.Bundle | None = None,
    session: models.Session | None = None,
) -> TrainedBundle:
    """Train a network on `data`, and write the bundle to `output` and its model card (``.md``) next to it.

    Parameters
    ----------
    data : LabeledImages
    output : Path
        The bundle to write.
    settings : TrainingSettings
    parent : Bundle or None
        Bundle whose weights the training starts from. None: random weights.
    session : Session or None
        Device, checkpoint and callbacks for the progress. None: a GPU if available, without a checkpoint.

    Returns
    -------
    TrainedBundle

    Raises
    ------
    UsageError
        Data, settings, parent or checkpoint do not fit each other.
    """
    session = session or models.Session()
    trained = _trained(data, settings=settings, parent=parent, session=session)
    device = models.device_name(session.device)
    return _saved(trained, data, output, settings=settings, device=device, console=Console(quiet=True))


def _trained(
    data: LabeledImages,
    *,
    settings: models.TrainingSettings,
    parent: models.Bundle | None,
    session: models.Session,
) -> models.Trained:
    """Return a network trained on `data`, with the record of where the images came from."""
    trained = models.train(
        data.images,
        data.labels,
        settings=settings,
        extras=data.extras,
        parent=parent,
        session=session,
    )
    # The record says where the images came from, for the check that a calibration uses other objects.
    inherited = {} if parent is None else {PARENT_RECORD: parent.metadata.training}
    record = {**trained.metadata.training, **data.origin, **inherited}
    return dataclasses.replace(trained, metadata=dataclasses.replace(trained.metadata, training=record))


def _saved(
    trained: models.Trained,
    data: LabeledImages,
    output: Path,
    *,
    settings: models.TrainingSettings,
    device: str,
    console: Console,
) -> TrainedBundle:
    """Measure stopping calibration and second opinion on objects that the training set aside; write the bundle and its card."""
    held_out = models.HeldOut(
        data.images, data.labels, object_id=data.extras.object_id, auxiliary=data.extras.auxiliary
    )
    split = models.split_objects(
        held_out.ids,
        seed=settings.seed,
        validation_share=settings.validation_share,
        test_share=settings.test_share,
    )
    script = models.script_of(trained.network)
    # Only the masks of these passes follow from the hash, which a bundle has once it is written.
    bundle = models.Bundle(trained.metadata, "", script)
    # The validation set decided which epoch is kept, which the scatter of passes hardly knows of.
    aside = held_out.take(np.concatenate([split.test, split.validation]))
    stopping = measure_stopping(
        bundle,
        aside,
        models.StoppingSettings(device=device, data=SET_ASIDE),
        console=console,
    )
    disagreement = measure_disagreement(
        bundle, aside, data=SET_ASIDE, device=device, notify=line_printer(console)
    )
    metadata = dataclasses.replace(trained.metadata, stopping=stopping, disagreement=disagreement)
    sha256 = models.save_bundle(str(output), script, metadata)
    card = output.with_suffix(".md")
    card.write_text(models.card_text(metadata, sha256), encoding="utf-8")
    return TrainedBundle(
        dataclasses.replace(trained, metadata=metadata), sha256, card, output.with_suffix(".png")
    )
