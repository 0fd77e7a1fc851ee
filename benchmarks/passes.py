"""What does a Monte Carlo pass cost, against the plain network run as a whole with `nn.Dropout` for every pass?

On the CPU: a full-width GaMPEN at 96 and 143 px and the shipped bundles, 64 passes of one galaxy, what is computed once a galaxy
included; contenders of one precision are compared with the plain network in that precision, at the same batch size.
On a CUDA GPU also: passes a second at 239, 143 and 96 px, what share of the measured peak of matrix multiplication they reach, and
the hours that a million galaxies would take.

    python benchmarks/passes.py [--threads 1] [--passes 64] [--mean-passes 100] [--compiled]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import harness
import numpy as np
import torch
from harness import compare, report
from torch import Tensor, nn
from torch.nn import functional

from galbatch import models, simulation
from galbatch.core.types import njy_per_unit
from galbatch.models.inference import Sampler
from galbatch.models.networks import Gampen, Sfnet

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
GPU_SIZES_PX = (239, 143, 96)  # of the released GaMPENs
GALAXIES = 16
PEAK_SIDE = 8192  # of the matrices whose product is timed


class PlainGampen(nn.Module):
    """GaMPEN as one would write it: every layer in every pass."""

    def __init__(self, network: Gampen, rate: float) -> None:
        super().__init__()
        self.in_channels = network.in_channels
        self.localization = nn.Sequential(*network.localization)
        self.fc_loc = nn.Sequential(*network.fc_loc)
        kinds = {"HalvingPool": lambda _: nn.MaxPool2d(2), "Identity": lambda _: nn.Dropout(rate)}
        plain = [
            [kinds.get(type(layer).__name__, lambda same: same)(layer) for layer in layers]
            for layers in (network.vgg.features, network.vgg.classifier)
        ]
        self.features, self.classifier = nn.Sequential(*plain[0]), nn.Sequential(*plain[1])

    def forward(self, images: Tensor) -> Tensor:
        """One pass, from the images."""
        x = torch.arcsinh(images).expand(-1, self.in_channels, -1, -1).contiguous()
        scale = self.fc_loc(torch.flatten(self.localization(x), 1))
        theta = scale[:, :, None] * torch.eye(2, 3, device=x.device, dtype=x.dtype)
        grid = functional.affine_grid(theta, list(x.shape), align_corners=True)
        x = self.features(functional.grid_sample(x, grid, align_corners=True))
        return self.classifier(torch.flatten(functional.adaptive_avg_pool2d(x, 7), 1))


class PlainSfnet(nn.Module):
    """SFNet as one would write it: every layer in every pass."""

    def __init__(self, network: Sfnet, rate: float) -> None:
        super().__init__()
        self.network = network
        self.drop = nn.Dropout(rate)

    def forward(self, images: Tensor) -> Tensor:
        """One pass, from the images."""
        network, resnet, drop = self.network, self.network.resnet, self.drop
        mean, std = (part.reshape(1, -1, 1, 1) for part in (network.input_mean, network.input_std))
        x = (torch.arcsinh(images) - mean) / std
        x = resnet.layer1(resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(x)))))
        for stage in (resnet.layer2, resnet.layer3, resnet.layer4):
            x = stage(drop(x))
        x = drop(functional.relu(x.mean(dim=(2, 3))))
        largest, index = torch.topk(x, network.k, dim=1)
        return resnet.fc(torch.zeros_like(x).scatter(1, index, largest))


def plain_of(bundle: models.Bundle, dtype: torch.dtype) -> nn.Module:
    """The plain network with a bundle's weights, its dropout in training mode."""
    state, rate = dict(bundle.script.state_dict()), bundle.metadata.dropout_rate
    if bundle.metadata.architecture == "gampen":
        width = len(state["vgg.classifier.3.bias"]) / 4096
        network: Gampen | Sfnet = Gampen(
            bundle.grid.size_px,
            len(state["vgg.classifier.6.bias"]),
            width=width,
            in_channels=state["vgg.features.0.weight"].shape[1],
        )
        kind: Callable[..., nn.Module] = PlainGampen
    else:
        network = Sfnet(
            len(bundle.bands),
            len(state["resnet.fc.bias"]),
            k=bundle.metadata.n_top_features,
            width=len(state["resnet.bn1.weight"]) / 64,
        )
        kind = PlainSfnet
    network.load_state_dict(state)
    plain = kind(network, rate).eval().to(dtype)
    for module in plain.modules():
        module.train(isinstance(module, nn.Dropout))
    return plain


