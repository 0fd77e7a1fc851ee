"""Training: images and labels in, a network with its metadata out.

Nothing here knows of surveys, stores or simulations. Transforms of the labels: equations 15 and 16 of the GaMPEN paper.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from galbatch.errors import UsageError
from galbatch.models.bundle import Bundle
from galbatch.models.engines.switches import denormals_flushed, tf32_allowed
from galbatch.models.metadata import BundleMetadata
from galbatch.models.training.building import build_network, fill_in
from galbatch.models.training.checkpoint import (
    Checkpoint,
    Identity,
    read_checkpoint,
    require_no_checkpoint,
    write_checkpoint,
)
from galbatch.models.training.data import (
    Extras,
    ImageRows,
    Split,
    data_fingerprint,
)
from galbatch.models.training.describing import domain_of, metadata_of, record_of
from galbatch.models.training.loop import BatchProgress, Epoch, TrainingLoop
from galbatch.models.training.preparing import (
    check_arrays,
    split_for,
    standardized,
    training_loss,
    training_tensors,
)
from galbatch.models.training.settings import TrainingSettings, parse_settings

__all__ = ["Session", "Trained", "device_name", "script_of", "train"]

Labels = npt.NDArray[np.float64]

# Activations are of order 1 to 1e6, and float32 is denormal below 1.2e-38: such weights multiply to denormal numbers only.
TINY_WEIGHT = 1e-20


@dataclass(frozen=True)
class Session:
    """The place where a training runs, and who follows it. Nothing here changes what is learned, but for a GPU's rounding.

    Attributes
    ----------
    device : cpu, cuda, or auto: cuda if there is one
    checkpoint : file that holds the state after every epoch; None: none is written
    resume : continue from that file if it is there; else it must not be there
    on_start, on_epoch, on_batch : called with the split of the objects, each epoch, and some batches
    """

    device: str = "auto"
    checkpoint: Path | None = None
    resume: bool = False
    on_start: Callable[[Split], None] | None = None
    on_epoch: Callable[[Epoch], None] | None = None
    on_batch: Callable[[BatchProgress], None] | None = None

    def keeper(self, identity: Identity) -> Callable[[Checkpoint], None] | None:
        """Return the function that writes the state after every epoch; None: nobody keeps it."""
        path = self.checkpoint
        return None if path is None else lambda checkpoint: write_checkpoint(path, checkpoint, identity)

    def earlier(self, identity: Identity) -> Checkpoint | None:
        """Return the state to continue from, or None to begin.

        Raises
        ------
        FingerprintError
            A checkpoint is there, and is not to be continued, or is of another training.
        """
        if self.checkpoint is None:
            return None
        if self.resume:
            return read_checkpoint(self.checkpoint, identity)
        require_no_checkpoint(self.checkpoint)
        return None


@dataclass(frozen=True)
class Trained:
    """A trained network in eval mode on the CPU, its metadata, how it went, and what was used for what."""

    network: nn.Module
    metadata: BundleMetadata
    history: tuple[Epoch, ...]
    split: Split


def script_of(network: nn.Module) -> Any:
    """Return the network as a TorchScript module in eval mode, as `save_bundle` takes it."""
    return torch.jit.script(network.eval())


def train(
    images: ImageRows,
    labels: Labels,
    *,
    settings: TrainingSettings,
    extras: Extras | None = None,
    parent: Bundle | None = None,
    session: Session | None = None,
) -> Trained:
    """Train a network.

    On a CPU, equal settings and data give equal bits at an equal number of threads.

    Parameters
    ----------
    images : (object, band, y, x) float32, nJy; an array, a memory map, or anything indexed like one. Non-finite
        pixels count as 0
    labels : (object, parameter) float64, physical units, in the order of the settings' parameters, finite
    settings : what and how
    extras : ids, auxiliary inputs and PSF widths of the objects
    parent : a bundle whose weights are the start
    session : device, checkpoint, progress

    Raises
    ------
    UsageError
        The arrays do not fit the settings, labels have no finite transform, the parent does not fit, or a
        checkpoint is there that is not this run's.
    GalbatchError
        The training diverged.
    """
    extras, session = extras or Extras(), session or Session()
    # What was made in Python is checked as a file's settings are.
    given = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    settings = parse_settings(given, source="training settings")
    check_arrays(images, labels, settings, extras)
    split = split_for(len(labels), settings, extras)
    if session.on_start is not None:
        session.on_start(split)
    parameters = standardized(labels[split.training], settings, parent)
    data = training_tensors(images, labels, parameters, settings=settings, extras=extras)
    device = torch.device(device_name(session.device))
    network: Any = build_network(settings, images.shape[-1])
    fill_in(network, data, split, parent=parent, settings=settings)
    # Convolutions are faster on channels last; files hold weights as torch has them.
    network.to(device, memory_format=torch.channels_last)
    identity = Identity(settings, data_fingerprint(images, labels, extras), parent.sha256 if parent else "")
    with denormals_flushed(), tf32_allowed(settings.precision != "float32"):
        loop = TrainingLoop(
            network,
            settings,
            data,
            split,
            training_loss(settings, parameters),
            on_epoch=session.on_epoch,
            on_batch=session.on_batch,
            on_checkpoint=session.keeper(identity),
        )
        with loop.last_layers_in_float32():
            before = {} if parent is None else {"parent_validation_loss": loop.validate(0)}
        history = loop.run(session.earlier(identity))
        # Before the domain is described: its features are those of the weights that are kept.
        _clear_tiny_weights(network)
        domain = domain_of(network.eval(), data, split, settings=settings, extras=extras)
    network.to(torch.device("cpu"), memory_format=torch.contiguous_format)
    record = {**record_of(settings, split, loop, parent=parent), **before}
    metadata = metadata_of(images.shape[-1], parameters, settings, domain, record)
    return Trained(network, metadata, history, split)


def device_name(asked: str) -> str:
    """Return cpu or cuda, whichever is meant by auto, cpu or cuda.

    Raises
    ------
    UsageError
        It is none of these, or there is no GPU.
    """
    if asked not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device must be auto, cpu or cuda, found {asked!r}")
    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise UsageError("device cuda: this torch finds no GPU; use device cpu, or install torch with CUDA")
    return "cuda" if there and asked != "cpu" else "cpu"


@torch.no_grad()
def _clear_tiny_weights(network: nn.Module) -> None:
    """Set weights to 0 whose products with activations would be denormal at inference."""
    for parameter in network.parameters():
        parameter[parameter.abs() < TINY_WEIGHT] = 0.0
