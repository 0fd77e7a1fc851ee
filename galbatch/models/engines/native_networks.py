"""The networks of the native engine, made of a bundle's own weights so that a pass costs less than in the script.

The masks are the script's, to the position. What is spared: copies of the maps (zeros are written in place), the factors
1 / (1 - rate), BatchNorm, on a CPU the convolution behind the first dropout, and reading the linear layers' weights for
every few rows.

The factors: ReLU, pools and sums commute with a factor c > 0. With c = 1 / (1 - rate) the maps behind l dropouts are kept
as a c^l-th of what they are: biases are divided by c^l, the outputs are multiplied by c^L, and the other weights are
those of the script, without a copy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from galbatch.models.metadata import BundleMetadata
from galbatch.models.networks import POOLED_PX, VGG16_BLOCKS, HalvingPool, MaskPlan, Masks, zero_

__all__ = ["NativeGampen", "NativeNetwork", "NativeSfnet", "Start", "native_network"]

Weights = Mapping[str, Tensor]
EPSILON = 1e-5  # torch's default in BatchNorm, which the architecture leaves


def native_network(script: Any, metadata: BundleMetadata, dtype: torch.dtype) -> NativeNetwork | None:
    """Make the native network behind the first dropout of a bundle's script, with its weights; None: it is not known.

    Parameters
    ----------
    script : of the bundle
    metadata : of the bundle; its `architecture` says what is tried
    dtype : of maps and weights
    """
    weights, rate, size_px = script.state_dict(), metadata.dropout_rate, metadata.input.size_px
    try:
        if metadata.architecture == "gampen":
            return NativeGampen(weights, rate, dtype, size_px)
        if metadata.architecture == "sfnet":
            return NativeSfnet(weights, rate, dtype, size_px, metadata.n_top_features)
    except (KeyError, RuntimeError):  # another network of that name: layers missing, or of other shapes
        return None
    return None


class Layer(nn.Module):
    """A convolution or linear layer behind some dropouts.

    Parameters
    ----------
    weight : (out, in, y, x) or (out, in)
    bias : (out,)
    factor : c^l, of the maps before and behind it
    """

    def __init__(self, weight: Tensor, bias: Tensor, factor: float, *, stride: int = 1) -> None:
        super().__init__()
        if weight.dim() == 4:
            weight = weight.contiguous(memory_format=torch.channels_last)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Buffer(bias)
        self.divided_bias = nn.Buffer(bias / factor)
        self.stride = stride

    def forward(self, x: Tensor, *, dropped: bool) -> Tensor:
        """Apply the layer; `dropped`: `x` is kept as a c^l-th of what it is."""
        bias = self.divided_bias if dropped else self.bias
        if self.weight.dim() == 2:
            return functional.linear(x, self.weight, bias)
        maps = functional.conv2d(x, self.weight, bias, self.stride, self.weight.shape[-1] // 2)
        # A single channel is channels last in either order, and the other comes out.
        return maps.contiguous(memory_format=torch.channels_last)


class Start(NamedTuple):
    """The maps that rows begin with.

    Attributes
    ----------
    maps : (object, channel, y, x) before the first dropout
    convolved : (object, channel, y, x), the first convolution behind it, of maps without zeros; None: it is run for each row
    """

    maps: Tensor
    convolved: Tensor | None = None


class NativeNetwork(nn.Module, ABC):
    """The part of a network behind its first dropout. Without masks there is no dropout.

    Parameters
    ----------
    rate : of the dropouts
    dtype : of maps and weights

    Attributes
    ----------
    dropouts : number of each dropout and the activations in a row, in order
    """

    dropouts: list[tuple[int, int]]

    def __init__(self, rate: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.rate = rate
        self.dtype = dtype
        self.factor = 1.0 / (1.0 - rate)
        self.dropouts = []
        self.slots: list[slice] = []

    def plan(self, device: torch.device) -> MaskPlan | None:
        """Make what draws its masks; None: it has no dropout."""
        if self.rate == 0:
            return None
        plan = MaskPlan(self.dropouts, self.rate, device)
        self.slots = plan.slots
        return plan

    def layer(self, weights: Weights, name: str, dtype: torch.dtype | None = None) -> Layer:
        """A layer of the script behind the dropouts that are known yet."""
        weight, bias = (weights[f"{name}.{part}"].to(dtype or self.dtype) for part in ("weight", "bias"))
        return Layer(weight, bias, self.factor_so_far())

    def start(self, maps: Tensor) -> Start:
        """Compute what is the same in all passes of an object."""
        return Start(maps.to(self.dtype).contiguous(memory_format=torch.channels_last))

    def begin(self, start: Start, rows: Tensor, masks: Masks | None) -> Tensor:
        """Return what `trunk` takes, for each of `rows`, which name objects."""
        x = start.maps[rows]
        self.zero_(x, masks, 0)
        return x

    @abstractmethod
    def trunk(self, x: Tensor, masks: Masks | None) -> Tensor:
        """The last maps or features, (row, ...), of what `begin` gave, which it leaves as it is."""

    @abstractmethod
    def head(self, last: Tensor, auxiliary: Tensor, masks: Masks | None) -> tuple[Tensor, Tensor]:
        """Outputs (row, output) float32, and features that fired (row, rank), of what `trunk` gave.

        Parameters
        ----------
        auxiliary : (row, auxiliary input), the auxiliary inputs
        """

    @abstractmethod
    def last_features(self, last: Tensor) -> Tensor:
        """Return (row, feature) float32, of what `trunk` gave."""

    def zero_(self, x: Tensor, masks: Masks | None, dropout: int) -> None:
        """Write the zeros of a dropout, counted in order, into `x`."""
        if masks is not None:
            zero_(x, masks.positions[:, self.slots[dropout]], masks.any_zeroed[:, dropout])

    def factor_so_far(self) -> float:
        """Return c^l behind the l dropouts that are known yet."""
        return self.factor ** len(self.dropouts)

    def joined(self, last: Tensor, auxiliary: Tensor, factor: float, *, dropped: bool) -> Tensor:
        """Last features with the auxiliary inputs, which are no multiples yet."""
        if not auxiliary.shape[1]:
            return last
        return torch.cat([last, (auxiliary / factor if dropped else auxiliary).to(last.dtype)], dim=1)


class NativeGampen(NativeNetwork):
    """GaMPEN behind its first dropout; see `galbatch.models.gampen`.

    Parameters
    ----------
    weights : by the script's names
    rate : of the dropouts
    dtype : of maps and weights; the last layer is float32
    size_px : side of the cutouts
    """

    def __init__(self, weights: Weights, rate: float, dtype: torch.dtype, size_px: int) -> None:
        super().__init__(rate, dtype)
        self.pool = HalvingPool().eval()
        convolutions: list[Layer] = []
        self.ends_block: list[bool] = []
        side, place = size_px, 0
        for block in VGG16_BLOCKS:
            for i in range(len(block)):
                if place:
                    name = f"vgg.features.{place + 1}"
                    self.dropouts.append((place, weights[f"{name}.weight"].shape[1] * side**2))
                    convolutions.append(self.layer(weights, name))
                    self.ends_block.append(i == len(block) - 1)
                place += 3 if place else 2  # with the dropout before it and the ReLU behind it
            side, place = side // 2, place + 1
        self.first, self.others = convolutions[0], nn.ModuleList(convolutions[1:])
        self.is_averaged = side >= POOLED_PX
        weight, bias = (weights[f"vgg.classifier.0.{part}"] for part in ("weight", "bias"))
        if not self.is_averaged:
            weight = spread_over_pool(weight, weights["vgg.features.40.weight"].shape[0], side)
        self.linear = Layer(weight.to(dtype), bias.to(dtype), self.factor_so_far())
        self.dropouts.append((102, len(bias)))
        self.hidden = self.layer(weights, "vgg.classifier.3")
        self.dropouts.append((105, len(bias)))
        self.output = self.layer(weights, "vgg.classifier.6", torch.float32)

    def start(self, maps: Tensor) -> Start:
        """On a CPU with the first convolution, which rows correct where they have zeros; sums on a GPU would not repeat."""
        maps = maps.to(self.dtype).contiguous(memory_format=torch.channels_last)
        if maps.device.type != "cpu" or not self.rate:
            return Start(maps)
        return Start(maps, self.first(maps, dropped=True))

    def begin(self, start: Start, rows: Tensor, masks: Masks | None) -> Tensor:
        """The first convolution's maps, after ReLU."""
        first = self.first
        if masks is None or start.convolved is None:
            return torch.relu_(first(super().begin(start, rows, masks), dropped=masks is not None))
        x = start.convolved[rows]
        positions = masks.positions[:, self.slots[0]].sort(dim=1).values
        values = zeroed_values(start.maps, rows, positions, masks.any_zeroed[:, 0])
        subtract_zeroed_(x, values, positions, first.weight)
        return x.relu_()

    def trunk(self, x: Tensor, masks: Masks | None) -> Tensor:
        """The last convolution's maps."""
        x = self.pool(x)
        for i, convolution in enumerate(self.others, start=1):
            self.zero_(x, masks, i)
            x = convolution(x, dropped=masks is not None).relu_()
            if self.ends_block[i]:
                x = self.pool(x)
        return x

    def head(self, last: Tensor, auxiliary: Tensor, masks: Masks | None) -> tuple[Tensor, Tensor]:
        dropped = masks is not None
        if self.is_averaged:
            last = functional.adaptive_avg_pool2d(last, POOLED_PX)
        x = self.joined(
            torch.flatten(last, 1), auxiliary, self.factor ** (len(self.dropouts) - 2), dropped=dropped
        )
        x = self.linear(x, dropped=dropped).relu_()
        self.zero_(x, masks, -2)
        x = self.hidden(x, dropped=dropped).relu_()
        self.zero_(x, masks, -1)
        outputs = self.output(x.float(), dropped=dropped)
        if dropped:
            outputs *= self.factor ** len(self.dropouts)
        return outputs, torch.empty((len(x), 0), dtype=torch.int64, device=x.device)

    def last_features(self, last: Tensor) -> Tensor:
        return last.float().mean(dim=(2, 3))