def galaxies(bundle: models.Bundle, n: int) -> np.ndarray:
    """(object, band, y, x) float32 in the bundle's unit."""
    truth = simulation.draw_population(n, bands=bundle.bands, seed=9)
    images = simulation.draw_stamps(
        truth, bands=bundle.bands, size_px=bundle.grid.size_px, seed=9, processes=1
    )
    return images / np.float32(njy_per_unit(bundle.metadata.input.zero_point_mag))


def run_engine(bundle: models.Bundle, engine: str, images: np.ndarray, n_passes: int) -> Callable[[], object]:
    """`n_passes` of every galaxy, as a run makes them, and what is computed once a galaxy."""
    made = models.executor(bundle, models.Engine.named(engine), "cpu")
    keys = np.random.default_rng(1).integers(-(2**62), 2**62, (len(images), n_passes))

    def run() -> object:
        return Sampler(made, images, batch=n_passes).run(np.arange(len(images)), keys)

    return run


def run_plain(
    bundle: models.Bundle, dtype: torch.dtype, images: np.ndarray, n_passes: int
) -> Callable[[], object]:
    """The whole network for as many rows, in the same batches."""
    plain = plain_of(bundle, dtype)
    rows = [torch.from_numpy(image).to(dtype).expand(n_passes, -1, -1, -1) for image in images]

    @torch.inference_mode()
    def run() -> object:
        return [plain(same) for same in rows]

    return run


def compare_engines(
    name: str, bundle: models.Bundle, *, n_galaxies: int, n_passes: int, compiled: bool
) -> None:
    """Every engine of each precision against the plain network in it."""
    images = galaxies(bundle, n_galaxies)
    for precision, dtype in DTYPES.items():
        kinds = ["torchscript"] * (precision == "float32") + ["rebuilt"] + ["compiled"] * compiled
        contenders = {f"plain network, {precision}": run_plain(bundle, dtype, images, n_passes)}
        for kind in kinds:
            engine = f"{kind}-{precision}"
            contenders[engine] = run_engine(bundle, engine, images, n_passes)
        measured = compare(contenders, rounds=3)
        report(f"passes of {name} in {precision}", measured, items=n_galaxies * n_passes, unit="pass")


@dataclass(frozen=True)
class OnGpu:
    """One engine on a GPU at one size."""

    engine: str
    size_px: int
    passes_per_s: float
    share_of_peak: float
    once_per_galaxy_s: float
    hours_for_a_million: float


def seconds(work: Callable[[], object], device: str) -> float:
    """Of one run, until the device is done."""
    started = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


@dataclass(frozen=True)
class Load:
    """What is run at each size: `passes` of `galaxies`, in batches of `batch` rows; `mean_passes` is for the projection."""

    galaxies: int = GALAXIES
    passes: int = 256
    batch: int = 512
    mean_passes: float = 100.0
    width: float = 1.0


