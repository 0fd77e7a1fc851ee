"""The networks of the native engine, made from a bundle's weights so that a pass costs less than in the script.

The dropout masks are exactly those of the script. Saved are copies of the maps (zeros are written in place), the factors
1 / (1 - rate) of dropout, BatchNorm, on a CPU the convolution after the first dropout, and repeated reading of the linear
layers' weights.

The factors of dropout: ReLU, pooling and sums commute with a factor c > 0. With c = 1 / (1 - rate), the maps after l dropouts
are stored divided by c^l: biases are divided by c^l, the outputs are multiplied by c^L for all L dropouts, and the other
weights are shared with the script.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from galbatch.models.metadata import BundleMetadata
from galbatch.models.networks import POOLED_PX, VGG16_BLOCKS, HalvingPool, MaskPlan, Masks, zero_

__all__ = [
    "FusedConvolution",
    "Layer",
    "NativeGampen",
    "NativeNetwork",
    "NativeSfnet",
    "Start",
    "native_network",
]

Weights = Mapping[str, Tensor]
FusedConvolution = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""Function of maps, weight, bias and stride that returns the ReLU of the convolution."""
EPSILON = 1e-5  # The default of torch's BatchNorm, which SFNet does not change.


def native_network(script: Any, metadata: BundleMetadata, dtype: torch.dtype) -> NativeNetwork | None:
    """Return the native network for the part of a bundle's script after its first dropout; None if the network is not known.

    Parameters
    ----------
    script : script of the bundle
    metadata : metadata of the bundle, whose `architecture` decides which network is tried
    dtype : type of maps and weights
    """
    weights, rate, size_px = script.state_dict(), metadata.dropout_rate, metadata.input.size_px
    try:
        if metadata.architecture == "gampen":
            return NativeGampen(weights, rate, dtype, size_px)
        if metadata.architecture == "sfnet":
            return NativeSfnet(weights, rate, dtype, size_px, metadata.n_top_features)
    # Another network under the same name: layers are missing, or have other shapes.
    except (KeyError, RuntimeError):
        return None
    return None


