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
POOLED_PX = 7  # The side that VGG-16 averages its last maps to.
# The transformer's two convolutions without padding, of 11 and 9 px, and the pools behind them leave one pixel of it.
SMALLEST_PX = 33


class HalvingPool(nn.Module):
    """A 2 x 2 max-pool with stride 2, computed as maxima of slices: with few channels 7 times as fast as torch's own on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps (row, channel, y // 2, x // 2) of maps (row, channel, y, x)."""
        # In training, the gradient of each slice would be a full map, most of it zeros.
        if self.training:
            return functional.max_pool2d(x, 2, 2)
        # An odd last row or column is left out, as by torch's pool.
        y_px, x_px = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
        rows = torch.maximum(x[:, :, 0:y_px:2], x[:, :, 1:y_px:2])
        return torch.maximum(rows[:, :, :, 0:x_px:2], rows[:, :, :, 1:x_px:2])


class Vgg(nn.Module):
    """VGG-16 with dropout before every convolution but the first, its layers numbered as in the released checkpoints.

    There, torchvision's numbers are shifted by the Dropout modules. Here `nn.Identity` stands in their places in `features`,
    and `drops` lists which places these are.
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
        """Return the maps after the first convolution and its ReLU, which are all that comes before the first dropout."""
        # TorchScript unrolls a loop over a ModuleList and cannot leave it early, so layers are chosen by their number.
        for i, layer in enumerate(self.features):
            if i < 2:
                x = layer(x)
        return x

    def trunk(self, x: Tensor, keys: Tensor, rate: float) -> Tensor:
        """Return the last maps (row, channel, y, x) from what `first` returned and keys (row,) int64."""
        for i, layer in enumerate(self.features):
            if i >= 2:
                if self.drops[i]:
                    x = keyed_dropout(x, keys, i, rate)
                x = layer(x)
        return x

    def pooled(self, x: Tensor) -> Tensor:
        """Return the last maps (row, channel, y, x) averaged to 7 x 7 and flattened, (row, channel x 49)."""
        return torch.flatten(functional.adaptive_avg_pool2d(x, (7, 7)), 1)

    def head(self, x: Tensor, keys: Tensor, rate: float) -> Tensor:
        """Return the outputs (row, output) of the fully connected layers from features (row, feature)."""
        for i, layer in enumerate(self.classifier):
            if i == 2 or i == 5:
                # The masks' layer numbers are 102 and 105, beyond those of the layers in `features`.
                x = keyed_dropout(x, keys, 100 + i, rate)
            x = layer(x)
        return x


class Gampen(nn.Module):
    """The GaMPEN network. A pass (`forward`) is split into `prefix`, which is deterministic, and `sample`.

    Parameters
    ----------
    size_px : side of the square cutouts, in pixels
    n_out : number of outputs of the head, 9 in the paper
    width : factor on the paper's number of channels; 1.0 is the paper's network
    in_channels : number of input channels: that of the bands, or for a single band any number of copies of it; 3 in the
        released networks
    dropout_rate : rate of every dropout layer; 0 switches dropout off
    n_auxiliary : number of auxiliary inputs per object, which join the features before the first linear layer

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
        # The transformer keeps its 32 hidden units at any width: at 1/16 the crop would depend on two of them.
        self.fc_loc = nn.ModuleList([nn.Linear(wider * side**2, 32), nn.ReLU(inplace=True), nn.Linear(32, 1)])
        self.vgg = Vgg(in_channels, n_out, width, dropout_rate, n_auxiliary)
        self.auxiliary = auxiliary_module(n_auxiliary)
        initialize(self)

    def forward(self, images: Tensor, keys: Tensor, auxiliary: Tensor | None = None) -> Tensor:
        """Run one stochastic pass, (object, output) float32, from images (object, band, y, x) and keys (object,) int64."""
        return self.sample(self.prefix(images, auxiliary), keys)

    @torch.jit.export
    def prefix(self, images: Tensor, auxiliary: Tensor | None = None) -> Tensor:
        """Compute everything before the first dropout: intensity stretch, crop, and the first convolution.

        Parameters
        ----------
        images : (object, band, y, x) float32, in the bundle's unit; one band, or as many as the network has channels
        auxiliary : (object, number) float32; None for a network that takes none

        Returns
        -------
        (object, channel, y, x) float32; the auxiliary inputs, if any, are the last channels
        """
        x = self.intensity_stretch(images)
        scale = self.scale(x)
        theta = torch.zeros((x.shape[0], 2, 3), dtype=x.dtype, device=x.device)
        theta[:, 0, 0] = scale
        theta[:, 1, 1] = scale  # (object, 2, 3): one scale for both axes, no rotation and no shift
        sampling = functional.affine_grid(theta, list(x.shape), align_corners=True)
        x = functional.grid_sample(x, sampling, mode="bilinear", padding_mode="zeros", align_corners=True)
        return self.auxiliary.attach(
            self.vgg.first(x.contiguous(memory_format=torch.channels_last)), auxiliary
        )

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
        rate = self.dropout_rate
        pooled = self.vgg.pooled(self.vgg.trunk(self.auxiliary.maps(features), keys, rate))
        return self.vgg.head(self.auxiliary.join(pooled, features), keys, rate)

    @torch.jit.export
    def last_features(self, features: Tensor) -> Tensor:
        """Return the means of the last convolution's maps in the pass without dropout.

        Parameters
        ----------
        features : (object, channel, y, x) float32, what `prefix` returned

        Returns
        -------
        (object, feature) float32
        """
        keys = torch.zeros(features.shape[0], dtype=torch.int64, device=features.device)
        return self.vgg.trunk(self.auxiliary.maps(features), keys, 0.0).mean(dim=(2, 3))

    @torch.jit.export
    def crop(self, images: Tensor) -> Tensor:
        """Return the spatial transformer's scale s; with s < 1 the image is cropped to that part of its side.

        Parameters
        ----------
        images : (object, band, y, x) float32, in the bundle's unit

        Returns
        -------
        (object,) float32
        """
        return self.scale(self.intensity_stretch(images))

    def intensity_stretch(self, images: Tensor) -> Tensor:
        """Return arsinh of the pixels, (object, channel, y, x), with a single band repeated for all channels."""
        return torch.arcsinh(images).expand(-1, self.in_channels, -1, -1)

    def scale(self, x: Tensor) -> Tensor:
        """Return the scale (object,) that the localization network finds, for pixels (object, channel, y, x) after the stretch."""
        x = x.contiguous(memory_format=torch.channels_last)
        for layer in self.localization:
            x = layer(x)
        x = torch.flatten(x, 1)
        for layer in self.fc_loc:
            x = layer(x)
        return x.squeeze(1)


def localized_px(size_px: int) -> int:
    """Return the side in pixels of the localization network's last maps, for cutouts of `size_px`.

    Raises
    ------
    ValueError
        The cutouts are too small: nothing is left.
    """
    # Two convolutions without padding, each followed by a max-pool of 3 px with stride 2.
    side = size_px
    for kernel in (11, 9):
        side = (side - (kernel - 1) - 3) // 2 + 1
    if side < 1:
        raise ValueError(f"GaMPEN needs cutouts of {SMALLEST_PX} px or more, found {size_px}")
    return side


def initialize(network: Gampen) -> None:
    """Draw initial weights (He et al. 2015); the transformer starts with scale 1, and the outputs start near 0."""
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
