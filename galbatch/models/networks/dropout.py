"""Dropout whose masks are drawn from keys: the same object and pass have the same mask in any batch.

The functions compile to TorchScript and are part of every bundle. Integer arithmetic on int64 wraps around, so the hash gives
the same bits on every device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["MaskPlan", "Masks", "keyed_dropout", "zero_"]


def mix(z: Tensor) -> Tensor:
    """Return the hash of int64 numbers by the finalizer of splitmix64 (Steele, Lea & Flood 2014)."""
    # Torch shifts int64 with its sign; the masks clear what that fills in. The factors are those of splitmix64 as signed numbers.
    z = (z ^ ((z >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    z = (z ^ ((z >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return z ^ ((z >> 31) & 0x1FFFFFFFF)


def poisson_counts(uniform: Tensor, mean: float) -> Tensor:
    """Return Poisson numbers, drawn by inversion of the distribution function.

    Parameters
    ----------
    uniform : (row,) float64 in [0, 1)
    mean : mean of the Poisson distribution

    Returns
    -------
    (row,) int64, cut off where less than 1e-9 of the probability is left
    """
    n_counts = int(mean + 6.0 * math.sqrt(mean)) + 12
    count = torch.arange(n_counts, dtype=torch.float64, device=uniform.device)
    probability = torch.exp(count * math.log(mean) - mean - torch.lgamma(count + 1.0))
    return torch.searchsorted(torch.cumsum(probability, 0)[:-1], uniform, right=True)


def zeroed_positions(keys: Tensor, layer: int, n: int, rate: float) -> tuple[Tensor, Tensor]:
    """Return which of `n` activations dropout zeroes.

    Poisson(-n ln(1 - rate)) positions, drawn with replacement, hit each activation with probability exactly `rate` and
    independently of the others, as in a thinned Poisson process. The cost grows with the number of zeros, not with `n`.

    Parameters
    ----------
    keys : (row,) int64
    layer : number of the layer in its network; layers with different numbers have independent masks
    n : number of activations of a row
    rate : probability that an activation is zeroed

    Returns
    -------
    positions : (row, slot) int64; slots beyond a row's count repeat its first position
    any_zeroed : (row,) bool; false where the row's count is 0, so that nothing is zeroed
    """
    mean = -n * math.log(1.0 - rate)
    stream = mix(keys + layer)
    counts = poisson_counts(((mix(stream) >> 11) & 0x1FFFFFFFFFFFFF).double() * 2.0**-53, mean)
    slot = torch.arange(1, int(mean + 6.0 * math.sqrt(mean)) + 13, device=keys.device)
    draws = mix(stream.unsqueeze(1) + slot * -0x61C8864680B583EB)
    # The lower 32 bits, scaled to 0 .. n - 1 without a division.
    positions = ((draws & 0xFFFFFFFF) * n) >> 32  # (row, slot)
    positions = torch.where(slot <= counts.unsqueeze(1), positions, positions[:, :1])
    return positions, counts > 0


def keyed_dropout(x: Tensor, keys: Tensor, layer: int, rate: float) -> Tensor:
    """Zero each activation with probability `rate` and scale the rest by 1 / (1 - rate).

    Parameters
    ----------
    x : (row, channel, y, x) or (row, feature) float
    keys : (row,) int64, from which the masks are drawn
    layer : number of the layer in its network; layers with different numbers have independent masks
    rate : probability below 1; for 0 `x` itself is returned

    Returns
    -------
    array of the shape of `x`; maps are channels last in memory, on which small convolutions run twice as fast
    """
    if rate <= 0.0:
        return x
    shape = x.shape
    scaled = x * (1.0 / (1.0 - rate))
    if x.dim() == 4:
        scaled = scaled.permute(0, 2, 3, 1)
    flat = scaled.reshape(shape[0], -1)  # (row, activation), in the order y, x, channel for maps
    positions, any_zeroed = zeroed_positions(keys, layer, flat.shape[1], rate)
    # Rows without a zero are written with their own values. Selecting the others would make a GPU wait for their number.
    first = torch.where(any_zeroed, torch.zeros_like(flat[:, 0]), flat.gather(1, positions[:, :1]).squeeze(1))
    flat = flat.scatter(1, positions, first.unsqueeze(1).expand(-1, positions.shape[1]))
    if x.dim() == 4:
        return flat.reshape(shape[0], shape[2], shape[3], shape[1]).permute(0, 3, 1, 2)
    return flat


class Masks(NamedTuple):
    """The activations that dropout zeroes in a batch of rows, for all layers.

    Attributes
    ----------
    positions : (row, slot) int64, as from `zeroed_positions`, with the slots of all layers one after another
    any_zeroed : (row, layer) bool, whether any activation of the row is zeroed in the layer
    """

    positions: Tensor
    any_zeroed: Tensor


class MaskPlan:
    """A plan that draws the masks of all layers at once: those of `zeroed_positions`, with a twentieth of the torch calls.

    Parameters
    ----------
    layers : number of each dropout layer, and the number of activations of a row there
    rate : probability above 0 that an activation is zeroed
    device : device on which the masks are drawn

    Attributes
    ----------
    slots : for each layer the slice of its slots in `Masks.positions`
    """

    def __init__(self, layers: Sequence[tuple[int, int]], rate: float, device: torch.device) -> None:
        means = [-n * math.log(1.0 - rate) for _, n in layers]
        widths = [int(mean + 6.0 * math.sqrt(mean)) + 12 for mean in means]
        starts = [sum(widths[:i]) for i in range(len(widths))]
        self.slots = [slice(start, start + width) for start, width in zip(starts, widths, strict=True)]
        repeats = torch.tensor(widths)
        within = torch.cat([torch.arange(1, width + 1) for width in widths])
        # Each of these has one element per slot, or per layer, and does not depend on the keys.
        self._numbers = torch.tensor([number for number, _ in layers]).to(device)
        self._layer = torch.arange(len(layers)).repeat_interleave(repeats).to(device)
        self._n = torch.tensor([n for _, n in layers]).repeat_interleave(repeats).to(device)
        self._first = torch.tensor(starts).repeat_interleave(repeats).to(device)
        self._within = within.to(device)
        self._step = (within * -0x61C8864680B583EB).to(device)
        # Computed on the CPU: exp and lgamma of a GPU may differ in the last bit, and then so would a count.
        self._below = _cumulative(means).to(device)

    def draw(self, keys: Tensor) -> Masks:
        """Return the masks that follow from keys (row,) int64."""
        stream = mix(keys.unsqueeze(1) + self._numbers)  # (row, layer)
        uniform = ((mix(stream) >> 11) & 0x1FFFFFFFFFFFFF).double() * 2.0**-53
        counts = torch.searchsorted(self._below, uniform.T.contiguous(), right=True).T
        draws = mix(stream[:, self._layer] + self._step)  # (row, slot)
        positions = ((draws & 0xFFFFFFFF) * self._n) >> 32
        beyond = self._within > counts[:, self._layer]
        return Masks(torch.where(beyond, positions[:, self._first], positions), counts > 0)


def _cumulative(means: Sequence[float]) -> Tensor:
    """Return the Poisson distribution functions, (layer, count) float64, as in `poisson_counts`; 2 behind the last count."""
    rows = []
    for mean in means:
        count = torch.arange(int(mean + 6.0 * math.sqrt(mean)) + 12, dtype=torch.float64)
        probability = torch.exp(count * math.log(mean) - mean - torch.lgamma(count + 1.0))
        rows.append(torch.cumsum(probability, 0)[:-1])
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=2.0)


def zero_(x: Tensor, positions: Tensor, any_zeroed: Tensor) -> None:
    """Write a layer's zeros into `x`; the factor 1 / (1 - rate) is left to the caller.

    Parameters
    ----------
    x : (row, channel, y, x), channels last in memory, or (row, feature); changed in place
    positions : (row, slot) int64, as from `zeroed_positions`
    any_zeroed : (row,) bool, as from `zeroed_positions`
    """
    # A view, not a copy: it fails if the memory is not channels last, instead of writing into a copy.
    flat = x.permute(0, 2, 3, 1).view(len(x), -1) if x.dim() == 4 else x
    first = flat.gather(1, positions[:, :1]).masked_fill_(any_zeroed.unsqueeze(1), 0.0)
    flat.scatter_(1, positions, first.expand_as(positions))
