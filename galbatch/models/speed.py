"""The speed of the engines on this machine: passes a second of a GaMPEN of the paper's width, and what its device could do."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from galbatch.models.bundle import Bundle, Ensemble, bundle_path, load_bundle, made_up_images
from galbatch.models.engines import Engine, choose_engine, executor
from galbatch.models.heads import outputs_per_pass
from galbatch.models.inference import Sampler
from galbatch.models.metadata import DomainInfo
from galbatch.models.networks import VGG16_BLOCKS, Gampen
from galbatch.models.training import script_of

__all__ = [
    "EngineSpeed",
    "auto_engine",
    "device_difference",
    "matmul_rate",
    "measure_speed",
    "pass_flops",
    "wide_gampen",
]

DROPOUT_RATE = 4e-4  # of the released GaMPENs, 2e-4 to 7e-4
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class EngineSpeed:
    """The speed of an engine at one size of cutouts.

    Attributes
    ----------
    passes_per_s : passes a second
    matmul_share : its multiplications and additions of a second, over those of a product of large matrices in its precision
    """

    engine: str
    size_px: int
    passes_per_s: float
    matmul_share: float


def wide_gampen(size_px: int, *, width: float = 1.0) -> Bundle:
    """Return a GaMPEN with the paper's channels, or a part of them, and random weights, on which the cost does not depend."""
    demo = load_bundle(bundle_path("demo:gampen")).metadata
    torch.manual_seed(0)
    network = Gampen(size_px, outputs_per_pass(demo), width=width, dropout_rate=DROPOUT_RATE)
    metadata = dataclasses.replace(
        demo,
        name=f"gampen-{size_px}px",
        input=dataclasses.replace(demo.input, size_px=size_px),
        dropout_rate=DROPOUT_RATE,
        domain=DomainInfo(),
    )
    return Bundle(metadata, f"{size_px}", script_of(network))


def auto_engine(device: str) -> str:
    """Return the name of the engine that ``auto`` takes for a GaMPEN of the paper's width on a device."""
    ensemble = Ensemble((wide_gampen(96),))
    return choose_engine(ensemble, kind="auto", precision="auto", device=device).name


def pass_flops(size_px: int, width: float = 1.0) -> float:
    """Return the additions and multiplications of the dense layers behind GaMPEN's first dropout, for one row."""
    side, channels, total = size_px, 0, 0.0
    for block in VGG16_BLOCKS:
        for size in block:
            n_out = round(size * width)
            total += 2 * 9 * channels * n_out * side**2
            channels = n_out
        side //= 2
    hidden = round(4096 * width)
    return total + 2 * hidden * (channels * 49 + hidden + 9)


def matmul_rate(device: str, precision: str, *, side: int) -> float:
    """Return the additions and multiplications a second of a product of square matrices, the best of three."""
    a, b = (torch.randn(side, side, device=device).to(DTYPES[precision]) for _ in range(2))
    seconds = [_seconds(lambda: torch.mm(a, b), device) for _ in range(4)]
    # The first one takes memory and chooses a kernel.
    return 2.0 * side**3 / min(seconds[1:])


def measure_speed(
    size_px: int, engine: str, device: str, *, n_passes: int, width: float = 1.0, side: int = 1024
) -> EngineSpeed:
    """Return the speed of an engine, from `n_passes` of each of two made-up galaxies.

    Parameters
    ----------
    size_px : size of the cutouts
    engine : name of the engine, such as rebuilt-float16
    device : cpu or cuda
    n_passes : passes of each galaxy
    width : part of the paper's channels
    side : rows of the matrices that are multiplied for comparison

    Raises
    ------
    BundleError
        The engine cannot be made on this machine.
    """
    bundle, chosen = wide_gampen(size_px, width=width), Engine.named(engine)
    images = made_up_images(bundle.metadata).numpy()
    keys = np.random.default_rng(1).integers(-(2**62), 2**62, (len(images), n_passes))
    sampler = Sampler(executor(bundle, chosen, device), images, batch=min(512, images.shape[0] * n_passes))
    rows = np.arange(len(images))
    sampler.run(rows, keys)  # takes the memory, and compiles
    rate = keys.size / _seconds(lambda: sampler.run(rows, keys), device)
    peak = matmul_rate(device, chosen.precision, side=side)
    return EngineSpeed(engine, size_px, rate, rate * pass_flops(size_px, width) / peak)


def device_difference(name: str, engine: str, device: str, *, n_passes: int = 16) -> float:
    """Return the largest difference of a shipped bundle's outputs on a device from those of its script on the CPU.

    Parameters
    ----------
    name : such as demo:gampen
    engine : name of the engine on the device
    device : cpu or cuda
    n_passes : passes of each of two made-up galaxies, with the same keys: where masks differ, so do outputs, by order 1

    Returns
    -------
    float
        In the network's own units, in which outputs are of order 1.
    """
    bundle = load_bundle(bundle_path(name))
    images = made_up_images(bundle.metadata).numpy()
    keys = np.random.default_rng(1).integers(-(2**62), 2**62, (len(images), n_passes))
    found = [
        Sampler(executor(bundle, Engine.named(one), where), images, batch=64).run(np.arange(2), keys).outputs
        for one, where in (("torchscript-float32", "cpu"), (engine, device))
    ]
    return float(np.abs(found[1] - found[0]).max())


def _seconds(work: Callable[[], object], device: str) -> float:
    """Return the time that a call takes, until the device is done."""
    started = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
