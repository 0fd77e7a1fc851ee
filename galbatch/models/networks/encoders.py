"""Encoders of timm as networks: all that comes before the first dropout is the encoder, and a dense network makes outputs of its features."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from galbatch.core.process import require
from galbatch.models.networks.auxiliary import auxiliary_module
from galbatch.models.networks.dropout import keyed_dropout
from galbatch.models.networks.intensity_stretch import Arsinh

__all__ = ["Encoded", "timm_encoder"]

# The second is raised for parts of Python that TorchScript has not, an OSError for classes without a source file.
SCRIPT_FAULTS = (RuntimeError, torch.jit.frontend.FrontendError, TypeError, ValueError, OSError)


def timm_encoder(name: str, n_bands: int, size_px: int) -> nn.Module:
    """Return an encoder of timm by its name there, with random weights.

    Parameters
    ----------
    name : name of the architecture in timm, such as resnet18
    n_bands, size_px : number of bands and side of the images that it is to take

    Returns
    -------
    module that makes features (object, feature) of images (object, band, y, x)

    Raises
    ------
    MissingPackage
        timm is not installed or cannot be loaded.
    ValueError
        timm does not know it, it does not take such images, gives no features, or cannot be stored as TorchScript.
    """
    timm = require("timm", where=f"encoder {name}")
    # timm reads such names from a hub on the network.
    if ":" in name:
        raise ValueError(f"encoder {name}: expected a name of timm without a hub, such as resnet18")
    try:
        encoder: nn.Module = timm.create_model(name, pretrained=False, in_chans=n_bands, num_classes=0)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"encoder {name}: timm cannot make it ({_first_line(error)})") from None
    # Both would be found only after the training.
    try:
        with torch.no_grad():
            features = encoder.eval()(torch.zeros(1, n_bands, size_px, size_px))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"encoder {name}: does not take images of {size_px} px ({_first_line(error)}); take another encoder or size_px"
        ) from None
    if features.ndim != 2:
        raise ValueError(
            f"encoder {name}: gives features of shape {tuple(features.shape)} for one image, expected (1, feature)"
        )
    try:
        torch.jit.script(encoder)
    except SCRIPT_FAULTS as error:
        raise ValueError(
            f"encoder {name}: cannot be stored as TorchScript ({_first_line(error)}); take another one"
        ) from None
    return encoder


def _first_line(error: Exception) -> str:
    return next(
        (line.strip()[:150] for line in str(error).splitlines() if line.strip()), type(error).__name__
    )


class Encoded(nn.Module):
    """An encoder with a dense network on its features and the auxiliary inputs. A pass is split into `prefix` and `sample`.

    The encoder is deterministic, so that the passes of an object share its features: dropout is in the dense layers alone.

    Parameters
    ----------
    encoder : module that makes features (object, feature) of images (object, band, y, x)
    n_out : number of outputs of the last layer
    shape : number of bands and side of the images
    hidden : number of units of each hidden layer after the features
    dropout_rate : rate of every dropout layer; 0 switches dropout off
    n_auxiliary : number of auxiliary inputs per object, which join the features
    """

    def __init__(
        self,
        encoder: nn.Module,
        n_out: int,
        *,
        shape: tuple[int, int],
        hidden: Sequence[int] = (),
        dropout_rate: float = 0.0,
        n_auxiliary: int = 0,
    ) -> None:
        super().__init__()
        n_bands, size_px = shape
        self.dropout_rate = dropout_rate
        self.intensity_stretch = Arsinh()
        # Mean and standard deviation of each band of the training set after the intensity stretch, which are not trained.
        self.input_mean = nn.Buffer(torch.zeros(n_bands))
        self.input_std = nn.Buffer(torch.ones(n_bands))
        self.encoder: Any = encoder
        self.auxiliary = auxiliary_module(n_auxiliary)
        with torch.no_grad():
            n_features = encoder.eval()(torch.zeros(1, n_bands, size_px, size_px)).shape[1]
        widths = [n_features + n_auxiliary, *hidden]
        self.classifier = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.fc = nn.Linear(widths[-1], n_out)

    def forward(self, images: Tensor, keys: Tensor, auxiliary: Tensor | None = None) -> Tensor:
        """Run one stochastic pass, (object, output) float32, from images (object, band, y, x) and keys (object,) int64."""
        return self.sample(self.prefix(images, auxiliary), keys)

    @torch.jit.export
    def prefix(self, images: Tensor, auxiliary: Tensor | None = None) -> Tensor:
        """Compute everything before the first dropout: intensity stretch, normalization and encoder.

        Parameters
        ----------
        images : (object, band, y, x) float32, in the bundle's unit
        auxiliary : (object, number) float32; None for a network that takes none

        Returns
        -------
        (object, feature, 1, 1) float32; the auxiliary inputs, if any, are the last features
        """
        mean = self.input_mean.reshape(1, -1, 1, 1)
        std = self.input_std.reshape(1, -1, 1, 1)
        x = ((self.intensity_stretch(images) - mean) / std).contiguous(memory_format=torch.channels_last)
        features: Tensor = self.encoder(x)
        return self.auxiliary.attach(features.unsqueeze(2).unsqueeze(3), auxiliary)

    @torch.jit.export
    def sample(self, features: Tensor, keys: Tensor) -> Tensor:
        """Run one stochastic pass for each row, with dropout masks drawn from `keys`.

        Parameters
        ----------
        features : (row, feature, 1, 1) float32, rows of what `prefix` returned
        keys : (row,) int64

        Returns
        -------
        (row, output) float32
        """
        last = self.last(features, keys, self.dropout_rate)
        outputs: Tensor = self.fc(keyed_dropout(last, keys, 0, self.dropout_rate))
        return outputs

    @torch.jit.export
    def last_features(self, features: Tensor) -> Tensor:
        """Return what the last layer takes, in the pass without dropout.

        Parameters
        ----------
        features : (object, feature, 1, 1) float32, what `prefix` returned

        Returns
        -------
        (object, unit) float32
        """
        keys = torch.zeros(features.shape[0], dtype=torch.int64, device=features.device)
        return self.last(features, keys, 0.0)

    def last(self, features: Tensor, keys: Tensor, rate: float) -> Tensor:
        """Return what the last layer takes, (row, unit), with a dropout layer before each hidden layer."""
        # Dropout layer 0 is the one before the outputs.
        x = features.flatten(1)
        for number, layer in enumerate(self.classifier):
            x = functional.relu(layer(keyed_dropout(x, keys, number + 1, rate)))
        return x