def spread_over_pool(weight: Tensor, n_maps: int, side: int) -> Tensor:
    """Weights of a linear layer behind the average pool to 7 x 7, as weights of the smaller maps before it.

    At 96 px the pool makes 49 numbers of 9, at 143 px of 16: a fifth or a third of the products give the same.

    Parameters
    ----------
    weight : (out, map x 49 + column)
    n_maps, side : of the maps before the pool
    """
    pool = averages(side).to(weight)
    of_maps = weight[:, : n_maps * POOLED_PX**2].reshape(len(weight), n_maps, POOLED_PX, POOLED_PX)
    smaller = torch.einsum("omyx,yi,xj->omij", of_maps, pool, pool).reshape(len(weight), -1)
    return torch.cat([smaller, weight[:, n_maps * POOLED_PX**2 :]], dim=1)


def averages(side: int) -> Tensor:
    """Return (7, side) the weights of an average pool from `side` pixels to 7."""
    return functional.adaptive_avg_pool1d(torch.eye(side)[None], POOLED_PX)[0].T


def zeroed_values(maps: Tensor, rows: Tensor, positions: Tensor, any_zeroed: Tensor) -> Tensor:
    """Return (row, slot) what `maps` (object, channel, y, x), channels last, hold at positions to be zeroed; repeated ones count once.

    Parameters
    ----------
    rows : (row,) int64, which objects
    positions, any_zeroed : (row, slot) int64 and (row,) bool, see `zeroed_positions`; positions must rise along slots
    """
    flat = maps.permute(0, 2, 3, 1).view(-1)
    values = flat[rows.unsqueeze(1) * maps[0].numel() + positions]
    repeated = functional.pad(positions[:, 1:] == positions[:, :-1], (1, 0))
    return values.masked_fill(repeated | ~any_zeroed.unsqueeze(1), 0.0)


