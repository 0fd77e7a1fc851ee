"""SFNet: a ResNet-18 whose prediction is linear in its k largest features.

Which features fired, how strongly and where in the image, is part of the result. Modules are named as in the
published checkpoints (Wu 2025). The published network has no dropout; here its rate may be above 0 (in the trunk before the
second to fourth stage, and before the top k), so that a posterior can be sampled.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from galbatch.models.networks.auxiliary import auxiliary_module
from galbatch.models.networks.dropout import keyed_dropout
from galbatch.models.networks.intensity_stretch import Arsinh

__all__ = ["Sfnet"]

STAGES = (64, 128, 256, 512)  # The channels of ResNet-18's four stages.


class BasicBlock(nn.Module):
    """A residual block: two 3 x 3 convolutions with a shortcut. The names of its modules are torchvision's."""

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
        """Return maps (row, channel, y, x) float32 of maps that are larger by the stride."""
        out = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(out)) + self.downsample(x))


def stage(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    """Return a stage of ResNet-18: two residual blocks, of which the first has the stride."""
    return nn.Sequential(BasicBlock(in_channels, channels, stride), BasicBlock(channels, channels, 1))


class Resnet(nn.Module):
    """The modules of ResNet-18, in torchvision's order and with its names. It has no `forward`: `Sfnet` runs them."""

    def __init__(self, in_channels: int, n_out: int, width: float, n_auxiliary: int = 0) -> None:
        super().__init__()
        channels = [round(size * width) for size in STAGES]
        self.conv1 = nn.Conv2d(in_channels, channels[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = stage(channels[0], channels[0], 1)
        self.layer2 = stage(channels[0], channels[1], 2)
        self.layer3 = stage(channels[1], channels[2], 2)
        self.layer4 = stage(channels[2], channels[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels[3] + n_auxiliary, n_out)


class Sfnet(nn.Module):
    """The SFNet network. A pass (`forward`) is split into `prefix`, which is deterministic, and `sample`.

    Parameters
    ----------
    n_bands : number of channels after the intensity stretch
    n_out : number of outputs of the linear layer
    k : number of features that are kept; with all of them nothing is zeroed, which is the dense network
    width : factor on ResNet-18's number of channels
    dropout_rate : rate of every dropout layer; 0 switches dropout off, as in the published networks
    intensity_stretch : module that is applied to the pixels before the normalization; None: arsinh
    n_auxiliary : number of auxiliary inputs per object, which the linear layer takes together with the k features

    Raises
    ------
    ValueError
        `k` is not between 1 and the number of features.
    """

    def __init__(
        self,
        n_bands: int,
        n_out: int,
        *,
        k: int = 8,
        width: float = 1.0,
        dropout_rate: float = 0.0,
        intensity_stretch: nn.Module | None = None,
        n_auxiliary: int = 0,
    ) -> None:
        super().__init__()
        self.k = k
        self.dropout_rate = dropout_rate
        self.intensity_stretch = Arsinh() if intensity_stretch is None else intensity_stretch
        # Mean and standard deviation of each channel of the training set after the intensity stretch, which are not trained.
        self.input_mean = nn.Buffer(torch.zeros(n_bands))
        self.input_std = nn.Buffer(torch.ones(n_bands))
        self.resnet = Resnet(n_bands, n_out, width, n_auxiliary)
        self.auxiliary = auxiliary_module(n_auxiliary)
        # The published checkpoints hold each module under two names, such as trunk.0 and resnet.conv1; here both are one module.
        self.trunk = nn.Sequential(*list(self.resnet.children())[:-1])
        n_features = self.resnet.fc.in_features - n_auxiliary
        if not 1 <= k <= n_features:
            raise ValueError(f"k must lie between 1 and the {n_features} features, found {k}")
        initialize(self)

    def forward(self, images: Tensor, keys: Tensor, auxiliary: Tensor | None = None) -> Tensor:
        """Run one stochastic pass, (object, output) float32, from images (object, band, y, x) and keys (object,) int64."""
        return self.sample(self.prefix(images, auxiliary), keys)

    @torch.jit.export
    def prefix(self, images: Tensor, auxiliary: Tensor | None = None) -> Tensor:
        """Compute everything before the first dropout: intensity stretch, normalization, stem and first stage.

        Parameters
        ----------
        images : (object, band, y, x) float32, in the bundle's unit
        auxiliary : (object, number) float32; None for a network that takes none

        Returns
        -------
        (object, channel, y, x) float32; the auxiliary inputs, if any, are the last channels
        """
        mean = self.input_mean.reshape(1, -1, 1, 1)
        std = self.input_std.reshape(1, -1, 1, 1)
        x = ((self.intensity_stretch(images) - mean) / std).contiguous(memory_format=torch.channels_last)
        resnet = self.resnet
        features: Tensor = resnet.layer1(resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(x)))))
        return self.auxiliary.attach(features, auxiliary)

    @torch.jit.export
    def sample(self, features: Tensor, keys: Tensor) -> Tensor:
        """Run one stochastic pass for each row, with dropout masks drawn from `keys`.

        Parameters
        ----------
        features : (row, channel, y, x) float32, rows of what `prefix` returned
        keys : (row,) int64

        Returns
        -------
        (row, output) float32
        """
        outputs, _, _ = self.sample_with_top(features, keys)
        return outputs

    @torch.jit.export
    def sample_with_top(self, features: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run a pass as `sample` does, and return which features fired in it as well.

        Parameters
        ----------
        features : (row, channel, y, x) float32, rows of what `prefix` returned
        keys : (row,) int64

        Returns
        -------
        outputs : (row, output) float32
        index : (row, rank) int64; -1 where fewer than k features fired
        activation : (row, rank) float32; NaN where fewer than k features fired
        """
        pooled = self.pooled(features, keys, self.dropout_rate)
        largest, index = torch.topk(pooled, self.k, dim=1)  # (row, rank)
        # The others become 0, so that the outputs are linear in the k features.
        outputs: Tensor = self.resnet.fc(
            self.auxiliary.join(torch.zeros_like(pooled).scatter(1, index, largest), features)
        )
        silent = largest <= 0.0
        return outputs, index.masked_fill(silent, -1), largest.masked_fill(silent, float("nan"))

    @torch.jit.export
    def last_features(self, features: Tensor) -> Tensor:
        """Return all features, before the k largest are selected, in the pass without dropout.

        Parameters
        ----------
        features : (object, channel, y, x) float32, what `prefix` returned

        Returns
        -------
        (object, feature) float32, none negative
        """
        keys = torch.zeros(features.shape[0], dtype=torch.int64, device=features.device)
        return self.pooled(features, keys, 0.0)

    @torch.jit.export
    def top_features(self, last: Tensor) -> tuple[Tensor, Tensor]:
        """Return the k largest features of each object, the largest first.

        Parameters
        ----------
        last : (object, feature) float32, what `last_features` returned

        Returns
        -------
        index : (object, rank) int64; -1 where fewer than k features fired
        activation : (object, rank) float32; NaN where fewer than k features fired
        """
        largest, index = torch.topk(last, self.k, dim=1)
        silent = largest <= 0.0
        return index.masked_fill(silent, -1), largest.masked_fill(silent, float("nan"))

    @torch.jit.export
    def feature_maps(self, features: Tensor, index: Tensor) -> Tensor:
        """Return the maps of features in the last convolution, which show where in the image they fire, without dropout.

        The mean of a map is the feature's activation. Its pixel (y, x) is centered on pixel (32 y, 32 x) of the image.

        Parameters
        ----------
        features : (object, channel, y, x) float32, what `prefix` returned
        index : (object, rank) int64, numbers of features; -1: none

        Returns
        -------
        (object, rank, y, x) float32; NaN where the index is -1
        """
        keys = torch.zeros(features.shape[0], dtype=torch.int64, device=features.device)
        maps = self.last_maps(features, keys, 0.0)
        # Map 0 is read where there is no feature, and overwritten below.
        wanted = index.clamp(min=0).reshape(index.shape[0], -1, 1, 1)
        chosen = maps.gather(1, wanted.expand(-1, -1, maps.shape[2], maps.shape[3]))
        return chosen.masked_fill((index < 0).unsqueeze(2).unsqueeze(3), float("nan"))

    def last_maps(self, x: Tensor, keys: Tensor, rate: float) -> Tensor:
        """Return the maps after the second to fourth stage, with the dropout layers 2 to 4 before these stages."""
        x = self.auxiliary.maps(x)
        x = self.resnet.layer2(keyed_dropout(x, keys, 2, rate))
        x = self.resnet.layer3(keyed_dropout(x, keys, 3, rate))
        maps: Tensor = self.resnet.layer4(keyed_dropout(x, keys, 4, rate))
        return maps

    def pooled(self, x: Tensor, keys: Tensor, rate: float) -> Tensor:
        """Return the features (row, feature): the means of the last maps, after ReLU and dropout layer 5."""
        maps = self.last_maps(x, keys, rate)
        return keyed_dropout(functional.relu(maps.mean(dim=(2, 3))), keys, 5, rate)


def initialize(network: Sfnet) -> None:
    """Draw initial weights as torchvision does (He et al. 2015)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
