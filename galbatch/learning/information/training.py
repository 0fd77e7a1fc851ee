"""The three networks of a comparison, of images, of numbers and of both, trained on one split of the same objects."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from galbatch import models, storage
from galbatch.config import read_toml
from galbatch.errors import UsageError
from galbatch.learning.information.measuring import SOURCES
from galbatch.learning.labeled import LabeledImages
from galbatch.learning.progress import line_printer
from galbatch.learning.settings import resolve_settings
from galbatch.learning.sources import DataSource, open_source
from galbatch.learning.train import TrainedBundle, TrainingTask, train_bundle

__all__ = ["InformationTraining", "prepare_information_training", "train_for_information"]

# An mlp learns at another rate, with other batches and for more epochs than a network of images: these alone hold for it as well.
OF_ALL = (
    "parameters",
    "auxiliary_inputs",
    *("head", "loss", *(option for head in models.HEADS.values() for option in head.options), "limit_tail"),
    *("seed", "validation_share", "test_share"),
    *("version", "training_data", "licence", "citation"),
)
# With another one of these a network would see other objects, or have other values to tell.
SHARED = (
    *("architecture", "parameters", "auxiliary_inputs", "bands", "size_px", "pixel_scale_arcsec"),
    *("seed", "validation_share", "test_share"),
)


@dataclass(frozen=True)
class InformationTraining:
    """The trainings of a comparison, whose arguments were checked as far as that needs no data.

    Attributes
    ----------
    tasks : the training of each network that is to be trained, by `SOURCES`
    source : the store and labels that all of them learn from
    inputs : settings that say which cutouts and numbers are read
    """

    tasks: Mapping[str, TrainingTask]
    source: DataSource
    inputs: models.TrainingSettings


def prepare_information_training(
    settings: Path,
    folder: Path,
    *,
    source: DataSource,
    architecture: str = "gampen",
    taken: Mapping[str, str] | None = None,
) -> InformationTraining:
    """Return the trainings of the three networks of a comparison, with their arguments checked; nothing is started.

    Parameters
    ----------
    settings : Path
        TOML file with the settings of the network of both, and tables [image], [numbers] and [both] with what a network has of its own. The
        network of the image has no auxiliary inputs; that of the numbers is an mlp.
    folder : Path
        The folder to write image.pt, numbers.pt and both.pt to. It is made if there is none.
    source : DataSource
        A store and a table of labels.
    architecture : {"gampen", "sfnet", "timm"}
        The network of the images.
    taken : mapping of str or None
        Paths of those networks, by `SOURCES`, that are there already and are not trained.

    Raises
    ------
    UsageError
        Settings contradict each other or leave no objects to compare on, or the folder cannot be written.
    ConfigError
        A setting is unknown or wrong.
    """
    if architecture not in models.ARCHITECTURES or architecture == "mlp":
        raise UsageError(
            f"--architecture {architecture}: expected a network of images, gampen, sfnet or timm"
        )
    source.check(takes_pixels=True)
    if source.store is None:
        raise UsageError(
            "models information: --store and --labels, the cutouts and their true values, are needed"
        )
    given = dict(read_toml(settings))
    own = {name: given.pop(name, {}) for name in SOURCES}
    for name in SOURCES:
        _check_own(name, own[name], settings.name)
    made: dict[str, TrainingTask] = {}
    for name in (one for one in SOURCES if one not in (taken or {})):
        kind = "mlp" if name == "numbers" else architecture
        resolved = resolve_settings(
            kind, _of_network(name, given, own[name]), base=None, name=name, source=settings.name
        )
        _check_comparable(name, resolved, settings.name)
        made[name] = TrainingTask(folder / f"{name}.pt", resolved, source, None)
    folder.mkdir(parents=True, exist_ok=True)
    storage.check_writable(str(folder.resolve()))
    inputs = resolve_settings(architecture, given, base=None, name="both", source=settings.name)
    return InformationTraining(made, source, inputs)


def _check_own(name: str, own: Any, file: str) -> None:
    """Raise a UsageError if the table of one network is none, or has what must be the same for all three."""
    if not isinstance(own, dict):
        raise UsageError(f"{file}: {name} must be a table of the settings of one network, found {own!r}")
    if wrong := [key for key in own if key in SHARED]:
        raise UsageError(
            f"{file}: [{name}] {', '.join(wrong)}: the same for all three networks; state it above the tables"
        )


def _of_network(name: str, given: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of one network: those that all have in common, and its own."""
    if name == "numbers":
        common = {key: value for key, value in given.items() if key in OF_ALL}
    else:
        common = dict(given)
    if name == "image":
        common.pop("auxiliary_inputs", None)
    if "name" in given:
        common["name"] = f"{given['name']}-{name}"
    return {**common, **own}


def _check_comparable(name: str, settings: models.TrainingSettings, file: str) -> None:
    """Raise a UsageError if a network that was trained with these settings could not be compared."""
    head = models.head_of(settings.head_info)
    if head.is_point and not head.is_classes:
        raise UsageError(
            f"{file}: the network of {name} has a {settings.head} head, whose values have no density; state another head, such as gaussian"
        )
    if name != "image" and not settings.auxiliary_inputs:
        raise UsageError(
            f"{file}: auxiliary_inputs: missing; they are the numbers that images are compared with"
        )
    if settings.test_share == 0:
        raise UsageError(f"{file}: test_share: is 0; the networks are compared on what no training has used")


def train_for_information(
    task: InformationTraining,
    *,
    device: str = "auto",
    resume: bool = False,
    checkpoint_every_s: float = math.inf,
    console: Console | None = None,
) -> Iterator[tuple[str, TrainedBundle | None]]:
    """Train the networks one after the other on the same objects, and yield the name of each with its bundle once it is written.

    Parameters
    ----------
    task : InformationTraining
        The result of `prepare_information_training`.
    device : {"auto", "cpu", "cuda"}
    resume : bool
        Continue from the checkpoint of a training that was stopped.
    checkpoint_every_s : float
        Seconds after which the state is kept within an epoch.
    console : Console or None
        Shows the progress. None shows nothing.

    Raises
    ------
    UsageError
        Data, settings or a checkpoint do not fit each other.
    """
    console = console or Console(quiet=True)
    data = open_source(task.source, None, task.inputs, notify=line_printer(console))
    for name, one in task.tasks.items():
        line_printer(console)(f"the network of {name}: {one.output}")
        written = train_bundle(
            one,
            data=_SEEN_BY[name](data),
            device=device,
            resume=resume,
            checkpoint_every_s=checkpoint_every_s,
            console=console,
        )
        yield name, written


def _without_numbers(data: LabeledImages) -> LabeledImages:
    return dataclasses.replace(data, extras=dataclasses.replace(data.extras, auxiliary=None))


def _without_images(data: LabeledImages) -> LabeledImages:
    """Return the same objects without pixels, and without what is known of each band."""
    extras = dataclasses.replace(data.extras, psf_fwhm_arcsec=None, sky_sigma_njy=None)
    return dataclasses.replace(data, images=models.no_pixels(len(data.labels)), extras=extras)


def _with_all(data: LabeledImages) -> LabeledImages:
    return data


_SEEN_BY: Mapping[str, Callable[[LabeledImages], LabeledImages]] = {
    "image": _without_numbers,
    "numbers": _without_images,
    "both": _with_all,
}
"""The objects as each network sees them."""
