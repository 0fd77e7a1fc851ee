"""The function that trains: images and labels in, a network with its metadata out.

Images and labels are arrays, whether they come from a survey, a store or a simulation. Labels are transformed by equations 15 and
16 of the GaMPEN paper.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from galbatch.errors import UsageError
from galbatch.models.bundle import Bundle, estimate_prior
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
from galbatch.models.training.processes import ONE_PROCESS, Processes
from galbatch.models.training.settings import TrainingSettings, parse_settings

__all__ = ["Session", "Trained", "device_name", "script_of", "train"]

Labels = npt.NDArray[np.float64]

# Float32 is denormal below 1.2e-38, and activations are of order 1 to 1e6. Products with smaller weights, and sums of these, come
# near to that, add nothing to an output, and slow a CPU down.
TINY_WEIGHT = 1e-20


@dataclass(frozen=True)
class Session:
    """Options of a training that do not change its result, except for the rounding of a GPU.

    Attributes
    ----------
    device : cpu, cuda, or auto: cuda if there is a GPU
    checkpoint : path of the file to which the state is written after every epoch, and within one; None: it is not written
    resume : whether to continue from that file if it exists; if false, the file must not exist
    on_start, on_epoch, on_batch : functions called with the split of the objects, after every epoch, and after some batches
    checkpoint_every_s : seconds after which the state is written within an epoch
    processes : processes that train together; the first one writes the checkpoint
    """

    device: str = "auto"
    checkpoint: Path | None = None
    resume: bool = False
    on_start: Callable[[Split], None] | None = None
    on_epoch: Callable[[Epoch], None] | None = None
    on_batch: Callable[[BatchProgress], None] | None = None
    checkpoint_every_s: float = math.inf
    processes: Processes = ONE_PROCESS

    def keeper(self, identity: Identity) -> Callable[[Checkpoint], None] | None:
        """Return the function that writes the state; None if there is no checkpoint file, or another process writes it."""
        path = self.checkpoint
        return (
            None
            if path is None or not self.processes.is_first
            else lambda checkpoint: write_checkpoint(path, checkpoint, identity)
        )

    def of_loop(self, identity: Identity) -> dict[str, Any]:
        """Return the options of the training loop by their names there."""
        return {
            "on_epoch": self.on_epoch,
            "on_batch": self.on_batch,
            "on_checkpoint": self.keeper(identity),
            "checkpoint_every_s": self.checkpoint_every_s,
            "processes": self.processes,
        }

    def earlier(self, identity: Identity) -> Checkpoint | None:
        """Return the state to continue from; None to start from the beginning.

        Raises
        ------
        FingerprintError
            The file exists without `resume`, or belongs to another training.
        """
        if self.checkpoint is None:
            return None
        if self.resume:
            return read_checkpoint(self.checkpoint, identity)
        require_no_checkpoint(self.checkpoint)
        return None


@dataclass(frozen=True)
class Trained:
    """The result of a training.

    Attributes
    ----------
    network : trained network, in eval mode, on the CPU
    metadata : metadata of the bundle to write
    history : losses and times of all epochs
    split : rows that were used to train, to validate, and not at all
    """

    network: nn.Module
    metadata: BundleMetadata
    history: tuple[Epoch, ...]
    split: Split


def script_of(network: nn.Module) -> Any:
    """Return the network as a TorchScript module in eval mode, which `save_bundle` takes."""
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

    On a CPU, the same settings, data and number of threads give the same weights to the last bit.

    Parameters
    ----------
    images : (object, band, y, x) float32, nJy: an array, a memory map, or anything indexed like one; non-finite pixels count
        as 0; (object, 0, 0, 0) for a network that takes columns alone
    labels : (object, parameter) float64, finite, in physical units and in the order of the settings' parameters
    settings : settings of the training
    extras : ids, auxiliary inputs, PSF widths and sky noise of the objects; None: none of these
    parent : bundle whose weights are the start; None: random weights
    session : device, checkpoint and progress; None: the defaults

    Raises
    ------
    ConfigError
        The settings contradict each other.
    UsageError
        The arrays do not fit the settings, labels have no finite transform, or the parent does not fit.
    FingerprintError
        There is a checkpoint that does not belong to this training.
    GalbatchError
        The training diverged.
    """
    extras, session = extras or Extras(), session or Session()
    settings = _checked(settings)
    check_arrays(images, labels, settings, extras)
    split = split_for(len(labels), settings, extras)
    if session.on_start is not None:
        session.on_start(split)
    # Scaled by the training set alone: the other sets must have no influence on the network.
    parameters = standardized(labels[split.training], settings, parent)
    data = training_tensors(images, labels, parameters, split=split, settings=settings, extras=extras)
    device = torch.device(device_name(session.device))
    network: Any = build_network(settings, images.shape[-1])
    fill_in(network, data, split, parent=parent, settings=settings)
    # Convolutions are faster with channels last in memory. Before the network is returned, its weights get torch's usual order.
    network.to(device, memory_format=torch.channels_last)
    identity = Identity(settings, data_fingerprint(images, labels, extras), parent.sha256 if parent else "")
    with denormals_flushed(), tf32_allowed(settings.precision != "float32"):
        loss = training_loss(settings, parameters)
        loop = TrainingLoop(network, settings, data, split, loss, **session.of_loop(identity))
        with loop.last_layers_in_float32():
            # How well the parent does on the same objects, for comparison.
            before = {} if parent is None else {"parent_validation_loss": loop.validate(0)}
        history = loop.run(session.earlier(identity))
        # Cleared before the domain is computed, so that its features are those of the weights in the bundle.
        _clear_tiny_weights(network)
        domain = domain_of(network.eval(), data, split, psf_ranges=settings.psf_fwhm_arcsec, extras=extras)
    network.to(torch.device("cpu"), memory_format=torch.contiguous_format)
    record = {**record_of(settings, split, loop, parent=parent), **before}
    weight = extras.weight_of(split.training)
    prior = estimate_prior(labels[split.training], parameters, data=settings.training_data, weight=weight)
    metadata = metadata_of(images.shape[-1], parameters, settings, domain, record, prior=prior)
    return Trained(network, metadata, history, split)


def _checked(settings: TrainingSettings) -> TrainingSettings:
    """Return settings that were made in Python checked like those from a file."""
    given = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    return parse_settings(given, source="training settings")


def device_name(device: str) -> str:
    """Return cpu or cuda for cpu, cuda or auto.

    Raises
    ------
    UsageError
        `device` is none of these, or is cuda and there is no GPU.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device must be auto, cpu or cuda, found {device!r}")
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise UsageError("device cuda: this torch finds no GPU; use device cpu, or install torch with CUDA")
    return "cuda" if has_gpu and device != "cpu" else "cpu"


@torch.no_grad()
def _clear_tiny_weights(network: nn.Module) -> None:
    """Set weights to 0 that are so small that products with them would be denormal numbers in inference."""
    for parameter in network.parameters():
        parameter[parameter.abs() < TINY_WEIGHT] = 0.0
