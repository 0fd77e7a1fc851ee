"""GaMPEN's network: a spatial transformer that crops, then a VGG-16 with dropout before every convolution.

Written from table 3 of Ghosh et al. 2022 (ApJ 935, 138); parameters are named as in the released
checkpoints, so that those can be loaded. `width` scales the channels and hidden units of the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from galbatch.models.networks.auxiliary import auxiliary_module
from galbatch.models.networks.dropout import keyed_dropout

__all__ = ["Gampen"]

VGG16_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
POOLED_PX = 7
SMALLEST_PX = 33  # what two unpadded convolutions and pools of the transformer leave one pixel of


class HalvingPool(nn.Module):
    """2 x 2 max-pool with stride 2 as maxima of slices: on few channels 7 times as fast as torch's own on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """(row, channel, y, x) to (row, channel, y // 2, x // 2)."""
        if self.training:  # the slices' gradients would fill four maps of zeros
            return functional.max_pool2d(x, 2, 2)
        y_px, x_px = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
        rows = torch.maximum(x[:, :, 0:y_px:2], x[:, :, 1:y_px:2])
        return torch.maximum(rows[:, :, :, 0:x_px:2], rows[:, :, :, 1:x_px:2])


class Vgg(nn.Module):
    """VGG-16 with dropout: torchvision's numbering, shifted by the Dropout modules.

    In `features` the places of the Dropout modules hold `nn.Identity`; `drops` says which they are.
    """

    def __init__(
        self, in_channels: int, n_out: int, width: float, dropout_rate: float, n_auxiliary: int = 0
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for block in VGG16_BLOCKS:
            for size in block:
                if layers:
                    layers.append(nn.Identity())
                layers += [nn.Conv2d(channels, round(size * width), 3, padding=1), nn.ReLU(inplace=True)]
                channels = round(size * width)
            layers.append(HalvingPool())
        hidden = round(4096 * width)
        self.drops: list[bool] = [isinstance(layer, nn.Identity) for layer in layers]
        self.dropout_rate = dropout_rate
        self.features = nn.ModuleList(layers)
        # Identity stands where torchvision's classifier has its Dropout modules.
        self.classifier = nn.ModuleList(
            [
                nn.Linear(channels * POOLED_PX**2 + n_auxiliary, hidden),
                nn.ReLU(inplace=True),
                nn.Identity(),
                nn.Linear(hidden, hidden),
                nn.ReLU(inplace=True),
                nn.Identity(),
                nn.Linear(hidden, n_out),
            ]
        )

    def first(self, x: Tensor) -> Tensor:
        """The first convolution and its ReLU: all that comes before the first dropout."""
        for i, layer in enumerate(self.features):
            if i < 2:
                x = layer(x)
        return x

    def trunk(self, x: Tensor, keys: Tensor, rate: float) -> Tensor:
        """The other convolutions."""
        for i, layer in enumerate(self.features):
            if i >= 2:
                if self.drops[i]:
                    x = keyed_dropout(x, keys, i, rate)
                x = layer(x)
        return x

    def pooled(self, x: Tensor) -> Tensor:
        """The last maps (row, channel, y, x) averaged to 7 x 7, (row, feature)."""
        return torch.flatten(functional.adaptive_avg_pool2d(x, (7, 7)), 1)

    def head(self, x: Tensor, keys: Tensor, rate: float) -> Tensor:
        """The fully connected layers, of (row, feature)."""
        for i, layer in enumerate(self.classifier):
            if i == 2 or i == 5:
                # Layer numbers beyond those of the convolutions.
                x = keyed_dropout(x, keys, 100 + i, rate)
            x = layer(x)
        return x


class Gampen(nn.Module):
    """GaMPEN; `forward` is one pass, split into `prefix` (deterministic) and `sample`.

    Parameters
    ----------
    size_px : side of the square cutouts
    n_out : outputs of the head, 9 in the paper
    width : factor on the paper's channels; 1.0 is the paper's network
    in_channels : 1, or 3 as the released networks: a single band is repeated, several bands are as many channels
    dropout_rate : 0 switches dropout off
    n_auxiliary : auxiliary inputs per object, which join the features before the first linear layer

    Raises
    ------
    ValueError
        The cutouts are too small for the transformer's convolutions.
    """

    def __init__(
        self,
        size_px: int,
        n_out: int,
        *,
        width: float = 1.0,
        in_channels: int = 3,
        dropout_rate: float = 7e-4,
        n_auxiliary: int = 0,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.dropout_rate = dropout_rate
        wide, wider = round(64 * width), round(96 * width)
        self.localization = nn.ModuleList(
            [
                nn.Conv2d(in_channels, wide, 11),
                nn.MaxPool2d(3, 2),
                nn.ReLU(inplace=True),
                nn.Conv2d(wide, wider, 9),
                nn.MaxPool2d(3, 2),
                nn.ReLU(inplace=True),
            ]
        )
        side = localized_px(size_px)
        # The transformer's 32 hidden units stay: narrowed with the rest, one number would hang on two of them.
        self.fc_loc = nn.ModuleList([nn.Linear(wider * side**2, 32), nn.ReLU(inplace=True), nn.Linear(32, 1)])
        self.vgg = Vgg(in_channels, n_out, width, dropout_rate, n_auxiliary)
        self.auxiliary = auxiliary_module(n_auxiliary)
        initialize(self)

    def forward(self, images: Tensor, keys: Tensor, auxiliary: Tensor | None = None) -> Tensor:
        """One stochastic pass from the images."""
        return self.sample(self.prefix(images, auxiliary), keys)

    @torch.jit.export
    def prefix(self, images: Tensor, auxiliary: Tensor | None = None) -> Tensor:
        """Everything before the first dropout.

        Parameters
        ----------
        images : (object, band, y, x) float32, in the bundle's unit; one band, or as many as channels
        auxiliary : (object, auxiliary input) float32, if the network takes some

        Returns
        -------
        (object, channel, y, x) float32
        """
        x = self.stretch(images)
        scale = self.scale(x)
        theta = torch.zeros((x.shape[0], 2, 3), dtype=x.dtype, device=x.device)
        theta[:, 0, 0] = scale
        theta[:, 1, 1] = scale
        sampling = functional.affine_grid(theta, list(x.shape), align_corners=True)
        x = functional.grid_sample(x, sampling, mode="bilinear", padding_mode="zeros", align_corners=True)
        return self.auxiliary.attach(
            self.vgg.first(x.contiguous(memory_format=torch.channels_last)), auxiliary
        )

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
        rate = self.dropout_rate
        pooled = self.vgg.pooled(self.vgg.trunk(self.auxiliary.maps(features), keys, rate))
        return self.vgg.head(self.auxiliary.join(pooled, features), keys, rate)

    @torch.jit.export
    def last_features(self, features: Tensor) -> Tensor:
        """Means of the last convolution's maps in the pass without dropout.

        Parameters
        ----------
        features : (object, channel, y, x) float32, of `prefix`

        Returns
        -------
        (object, feature) float32
        """
        keys = torch.zeros(features.shape[0], dtype=torch.int64, device=features.device)
        return self.vgg.trunk(self.auxiliary.maps(features), keys, 0.0).mean(dim=(2, 3))

    @torch.jit.export
    def crop(self, images: Tensor) -> Tensor:
        """The transformer's scale s, (object,) float32: s < 1 crops to that part of the side."""
        return self.scale(self.stretch(images))

    def stretch(self, images: Tensor) -> Tensor:
        """Arsinh of the pixels, a single band repeated to the network's channels."""
        return torch.arcsinh(images).expand(-1, self.in_channels, -1, -1)

    def scale(self, x: Tensor) -> Tensor:
        """The localisation network."""
        x = x.contiguous(memory_format=torch.channels_last)
        for layer in self.localization:
            x = layer(x)
        x = torch.flatten(x, 1)
        for layer in self.fc_loc:
            x = layer(x)
        return x.squeeze(1)


def localized_px(size_px: int) -> int:
    """Side of the localisation network's last maps: two convolutions without padding, each with a pool 3/2."""
    side = size_px
    for kernel in (11, 9):
        side = (side - (kernel - 1) - 3) // 2 + 1
    if side < 1:
        raise ValueError(f"GaMPEN needs cutouts of {SMALLEST_PX} px or more, found {size_px}")
    return side


def initialize(network: Gampen) -> None:
    """He's initialization (2015); the transformer starts as the identity, the outputs near zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    last, scale = network.vgg.classifier[6], network.fc_loc[2]
    if isinstance(last, nn.Linear) and isinstance(scale, nn.Linear):
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(scale.weight)
        nn.init.ones_(scale.bias)
