"""SFNet: a ResNet-18 whose prediction is linear in its k largest features.

Which features fired, and how strongly, is part of the result. Parameters of the ResNet are named as in
torchvision. The published network has no dropout; here its rate may be above 0 (in the trunk before the
second to fourth stage, and before the top k), so that a posterior can be sampled.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from galbatch.models.dropout import keyed_dropout

__all__ = ["Sfnet"]

STAGES = (64, 128, 256, 512)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with a shortcut; the names are torchvision's."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(row, channel, y, x) float32 to the same, smaller by the stride."""
        out = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(out)) + self.downsample(x))


def stage(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    """Two blocks, the first with `stride`."""
    return nn.Sequential(BasicBlock(in_channels, channels, stride), BasicBlock(channels, channels, 1))


class Sfnet(nn.Module):
    """SFNet; `forward` is one pass, split into `prefix` (deterministic) and `sample`.

    Parameters
    ----------
    n_bands : bands of the input
    n_out : outputs of the linear layer
    k : features kept
    width : factor on ResNet-18's channels
    dropout_rate : 0 switches dropout off, as in the published networks
    """

    def __init__(
        self, n_bands: int, n_out: int, *, k: int = 8, width: float = 1.0, dropout_rate: float = 0.0
    ) -> None:
        super().__init__()
        channels = [round(size * width) for size in STAGES]
        self.k = k
        self.dropout_rate = dropout_rate
        # The fixed affine after arsinh: per band, from the training set.
        self.input_mean = nn.Buffer(torch.zeros(n_bands))
        self.input_std = nn.Buffer(torch.ones(n_bands))
        self.conv1 = nn.Conv2d(n_bands, channels[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.layer1 = stage(channels[0], channels[0], 1)
        self.layer2 = stage(channels[0], channels[1], 2)
        self.layer3 = stage(channels[1], channels[2], 2)
        self.layer4 = stage(channels[2], channels[3], 2)
        self.fc = nn.Linear(channels[3], n_out)
        initialize(self)

    def forward(self, images: Tensor, keys: Tensor) -> Tensor:
        """One stochastic pass from the images."""
        return self.sample(self.prefix(images), keys)

    @torch.jit.export
    def prefix(self, images: Tensor) -> Tensor:
        """Everything before the first dropout: normalization, stem and first stage.

        Parameters
        ----------
        images : (object, band, y, x) float32, in the bundle's unit

        Returns
        -------
        (object, channel, y, x) float32
        """
        mean = self.input_mean.reshape(1, -1, 1, 1)
        std = self.input_std.reshape(1, -1, 1, 1)
        x = ((torch.arcsinh(images) - mean) / std).contiguous(memory_format=torch.channels_last)
        x = functional.relu(self.bn1(self.conv1(x)))
        features: Tensor = self.layer1(functional.max_pool2d(x, 3, 2, 1))
        return features

    @torch.jit.export
    def sample(self, features: Tensor, keys: Tensor) -> Tensor:
        """One stochastic pass for each row, its masks drawn from `keys`.

        Parameters
        ----------
        features : (row, channel, y, x) float32, of `prefix`
        keys : (row,) int64

        Returns
        -------
        (row, output) float32
        """
        pooled = self.pooled(features, keys, self.dropout_rate)
        largest, index = torch.topk(pooled, self.k, dim=1)
        outputs: Tensor = self.fc(torch.zeros_like(pooled).scatter(1, index, largest))
        return outputs

    @torch.jit.export
    def last_features(self, features: Tensor) -> Tensor:
        """All features before the top k, in the pass without dropout.

        Parameters
        ----------
        features : (object, channel, y, x) float32, of `prefix`

        Returns
        -------
        (object, feature) float32, none negative
        """
        keys = torch.zeros(features.shape[0], dtype=torch.int64, device=features.device)
        return self.pooled(features, keys, 0.0)

    @torch.jit.export
    def top_features(self, last: Tensor) -> tuple[Tensor, Tensor]:
        """The k largest of the last features, largest first.

        Parameters
        ----------
        last : (object, feature) float32, of `last_features`

        Returns
        -------
        index : (object, rank) int64; -1 where fewer than k features fired
        activation : (object, rank) float32; NaN where fewer than k features fired
        """
        largest, index = torch.topk(last, self.k, dim=1)
        silent = largest <= 0.0
        return index.masked_fill(silent, -1), largest.masked_fill(silent, float("nan"))

    def pooled(self, x: Tensor, keys: Tensor, rate: float) -> Tensor:
        """Second to fourth stage, global average pool, ReLU; dropouts 2 to 4 before the stages, 5 at the end."""
        x = self.layer2(keyed_dropout(x, keys, 2, rate))
        x = self.layer3(keyed_dropout(x, keys, 3, rate))
        x = self.layer4(keyed_dropout(x, keys, 4, rate))
        return keyed_dropout(functional.relu(x.mean(dim=(2, 3))), keys, 5, rate)


def initialize(network: Sfnet) -> None:
    """He's initialization (2015), as torchvision's."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
