"""Convolution, bias and ReLU as one kernel of cuDNN, where it gives what the three give one after the other.

No GPU has run this yet. So it is taken only where a comparison on the device itself, when the network is loaded, shows that it may be.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from galbatch.models.engines.native_networks import FusedConvolution, Layer, NativeNetwork

__all__ = ["cudnn_convolution_relu", "fuse_convolutions"]

# In roundings of the network's precision, relative to the largest last feature. A fused kernel rounds once where three round twice, and
# errors of some 13 layers add up; a kernel that computes something else is off by far more.
MAX_ROUNDINGS = 16


def cudnn_convolution_relu(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """Return the ReLU of a padded convolution (row, out, y, x), computed by one kernel on a CUDA GPU.

    Parameters
    ----------
    x : (row, in, y, x)
    weight : (out, in, side, side), of an odd side
    bias : (out,)
    stride : in pixels, along both axes
    """
    padding = weight.shape[-1] // 2
    maps: Tensor = torch.cudnn_convolution_relu(
        x, weight, bias, (stride, stride), (padding, padding), (1, 1), 1
    )
    return maps


@torch.inference_mode()
def fuse_convolutions(
    network: NativeNetwork, first: Callable[[], Tensor], fused: FusedConvolution = cudnn_convolution_relu
) -> bool:
    """Let a network's convolutions run fused with their ReLUs if its last features stay the same but for rounding.

    The choice follows from numbers alone, not from times, so that all workers with such a device make the same one.

    Parameters
    ----------
    network : network on its device; changed in place
    first : function that returns the input (row, channel, y, x) of the network's `trunk` for made-up galaxies
    fused : function of x, weight, bias and stride

    Returns
    -------
    whether they run fused; if not, or if the device cannot, the network is as it was
    """
    layers = [m for m in network.modules() if isinstance(m, Layer) and m.weight.dim() == 4]
    expected = network.trunk(first(), None).float()
    for layer in layers:
        layer.fused = fused
    try:
        found = network.trunk(first(), None).float()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # cuDNN has no such kernel for this device, shape or precision.
        found = torch.full_like(expected, torch.nan)
    tolerance = MAX_ROUNDINGS * torch.finfo(network.dtype).eps * float(expected.abs().max())
    # A difference of NaN is not below the tolerance.
    is_same = bool(((found - expected).abs() <= tolerance).all())
    if not is_same:
        for layer in layers:
            layer.fused = None
    return is_same
