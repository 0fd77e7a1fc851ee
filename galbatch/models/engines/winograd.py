"""Convolutions of 3 x 3 pixels by Winograd's minimal filtering, for a CPU: 16 products where the direct way takes 36.

Each tile of 4 x 4 input pixels, two pixels from the next, gives 2 x 2 output pixels. Its pixels are added and subtracted to 16 numbers, each
of which is multiplied with one matrix (in, out) for all tiles; sums of the 16 products are the output pixels. This is F(2 x 2, 3 x 3) of Lavin
& Gray (2016, CVPR, arXiv:1509.09308). In float32 it rounds less than the direct sum of 9 x 256 products and more.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from galbatch.models.engines.native_networks import Layer

__all__ = ["WinogradConvolution", "filters_bytes", "use_winograd"]

# With fewer channels the sums around the products take as long as they save: on a Zen 4 core 0.6 to 0.9 of the time of the direct way from
# 256 channels on, 1.0 and more with 128. The choice follows from the network alone, so that all workers make the same one.
FEWEST_CHANNELS = 256
# The transformed pixels of some rows: 16 numbers a tile. Beyond some 10 MB they leave the processor's cache.
TILES_BYTES = 10 * 2**20
# Rows of G, for filters: the transformed filter is G g G^T.
FILTER_ROWS = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))


def use_winograd(network: nn.Module) -> int:
    """Let those convolutions of a network on a CPU that gain by it run as Winograd's, with their ReLUs; return how many do.

    Parameters
    ----------
    network : network of the native engine in float32; changed in place
    """
    layers = [one for one in network.modules() if isinstance(one, Layer) and _gains(one)]
    for layer in layers:
        layer.fused = WinogradConvolution(layer.weight)
    return len(layers)


def filters_bytes(network: nn.Module) -> int:
    """Return the bytes of the transformed filters of a network, which it holds beside its weights."""
    layers = [one for one in network.modules() if isinstance(one, Layer)]
    return sum(one.fused.n_bytes for one in layers if isinstance(one.fused, WinogradConvolution))


def _gains(layer: Layer) -> bool:
    shape = layer.weight.shape
    return (
        layer.weight.dtype == torch.float32
        and shape[2:] == (3, 3)
        and layer.stride == 1
        and shape[1] >= FEWEST_CHANNELS
    )


class WinogradConvolution:
    """A padded convolution of stride 1 with its ReLU, in float32.

    Parameters
    ----------
    weight : (out, in, 3, 3)
    """

    def __init__(self, weight: Tensor) -> None:
        rows = torch.tensor(FILTER_ROWS, dtype=torch.float64)
        filters = torch.einsum("ai,ocij,bj->abco", rows, weight.double(), rows)
        self._filters = filters.flatten(0, 1).float().contiguous()  # (16, in, out)

    @property
    def n_bytes(self) -> int:
        """The bytes of the transformed filters."""
        return self._filters.nbytes

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
        """Return the ReLU of the convolution, (row, out, y, x), channels last in memory.

        Parameters
        ----------
        x : (row, in, y, x), channels last in memory
        weight, stride : not used, as they are those it was made from
        bias : (out,)
        """
        n, n_in, y_px, x_px = x.shape
        tiles = (y_px + 1) // 2, (x_px + 1) // 2
        step = max(1, TILES_BYTES // (16 * tiles[0] * tiles[1] * n_in * x.element_size()))
        # Odd sides have tiles that reach one pixel further.
        wide = functional.pad(
            x.permute(0, 2, 3, 1), (0, 0, 1, 1 + 2 * tiles[1] - x_px, 1, 1 + 2 * tiles[0] - y_px)
        )  # (row, y, x, in)
        found = x.new_empty((n, 2 * tiles[0], 2 * tiles[1], len(bias)))
        for start in range(0, n, step):
            some = slice(start, start + step)
            numbers = _transformed(wide[some], tiles)  # (16, row, tile y, tile x, in)
            products = torch.bmm(numbers.flatten(1, 3), self._filters).view(4, 4, *numbers.shape[1:4], -1)
            _write_outputs(products, bias, found[some])
        return found[:, :y_px, :x_px].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def _transformed(wide: Tensor, tiles: tuple[int, int]) -> Tensor:
    """Return the 16 numbers of each tile, (16, row, tile y, tile x, in), from padded maps (row, y, x, in)."""
    n_y, n_x = tiles
    numbers = wide.new_empty((16, len(wide), n_y, n_x, wide.shape[3]))
    # B^T d B: first along y, for whole lines, then along x.
    lines = [wide[:, i : i + 2 * n_y - 1 : 2] for i in range(4)]
    sums = (lines[0] - lines[2], lines[1] + lines[2], lines[2] - lines[1], lines[1] - lines[3])
    for i, line in enumerate(sums):
        pixels = [line[:, :, j : j + 2 * n_x - 1 : 2] for j in range(4)]
        torch.sub(pixels[0], pixels[2], out=numbers[4 * i])
        torch.add(pixels[1], pixels[2], out=numbers[4 * i + 1])
        torch.sub(pixels[2], pixels[1], out=numbers[4 * i + 2])
        torch.sub(pixels[1], pixels[3], out=numbers[4 * i + 3])
    return numbers


def _write_outputs(products: Tensor, bias: Tensor, found: Tensor) -> None:
    """Write the ReLU of the output pixels, from products (4, 4, row, tile y, tile x, out), into `found` (row, y, x, out)."""
    # A^T m A: first along y, then along x.
    upper = (products[1] + products[2]).add_(products[0])
    lower = (products[1] - products[2]).sub_(products[3])
    for i, half in enumerate((upper, lower)):
        left = (half[1] + half[2]).add_(half[0]).add_(bias)
        right = (half[1] - half[2]).sub_(half[3]).add_(bias)
        torch.clamp(left, min=0.0, out=found[:, i::2, 0::2])
        torch.clamp(right, min=0.0, out=found[:, i::2, 1::2])
