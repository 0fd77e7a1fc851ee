"""The part of a network before its first dropout, which is computed once for each object."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from galbatch.models.bundle import Bundle, made_up_inputs
from galbatch.models.engines.switches import repeatable_float32

__all__ = ["Prefix", "choose_prefix", "cropped_once", "script_prefix"]

Prefix = Callable[[Bundle, Tensor, Tensor | None], tuple[Tensor, Tensor | None]]
"""Function of a bundle, images (object, band, y, x) and auxiliary inputs (object, n) or None. It returns the features of the bundle's
`prefix`, and the scale (object,) of its spatial transformer, None for a network without one."""


def script_prefix(bundle: Bundle, images: Tensor, auxiliary: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return features and scale as the script's own methods compute them, each from the images."""
    crop = bundle.script.crop(images) if bundle.has("crop") else None
    return bundle.prefix(images, auxiliary), crop


def cropped_once(bundle: Bundle, images: Tensor, auxiliary: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return features and scale of a GaMPEN without auxiliary inputs, with a single run of its localization network.

    The script's `prefix` and `crop` both run it. No dropout is in it, so its scale serves for both. At 96 px and the paper's width a run
    takes as long as a quarter of a pass.
    """
    script = bundle.script
    n_channels = getattr(script.localization, "0").weight.shape[1]
    x = torch.arcsinh(images).expand(-1, n_channels, -1, -1)  # (object, channel, y, x)
    scale = script.scale(x)
    theta = torch.zeros((len(x), 2, 3), dtype=x.dtype, device=x.device)
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    sampling = functional.affine_grid(theta, list(x.shape), align_corners=True)
    x = functional.grid_sample(x, sampling, mode="bilinear", padding_mode="zeros", align_corners=True)
    return script.vgg.first(x.contiguous(memory_format=torch.channels_last)), scale


@torch.inference_mode()
def choose_prefix(bundle: Bundle, device: torch.device) -> Prefix:
    """Return `cropped_once` where it gives the bits of the script's methods for made-up galaxies on the device, else `script_prefix`.

    Scripts of other versions may stretch intensities otherwise: what they compute is what counts.
    """
    if bundle.metadata.architecture != "gampen" or bundle.metadata.input.auxiliary_inputs:
        return script_prefix
    images = made_up_inputs(bundle.metadata)[0].to(device)
    with repeatable_float32(device):
        expected = script_prefix(bundle, images, None)
        try:
            found = cropped_once(bundle, images, None)
        except (AttributeError, RuntimeError):  # A network that has no such parts.
            return script_prefix
    is_same = all(
        a is not None and b is not None and torch.equal(a, b) for a, b in zip(found, expected, strict=True)
    )
    return cropped_once if is_same else script_prefix