def subtract_zeroed_(x: Tensor, values: Tensor, positions: Tensor, weight: Tensor) -> None:
    """Take from the maps of a 3 x 3 convolution what activations that are zero now had given.

    Parameters
    ----------
    x : (row, out, y, x), channels last
    values, positions : (row, slot), the activations and where they are, in order y, x, channel
    weight : (out, in, 3, 3), channels last
    """
    n_rows, _, y_px, x_px = x.shape
    n_in = weight.shape[1]
    pixel, channel = positions // n_in, positions % n_in
    shift = torch.arange(3, device=x.device) - 1
    # The pixel that weight (i, j) takes to output pixel (y, x) is (y + i - 1, x + j - 1).
    y = (pixel // x_px).unsqueeze(2) - shift  # row, slot, i
    column = (pixel % x_px).unsqueeze(2) - shift  # row, slot, j
    inside = ((y >= 0) & (y < y_px)).unsqueeze(3) & ((column >= 0) & (column < x_px)).unsqueeze(2)
    row = torch.arange(n_rows, device=x.device).reshape(-1, 1, 1, 1)
    target = (row * y_px + y.clamp(0, y_px - 1).unsqueeze(3)) * x_px + column.clamp(0, x_px - 1).unsqueeze(2)
    share = torch.where(inside, -values.unsqueeze(2).unsqueeze(3), 0.0)  # row, slot, i, j
    by_input = weight.permute(1, 2, 3, 0).contiguous()  # in, i, j, out
    given = share.unsqueeze(4) * by_input[channel]
    x.permute(0, 2, 3, 1).view(-1, len(weight)).index_add_(
        0, target.reshape(-1), given.reshape(-1, len(weight))
    )


class NativeSfnet(NativeNetwork):
    """SFNet behind its first dropout; see `galbatch.models.sfnet`.

    Parameters
    ----------
    weights : by the script's names
    rate : of the dropouts
    dtype : of maps and weights up to the last maps
    size_px : side of the cutouts
    k : features kept
    """

    def __init__(self, weights: Weights, rate: float, dtype: torch.dtype, size_px: int, k: int) -> None:
        super().__init__(rate, dtype)
        self.k = k
        blocks, side = [], halved(halved(size_px))
        for number in (2, 3, 4):
            name = f"resnet.layer{number}"
            self.dropouts.append((number, weights[f"{name}.0.conv1.weight"].shape[1] * side**2))
            blocks += [self.block(weights, f"{name}.{i}", stride=2 - i) for i in (0, 1)]
            side = halved(side)
        self.blocks = nn.ModuleList(blocks)
        self.n_features = weights["resnet.layer4.1.conv2.weight"].shape[0]
        self.dropouts.append((5, self.n_features))
        self.output = self.layer(weights, "resnet.fc", torch.float32)

    def block(self, weights: Weights, name: str, *, stride: int) -> Block:
        """Make a residual block behind the dropouts that are known yet."""
        norms = {"conv1": ("bn1", stride), "conv2": ("bn2", 1), "downsample.0": ("downsample.1", stride)}
        layers = []
        for convolution, (norm, step) in norms.items():
            if f"{name}.{convolution}.weight" in weights:
                pair = folded(weights, f"{name}.{convolution}", f"{name}.{norm}")
                weight, bias = (part.to(self.dtype) for part in pair)
                layers.append(Layer(weight, bias, self.factor_so_far(), stride=step))
        return Block(*layers)

    def trunk(self, x: Tensor, masks: Masks | None) -> Tensor:
        """The features, (row, feature) float32."""
        for i, block in enumerate(self.blocks):
            if i in (2, 4):  # the first of the third and fourth stage
                self.zero_(x, masks, i // 2)
            x = block(x, dropped=masks is not None)
        return x.float().mean(dim=(2, 3)).relu_()

    def head(self, last: Tensor, auxiliary: Tensor, masks: Masks | None) -> tuple[Tensor, Tensor]:
        self.zero_(last, masks, -1)
        largest, index = torch.topk(last, self.k, dim=1)
        kept = torch.zeros_like(last).scatter_(1, index, largest)
        n_before = len(self.dropouts)
        x = self.joined(kept, auxiliary, self.factor**n_before, dropped=masks is not None)
        outputs = self.output(x, dropped=masks is not None)
        if masks is not None:
            outputs *= self.factor**n_before
        return outputs, index.masked_fill(largest <= 0.0, -1)

    def last_features(self, last: Tensor) -> Tensor:
        return last


class Block(nn.Module):
    """Two convolutions with a shortcut, which has one of its own where the maps change; BatchNorm is part of them."""

    def __init__(self, conv1: Layer, conv2: Layer, downsample: Layer | None = None) -> None:
        super().__init__()
        self.conv1 = conv1
        self.conv2 = conv2
        self.downsample = downsample

    def forward(self, x: Tensor, *, dropped: bool) -> Tensor:
        """Return (row, channel, y, x), smaller by the stride, of `x` (row, channel, y, x)."""
        shortcut = x if self.downsample is None else self.downsample(x, dropped=dropped)
        inner = self.conv1(x, dropped=dropped).relu_()
        out: Tensor = self.conv2(inner, dropped=dropped).add_(shortcut).relu_()
        return out


def halved(side: int) -> int:
    """Return the side of maps behind a padded convolution or pool of stride 2."""
    return (side + 1) // 2


def folded(weights: Weights, convolution: str, norm: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution and the BatchNorm behind it, as one."""
    mean, variance, scale, shift = (
        weights[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    )
    gain = scale / torch.sqrt(variance + EPSILON)
    return weights[f"{convolution}.weight"] * gain.reshape(-1, 1, 1, 1), shift - mean * gain
