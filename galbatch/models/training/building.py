"""The network that a training starts from: its architecture, its first weights, and which of them are trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from galbatch.errors import UsageError
from galbatch.models.bundle import Bundle
from galbatch.models.metadata import n_numbers
from galbatch.models.networks import (
    AUXILIARY_MODULES,
    AuxiliaryInputs,
    Encoded,
    Gampen,
    Mlp,
    Sfnet,
    current_weight_name,
    timm_encoder,
)
from galbatch.models.training.data import (
    Split,
    cleaned_rows,
)
from galbatch.models.training.loop import TrainingTensors
from galbatch.models.training.settings import TrainingSettings

__all__ = ["Network", "build_network", "fill_in", "is_head", "load_weights"]

Network = Gampen | Sfnet | Mlp | Encoded

# Images from which mean and std of pixels are computed: 2000 of 96 px have 18 million pixels per band.
NORMALIZED_FROM = 2000


def build_network(settings: TrainingSettings, size_px: int) -> Network:
    """Return the untrained network, with weights drawn from the seed of the settings.

    Raises
    ------
    UsageError
        The images are too small for the architecture, or it has fewer features than are to be kept.
    """
    n_auxiliary, rate = n_numbers(settings.auxiliary_inputs), settings.dropout_rate or 0.0
    shared: dict[str, Any] = {"width": settings.width, "dropout_rate": rate, "n_auxiliary": n_auxiliary}
    # Torch initializes from its global generator. Its state is restored, as a training must not change the draws of others.
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        try:
            if settings.architecture == "mlp":
                return Mlp(n_auxiliary, settings.n_outputs, hidden=settings.hidden, dropout_rate=rate)
            if settings.architecture == "gampen":
                return Gampen(size_px, settings.n_outputs, in_channels=settings.in_channels, **shared)
            n_bands, k = len(settings.bands), settings.n_top_features or 1
            if settings.architecture == "timm":
                return Encoded(
                    timm_encoder(settings.encoder, n_bands, size_px),
                    settings.n_outputs,
                    shape=(n_bands, size_px),
                    hidden=settings.hidden,
                    dropout_rate=rate,
                    n_auxiliary=n_auxiliary,
                )
            return Sfnet(n_bands, settings.n_outputs, k=k, **shared)
        except ValueError as error:
            raise UsageError(f"{settings.name}: {error}") from None


def fill_in(
    network: Network,
    data: TrainingTensors,
    split: Split,
    *,
    parent: Bundle | None,
    settings: TrainingSettings,
) -> None:
    """Set the parts of a network that are not drawn at random, and freeze those that are not trained.

    These are all weights where there is a parent, else the normalizations of images (SFNet, encoders) and of auxiliary inputs.

    Parameters
    ----------
    network : untrained network, changed in place
    data : images and auxiliary inputs
    split : rows of the training set
    parent : bundle whose weights are the start; None: there is none
    settings : settings of the training

    Raises
    ------
    UsageError
        The parent's weights do not fit the network of the settings.
    """
    if parent is not None:
        load_weights(network, parent, settings)
    elif isinstance(network, Sfnet | Encoded):
        # They normalize arsinh of the pixels by mean and std of its training set, (band,) each.
        some = np.arcsinh(cleaned_rows(data.images, split.training[:NORMALIZED_FROM], data.scale))
        network.input_mean.copy_(torch.from_numpy(some.mean(axis=(0, 2, 3))))
        network.input_std.copy_(torch.from_numpy(some.std(axis=(0, 2, 3))))
    if parent is None and data.auxiliary is not None and isinstance(network.auxiliary, AuxiliaryInputs):
        seen = data.auxiliary[torch.from_numpy(split.training)]
        network.auxiliary.mean.copy_(seen.mean(dim=0))
        # An auxiliary input that is the same for all objects has a std of 0, by which nothing can be divided.
        network.auxiliary.std.copy_(seen.std(dim=0, correction=0).clamp_min(1e-12))
    if settings.trainable == "head":
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(is_head(name))


def is_head(name: str) -> bool:
    """Return whether a weight belongs to the fully connected layers at the end of a network, by its name."""
    # GaMPEN's are in vgg.classifier, SFNet's is resnet.fc, an mlp's fc; fc_loc of GaMPEN's transformer is none of them. Layers of an
    # encoder, whatever timm calls them, are none either.
    if name.startswith("encoder."):
        return False
    return name.startswith(("fc.", "classifier.")) or ".classifier." in name or ".fc." in name


def load_weights(network: nn.Module, parent: Bundle, settings: TrainingSettings) -> None:
    """Load a bundle's weights; with other parameters or another head, the last layer keeps its random weights.

    Parameters
    ----------
    network : network to train, changed in place
    parent : bundle with the weights
    settings : settings of the training

    Raises
    ------
    UsageError
        The bundle's weights do not fit the network of the settings.
    """
    metadata = parent.metadata
    if metadata.architecture != settings.architecture or metadata.members != 1:
        raise UsageError(
            f"{metadata.name}: is {metadata.architecture} with {metadata.members} member(s), but the settings train one "
            f"{settings.architecture}"
        )
    # Converted networks may have another intensity stretch in front of the same weights.
    if _layers(parent.script) != _layers(network):
        raise UsageError(
            f"{metadata.name}: was not made by galbatch's {settings.architecture}{' on arsinh of the pixels' if settings.bands else ''}, "
            "so it cannot be trained on; train again"
        )
    weights = {current_weight_name(name): value for name, value in parent.script.state_dict().items()}
    # Location and scale are not compared: they do not change what an output means.
    same = metadata.head == settings.head_info and [(p.name, p.transform) for p in metadata.parameters] == [
        (p.name, p.transform) for p in settings.parameters
    ]
    mine = network.state_dict()
    # The last layer's outputs mean something else with other parameters or another head.
    if not same:
        last = [name for name in mine if is_head(name)][-2:]  # weight and bias
        weights |= {name: mine[name] for name in last}
    problems = [
        f"{name} is {tuple(weights[name].shape) if name in weights else 'absent'}, needed {tuple(value.shape)}"
        for name, value in mine.items()
        if name not in weights or weights[name].shape != value.shape
    ]
    if problems:
        leave_out = (
            "size_px, width, in_channels and auxiliary_inputs"
            if settings.bands
            else "hidden and auxiliary_inputs"
        )
        raise UsageError(
            f"{metadata.name}: its weights do not fit the network of the settings ({len(problems)} differ; the first: "
            f"{problems[0]}); leave out {leave_out} to take the bundle's"
        )
    network.load_state_dict({name: weights[name] for name in mine})


def _layers(module: Any) -> list[str]:
    """Return the class names of a network and of its direct children, which TorchScript keeps for scripted modules."""
    parts = [module, *module.children()]
    names = [getattr(part, "original_name", type(part).__name__) for part in parts]
    # Older bundles have no module for auxiliary inputs.
    return [name for name in names if name not in AUXILIARY_MODULES]
