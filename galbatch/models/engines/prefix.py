"""The part of a network before its first dropout, which is computed once for each object."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from galbatch.models.bundle import Bundle, made_up_inputs
from galbatch.models.engines.switches import repeatable_float32

__all__ = ["Prefix", "arsinh_stem", "choose_prefix", "cropped_once", "script_prefix"]

# Of the size of the features: rounding leaves 1e-6, and another intensity stretch more than 1e-3.
EXACT = 1e-5

Prefix = Callable[[Bundle, Tensor, Tensor | None], tuple[Tensor, Tensor | None]]
"""Function of a bundle, images (object, band, y, x) and auxiliary inputs (object, n) or None. It returns the features of the bundle's
`prefix`, and the scale (object,) of its spatial transformer, None for a network without one."""


def script_prefix(bundle: Bundle, images: Tensor, auxiliary: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return features and scale as the script's own methods compute them, each from the images."""
    crop = bundle.script.crop(images) if bundle.has("crop") else None
    return bundle.prefix(images, auxiliary), crop


def arsinh(images: Tensor) -> Tensor:
    """Return arsinh of the images in new memory. NumPy's has vector instructions where the processor does, torch's takes ten times as long."""
    if images.device.type != "cpu":
        return torch.arcsinh(images)
    return torch.from_numpy(np.arcsinh(images.numpy()))


def arsinh_stem(bundle: Bundle, images: Tensor, auxiliary: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return features, and None, of an SFNet whose intensity stretch is arsinh and which takes no auxiliary inputs.

    In the script the stretch of two bands of 96 px takes a third of the time of the stem and the first stage.
    """
    script = bundle.script
    mean, std = (part.reshape(1, -1, 1, 1) for part in (script.input_mean, script.input_std))
    x = arsinh(images).sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)
    resnet = script.resnet
    return resnet.layer1(resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(x))))), None


def cropped_once(bundle: Bundle, images: Tensor, auxiliary: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return features and scale of a GaMPEN without auxiliary inputs, with a single run of its localization network.

    The script's `prefix` and `crop` both run it. No dropout is in it, so its scale serves for both. At 96 px and the paper's width a run
    takes as long as a quarter of a pass.
    """
    script = bundle.script
    n_channels = getattr(script.localization, "0").weight.shape[1]
    x = arsinh(images).expand(-1, n_channels, -1, -1)  # (object, channel, y, x)
    scale = script.scale(x)
    theta = torch.zeros((len(x), 2, 3), dtype=x.dtype, device=x.device)
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    sampling = functional.affine_grid(theta, list(x.shape), align_corners=True)
    x = functional.grid_sample(x, sampling, mode="bilinear", padding_mode="zeros", align_corners=True)
    return script.vgg.first(x.contiguous(memory_format=torch.channels_last)), scale


FASTER: dict[str, Prefix] = {"gampen": cropped_once, "sfnet": arsinh_stem}
"""By the architecture."""


@torch.inference_mode()
def choose_prefix(bundle: Bundle, device: torch.device) -> Prefix:
    """Return the architecture's faster prefix where it gives what the script's methods give for made-up galaxies, else `script_prefix`.

    It may differ by rounding. Scripts of other versions may stretch intensities otherwise: what they compute is what counts.
    """
    faster = FASTER.get(bundle.metadata.architecture)
    if faster is None or bundle.metadata.input.auxiliary_inputs:
        return script_prefix
    images = made_up_inputs(bundle.metadata)[0].to(device)
    with repeatable_float32(device):
        expected = script_prefix(bundle, images, None)
        try:
            found = faster(bundle, images, None)
        except (AttributeError, RuntimeError):  # A network that has no such parts.
            return script_prefix
    is_same = all(_agree(*pair) for pair in zip(found, expected, strict=True))
    return faster if is_same else script_prefix


def _agree(found: Tensor | None, expected: Tensor | None) -> bool:
    """Return whether both are None, or the same but for rounding."""
    if found is None or expected is None:
        return found is expected
    if found.shape != expected.shape:
        return False
    return float((found - expected).abs().max()) <= EXACT * (1.0 + float(expected.abs().max()))