def measure(engine: str, size_px: int, device: str, *, load: Load, peak: float) -> OnGpu:
    """Passes a second of an engine, and what follows."""
    bundle = models.wide_gampen(size_px, width=load.width)
    made = models.executor(bundle, models.Engine.named(engine), device)
    images = galaxies(bundle, load.galaxies)
    rows = np.arange(load.galaxies)
    keys = np.random.default_rng(1).integers(-(2**62), 2**62, (load.galaxies, load.passes))
    sampler = Sampler(made, images, batch=load.batch)
    sampler.run(rows, keys)  # compiles, and takes the memory
    once = min(seconds(lambda: Sampler(made, images, batch=load.batch), device) for _ in range(3))
    run = min(seconds(lambda: sampler.run(rows, keys), device) for _ in range(3))
    rate, each = load.galaxies * load.passes / run, once / load.galaxies
    return OnGpu(
        engine,
        size_px,
        rate,
        rate * models.pass_flops(size_px, load.width) / peak,
        each,
        million_hours(rate, each, load.mean_passes),
    )


def million_hours(passes_per_s: float, once_per_galaxy_s: float, mean_passes: float) -> float:
    """Hours that a million galaxies take on one GPU."""
    return 1e6 * (mean_passes / passes_per_s + once_per_galaxy_s) / 3600.0


def gpu_engines(device: str) -> tuple[str, ...]:
    """The engine that ``auto`` takes for such a network, first, and others to compare it with."""
    others = ("torchscript-float32", "rebuilt-float32", "rebuilt-bfloat16", "compiled-float16")
    return tuple(dict.fromkeys((models.auto_engine(device), *others)))


def on_gpu(
    load: Load,
    *,
    sizes_px: tuple[int, ...] = GPU_SIZES_PX,
    engines: tuple[str, ...] | None = None,
    device: str = "cuda",
    peak_side: int = PEAK_SIDE,
) -> list[OnGpu]:
    """Every engine at every size, against the rate of a product of matrices in its precision."""
    engines = engines or gpu_engines(device)
    precisions = dict.fromkeys(models.Engine.named(engine).precision for engine in engines)
    peaks = {one: models.matmul_rate(device, one, side=peak_side) for one in precisions}
    found = [
        measure(engine, size_px, device, load=load, peak=peaks[models.Engine.named(engine).precision])
        for size_px in sizes_px
        for engine in engines
    ]
    print(f"full-width GaMPEN on {device}; products of matrices reach")
    for precision, peak in peaks.items():
        print(f"  {precision}: {peak / 1e12:.3g} TFLOP/s")
    for row in found:
        print(
            f"  {row.size_px:4d} px  {row.engine:<20} {row.passes_per_s:10.1f} passes/s, {row.share_of_peak:6.1%} of that; a "
            f"million galaxies of {load.mean_passes:g} passes: {row.hours_for_a_million:.2f} hours"
        )
    return found


def main() -> None:
    """All questions that this machine can answer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--passes", type=int, default=64)
    parser.add_argument(
        "--mean-passes", type=float, default=100.0, help="passes a galaxy needs, for the projection"
    )
    parser.add_argument(
        "--compiled", action="store_true", help="also through torch.compile, which takes minutes"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for size_px in (96, 143):
        compare_engines(
            f"a full-width GaMPEN at {size_px} px",
            models.wide_gampen(size_px),
            n_galaxies=1,
            n_passes=options.passes,
            compiled=options.compiled,
        )
    for spec in ("demo:gampen", "demo:sfnet"):
        bundle = models.load_bundle(models.bundle_path(spec))
        compare_engines(spec, bundle, n_galaxies=16, n_passes=options.passes, compiled=options.compiled)
    if torch.cuda.is_available():
        found = on_gpu(Load(mean_passes=options.mean_passes))
        content = {"device": torch.cuda.get_device_name(), "rows": [dataclasses.asdict(row) for row in found]}
        (harness.RESULTS / "passes_on_a_gpu.json").write_text(json.dumps(content, indent=1) + "\n")
    else:
        print(
            "passes/s on a GPU, and the hours for a million galaxies: left out, torch finds no CUDA GPU here"
        )


if __name__ == "__main__":
    main()