class Layer(nn.Module):
    """A convolution or linear layer after l dropouts.

    Parameters
    ----------
    weight : (out, in, y, x) or (out, in)
    bias : (out,)
    factor : c^l, by which the layer's inputs and outputs are divided
    stride : stride of a convolution, in pixels

    Attributes
    ----------
    fused : function that computes a convolution together with its ReLU; None: one after the other
    """

    fused: FusedConvolution | None = None

    def __init__(self, weight: Tensor, bias: Tensor, factor: float, *, stride: int = 1) -> None:
        super().__init__()
        if weight.dim() == 4:
            weight = weight.contiguous(memory_format=torch.channels_last)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Buffer(bias)
        self.divided_bias = nn.Buffer(bias / factor)
        self.stride = stride

    def forward(self, x: Tensor, *, dropped: bool) -> Tensor:
        """Return the layer's outputs for inputs `x`; with `dropped` both are divided by c^l."""
        bias = self.divided_bias if dropped else self.bias
        if self.weight.dim() == 2:
            return functional.linear(x, self.weight, bias)
        maps = functional.conv2d(x, self.weight, bias, self.stride, self.weight.shape[-1] // 2)
        # Maps of a single channel count as channels last in either order, and torch returns the other one.
        return maps.contiguous(memory_format=torch.channels_last)

    def rectified(self, x: Tensor, *, dropped: bool) -> Tensor:
        """Return the ReLU of the layer's outputs, as `forward`."""
        if self.fused is None or self.weight.dim() == 2:
            outputs: Tensor = self(x, dropped=dropped)
            return outputs.relu_()
        maps = self.fused(x, self.weight, self.divided_bias if dropped else self.bias, self.stride)
        return maps.contiguous(memory_format=torch.channels_last)


class Start(NamedTuple):
    """The maps of a group of objects from which their passes start.

    Attributes
    ----------
    maps : (object, channel, y, x), before the first dropout
    convolved : (object, channel, y, x), output of the convolution after it for maps without zeros; None: that convolution is
        run for each row
    """

    maps: Tensor
    convolved: Tensor | None = None


class NativeNetwork(nn.Module, ABC):
    """The part of a network after its first dropout. Called with masks None, it has no dropout.

    Parameters
    ----------
    rate : rate of all dropout layers
    dtype : type of maps and weights

    Attributes
    ----------
    dropouts : number of each dropout layer and the number of activations of a row there, in order
    may_round_last : whether the last features may be computed in 16 bits: not where the largest of them are chosen
    """

    dropouts: list[tuple[int, int]]
    may_round_last = False

    def __init__(self, rate: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.rate = rate
        self.dtype = dtype
        self.factor = 1.0 / (1.0 - rate)
        self.dropouts = []
        self.slots: list[slice] = []

    def plan(self, device: torch.device) -> MaskPlan | None:
        """Return the plan that draws the network's masks on a device; None for a network without dropout."""
        if self.rate == 0:
            return None
        plan = MaskPlan(self.dropouts, self.rate, device)
        self.slots = plan.slots
        return plan

    def layer(self, weights: Weights, name: str, dtype: torch.dtype | None = None) -> Layer:
        """Return a layer of the script that comes after the dropouts in `dropouts` so far."""
        weight, bias = (weights[f"{name}.{part}"].to(dtype or self.dtype) for part in ("weight", "bias"))
        return Layer(weight, bias, self.factor_so_far())

    def start(self, maps: Tensor) -> Start:
        """Return the first maps in the network's precision, from maps (object, channel, y, x) of the script's prefix."""
        return Start(maps.to(self.dtype).contiguous(memory_format=torch.channels_last))

    def begin(self, start: Start, rows: Tensor, masks: Masks | None) -> Tensor:
        """Return the input of `trunk` for each of `rows`, (row,) int64 indices of objects."""
        x = start.maps[rows]
        self.zero_(x, masks, 0)
        return x

    @abstractmethod
    def trunk(self, x: Tensor, masks: Masks | None) -> Tensor:
        """Return the last maps or features, (row, ...), from what `begin` returned, which is not changed."""

    @abstractmethod
    def head(self, last: Tensor, auxiliary: Tensor, masks: Masks | None) -> tuple[Tensor, Tensor]:
        """Return outputs (row, output) float32 and numbers of the features that fired, (row, rank) int64.

        Parameters
        ----------
        last : (row, ...), what `trunk` returned
        auxiliary : (row, number), standardized
        masks : masks of the rows; None: no dropout
        """

    @abstractmethod
    def last_features(self, last: Tensor) -> Tensor:
        """Return the last features, (row, feature) float32, from what `trunk` returned."""

    def zero_(self, x: Tensor, masks: Masks | None, dropout: int) -> None:
        """Write the zeros of a dropout layer into `x`; layers are counted from 0, or from the last with -1."""
        if masks is not None:
            zero_(x, masks.positions[:, self.slots[dropout]], masks.any_zeroed[:, dropout])

    def factor_so_far(self) -> float:
        """Return c^l for the l dropouts in `dropouts` so far."""
        return self.factor ** len(self.dropouts)

    def joined(self, last: Tensor, auxiliary: Tensor, factor: float, *, dropped: bool) -> Tensor:
        """Return last features joined with the auxiliary inputs, which with `dropped` are divided by the features' factor."""
        if not auxiliary.shape[1]:
            return last
        return torch.cat([last, (auxiliary / factor if dropped else auxiliary).to(last.dtype)], dim=1)


class NativeGampen(NativeNetwork):
    """GaMPEN after its first dropout; see `galbatch.models.networks.Gampen`.

    Parameters
    ----------
    weights : weights by their names in the script
    rate : rate of all dropout layers
    dtype : type of maps and weights; the last layer is in float32
    size_px : side of the cutouts, in pixels
    """

    # They give the distance from the domain, and embeddings. The distance's limit is known to 2 to 5 %, as it was found on some thousand
    # objects. Rounding moves distances of galaxies by 0.7 to 1 % (RMS) in bfloat16 and by 0.1 % in float16, on networks of a 16th of the
    # width, where rounding errors average out least.
    may_round_last = True

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
                # A convolution, the dropout before it (not before the first) and the ReLU after it.
                place += 3 if place else 2
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
        # On a CPU the first convolution runs once per object; rows subtract what their zeros would have added. On a GPU sums of
        # scattered values are not repeatable.
        maps = maps.to(self.dtype).contiguous(memory_format=torch.channels_last)
        if maps.device.type != "cpu" or not self.rate:
            return Start(maps)
        return Start(maps, self.first(maps, dropped=True))

    def begin(self, start: Start, rows: Tensor, masks: Masks | None) -> Tensor:
        # The maps after the first convolution and ReLU: (row, channel, y, x).
        first = self.first
        if start.convolved is None:
            return first.rectified(super().begin(start, rows, masks), dropped=masks is not None)
        x = start.convolved[rows]
        if masks is None:
            # It holds the bias of passes with dropout.
            return x.add_((first.bias - first.divided_bias).reshape(-1, 1, 1)).relu_()
        positions = masks.positions[:, self.slots[0]].sort(dim=1).values
        values = zeroed_values(start.maps, rows, positions, masks.any_zeroed[:, 0])
        subtract_zeroed_(x, values, positions, first.weight)
        return x.relu_()

    def trunk(self, x: Tensor, masks: Masks | None) -> Tensor:
        x = self.pool(x)
        for i, convolution in enumerate(self.others, start=1):
            self.zero_(x, masks, i)
            x = cast("Layer", convolution).rectified(x, dropped=masks is not None)
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
    """Return the weights of a linear layer after the average pool to 7 x 7 as weights for the smaller maps before the pool.

    At 96 px the pool makes 49 numbers of 9, at 143 px of 16, so that a fifth or a third of the products are enough.

    Parameters
    ----------
    weight : (out, map x 49 + auxiliary number)
    n_maps, side : number of the maps before the pool, and their side in pixels

    Returns
    -------
    (out, map x side^2 + auxiliary number)
    """
    pool = averages(side).to(weight)
    of_maps = weight[:, : n_maps * POOLED_PX**2].reshape(len(weight), n_maps, POOLED_PX, POOLED_PX)
    smaller = torch.einsum("omyx,yi,xj->omij", of_maps, pool, pool).reshape(len(weight), -1)
    return torch.cat([smaller, weight[:, n_maps * POOLED_PX**2 :]], dim=1)


def averages(side: int) -> Tensor:
    """Return the weights (7, side) of torch's average pool from `side` pixels to 7."""
    return functional.adaptive_avg_pool1d(torch.eye(side)[None], POOLED_PX)[0].T


def zeroed_values(maps: Tensor, rows: Tensor, positions: Tensor, any_zeroed: Tensor) -> Tensor:
    """Return the values (row, slot) of maps at the positions that dropout zeroes; 0 where a position is repeated.

    Parameters
    ----------
    maps : (object, channel, y, x), channels last in memory
    rows : (row,) int64, index of each row's object
    positions, any_zeroed : (row, slot) int64 and (row,) bool, as from `zeroed_positions`; positions must rise along slots
    """
    flat = maps.permute(0, 2, 3, 1).view(-1)
    values = flat[rows.unsqueeze(1) * maps[0].numel() + positions]
    repeated = functional.pad(positions[:, 1:] == positions[:, :-1], (1, 0))
    return values.masked_fill(repeated | ~any_zeroed.unsqueeze(1), 0.0)


def subtract_zeroed_(x: Tensor, values: Tensor, positions: Tensor, weight: Tensor) -> None:
    """Subtract from the output of a 3 x 3 convolution the contributions of input activations that dropout has zeroed.

    Parameters
    ----------
    x : (row, out, y, x), channels last in memory; changed in place
    values, positions : (row, slot), the activations and their positions in the order y, x, channel
    weight : (out, in, 3, 3), channels last in memory
    """
    n_rows, _, y_px, x_px = x.shape
    n_in = weight.shape[1]
    pixel, channel = positions // n_in, positions % n_in
    shift = torch.arange(3, device=x.device) - 1
    # The pixel that weight (i, j) takes to output pixel (y, x) is (y + i - 1, x + j - 1).
    y = (pixel // x_px).unsqueeze(2) - shift  # (row, slot, i)
    column = (pixel % x_px).unsqueeze(2) - shift  # (row, slot, j)
    inside = ((y >= 0) & (y < y_px)).unsqueeze(3) & ((column >= 0) & (column < x_px)).unsqueeze(2)
    row = torch.arange(n_rows, device=x.device).reshape(-1, 1, 1, 1)
    target = (row * y_px + y.clamp(0, y_px - 1).unsqueeze(3)) * x_px + column.clamp(0, x_px - 1).unsqueeze(2)
    share = torch.where(inside, -values.unsqueeze(2).unsqueeze(3), 0.0)  # (row, slot, i, j)
    by_input = weight.permute(1, 2, 3, 0).contiguous()  # (in, i, j, out)
    given = share.unsqueeze(4) * by_input[channel]  # (row, slot, i, j, out)
    x.permute(0, 2, 3, 1).view(-1, len(weight)).index_add_(
        0, target.reshape(-1), given.reshape(-1, len(weight))
    )


class NativeSfnet(NativeNetwork):
    """SFNet after its first dropout; see `galbatch.models.networks.Sfnet`.

    Parameters
    ----------
    weights : weights by their names in the script
    rate : rate of all dropout layers
    dtype : type of maps and weights up to the last maps; the rest is in float32
    size_px : side of the cutouts, in pixels
    k : number of features that are kept
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
        """Return a residual block that comes after the dropouts in `dropouts` so far."""
        norms = {"conv1": ("bn1", stride), "conv2": ("bn2", 1), "downsample.0": ("downsample.1", stride)}
        layers = []
        for convolution, (norm, step) in norms.items():
            if f"{name}.{convolution}.weight" in weights:
                pair = folded(weights, f"{name}.{convolution}", f"{name}.{norm}")
                weight, bias = (part.to(self.dtype) for part in pair)
                layers.append(Layer(weight, bias, self.factor_so_far(), stride=step))
        return Block(*layers)

    def trunk(self, x: Tensor, masks: Masks | None) -> Tensor:
        # The features, (row, feature) float32.
        for i, block in enumerate(self.blocks):
            # Blocks 2 and 4 are the first of the third and fourth stage, with dropouts 1 and 2 before them.
            if i in (2, 4):
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
    """A residual block whose convolutions include BatchNorm; the shortcut has a convolution where the maps change in shape."""

    def __init__(self, conv1: Layer, conv2: Layer, downsample: Layer | None = None) -> None:
        super().__init__()
        self.conv1 = conv1
        self.conv2 = conv2
        self.downsample = downsample

    def forward(self, x: Tensor, *, dropped: bool) -> Tensor:
        """Return maps (row, channel, y, x), smaller by the stride, of maps `x` (row, channel, y, x)."""
        shortcut = x if self.downsample is None else self.downsample(x, dropped=dropped)
        inner = self.conv1.rectified(x, dropped=dropped)
        out: Tensor = self.conv2(inner, dropped=dropped).add_(shortcut).relu_()
        return out


def halved(side: int) -> int:
    """Return the side of maps after a padded convolution or pool of stride 2, from the side before it."""
    return (side + 1) // 2


def folded(weights: Weights, convolution: str, norm: str) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the convolution that is equal to a convolution followed by BatchNorm."""
    mean, variance, scale, shift = (
        weights[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    )
    gain = scale / torch.sqrt(variance + EPSILON)
    return weights[f"{convolution}.weight"] * gain.reshape(-1, 1, 1, 1), shift - mean * gain
