"""How long do posteriors of equal quality take, against the GaMPEN paper's procedure, and the summary against kernel densities?

    python benchmarks/posterior.py demo:gampen
    python benchmarks/posterior.py wide.pt --engines rebuilt-float32 rebuilt-bfloat16

The paper's procedure, as a plain loop: 1000 times the whole network with nn.Dropout, eager and in float32, and one draw from
each pass's normal distribution; then a kernel density for each galaxy and parameter, with a numerically integrated CDF. A part
of the loop is timed and scaled up. Against it `infer_block`, whole, with adaptive passes.

Equal quality: of the tolerances tried the largest at which the RMS error of the default quantiles, against many passes, is no
worse than that of 1000 draws. Both are repeated with other blocks of 1000 of the many passes, which begin at every 200th. Shares of the variance
between the passes are set by scaling the dropout rate. The many passes are kept in a folder and gone on with by the next run, so that
a run may be cut short.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from harness import RESULTS, compare
from scipy.stats import gaussian_kde
from torch import Tensor, nn

from galbatch import models, simulation
from galbatch.config import PosteriorConfig
from galbatch.core.types import CutoutBlock, njy_per_unit
from galbatch.models import Engine, Ensemble, Execution, executor
from galbatch.models.heads import GaussianPasses, read_gaussian, read_passes
from galbatch.models.inference import GROUP_OBJECTS, RawPasses, Sampler, StoppingRule, estimate_quantiles
from galbatch.models.inference.summaries import columns_of
from galbatch.models.networks import Gampen, HalvingPool, draw_keys
from galbatch.models.posterior import from_output, quantities_of, summarize_mixture

Floats = npt.NDArray[np.float64]
Images = npt.NDArray[np.float32]

SIMULATION_SEED = 2031
N_DRAWS = 1000  # of the paper
TOLERANCES = (0.4, 0.3, 0.25, 0.2, 0.15, 0.125, 0.1, 0.095, 0.09, 0.075, 0.05)
SHARES = (0.05, 0.5)
BEGINNINGS = 200  # passes between them: so often both procedures are repeated
PIECE = 500  # passes that are kept at a time
KDE_POINTS = 1000
SUMMARIES = 2048  # objects: half a second
BLOCK_OBJECTS = 256
LEVELS = np.array(PosteriorConfig().quantiles)


class PlainGampen(nn.Module):
    """GaMPEN as torch's users would write it: torch's own pools and nn.Dropout, run whole."""

    def __init__(self, network: Gampen, rate: float) -> None:
        super().__init__()
        self.network = network
        vgg = network.vgg
        self.features = nn.Sequential(*(_plain(layer, rate) for layer in vgg.features))
        self.classifier = nn.Sequential(*(_plain(layer, rate) for layer in vgg.classifier))
        self.localization = nn.Sequential(*network.localization)
        self.fc_loc = nn.Sequential(*network.fc_loc)

    def forward(self, images: Tensor) -> Tensor:
        """(object, band, y, x) to (object, output)."""
        x = torch.arcsinh(images).expand(-1, self.network.in_channels, -1, -1)
        scale = self.fc_loc(torch.flatten(self.localization(x), 1))
        theta = torch.zeros(len(x), 2, 3)
        theta[:, 0, 0] = theta[:, 1, 1] = scale[:, 0]
        sampling = nn.functional.affine_grid(theta, list(x.shape), align_corners=True)
        x = self.features(nn.functional.grid_sample(x, sampling, align_corners=True))
        x = nn.functional.adaptive_avg_pool2d(x, (7, 7))
        return self.classifier(torch.flatten(x, 1))


def _plain(layer: nn.Module, rate: float) -> nn.Module:
    if isinstance(layer, nn.Identity):
        return nn.Dropout(rate)
    return nn.MaxPool2d(2, 2) if isinstance(layer, HalvingPool) else layer


def plain_network(bundle: models.Bundle) -> PlainGampen:
    """With the bundle's weights and rate, dropout on; what it gives without dropout is what the bundle gives."""
    weights, rate = bundle.script.state_dict(), bundle.metadata.dropout_rate
    first = weights["vgg.features.0.weight"]
    n_out = len(weights["vgg.classifier.6.bias"])
    network = Gampen(bundle.grid.size_px, n_out, width=first.shape[0] / 64, in_channels=first.shape[1])
    network.load_state_dict(weights)
    network.eval()
    plain = PlainGampen(network, rate).eval()
    images = torch.from_numpy(
        np.random.default_rng(1).normal(0, 3, (2, len(bundle.bands), *[bundle.grid.size_px] * 2))
    )
    with torch.inference_mode():
        network.dropout_rate = 0.0
        keys = torch.zeros(2, dtype=torch.int64)
        expected = network.sample(network.prefix(images.float()), keys)
        torch.testing.assert_close(plain(images.float()), expected, rtol=1e-3, atol=1e-3)
    for module in plain.modules():
        if isinstance(module, nn.Dropout):
            module.train()
    return plain


def at_rate(bundle: models.Bundle, rate: float) -> models.Bundle:
    """The same network with another dropout rate, under a name of its own; without its stopping calibration, which is of its own rate."""
    if rate == bundle.metadata.dropout_rate:
        return bundle
    script = copy.deepcopy(bundle.script)
    script.dropout_rate = rate
    metadata = replace(bundle.metadata, dropout_rate=rate, stopping=None)
    return models.Bundle(metadata, f"{bundle.sha256[:16]}-{rate:.3g}", script)


def draw_galaxies(bundle: models.Bundle, n_galaxies: int) -> Images:
    """Held-out galaxies of the population that the bundle was trained on, in nJy."""
    population = bundle.metadata.training.get("population", "paper")
    return simulation.training_set(
        n_galaxies,
        bands=bundle.bands,
        size_px=bundle.grid.size_px,
        population=population,
        seed=SIMULATION_SEED,
    ).images


def in_unit(bundle: models.Bundle, images: Images) -> Images:
    """Of nJy."""
    return images / np.float32(njy_per_unit(bundle.metadata.input.zero_point_mag))


def outputs_of(
    bundle: models.Bundle, images: Images, engine: Engine, passes: range
) -> npt.NDArray[np.float32]:
    """(object, pass, output); images in the bundle's unit."""
    rows = np.arange(len(images))
    keys = draw_keys(rows, seed=1, bundle_sha256=bundle.sha256, passes=passes)
    return Sampler(executor(bundle, engine, "cpu"), images, batch=256).run(rows, keys).outputs


def share_of(passes: GaussianPasses) -> float:
    """Median over objects and parameters of the variance that is between the passes."""
    within = np.diagonal(passes.within(), axis1=1, axis2=2)
    between = passes.mean.var(axis=1, ddof=1)
    return float(np.median(between / (within + between)))


def with_share(bundle: models.Bundle, images: Images, engine: Engine, share: float) -> models.Bundle:
    """The bundle at the rate that gives a share; just below it if that is small."""
    rate, wanted = bundle.metadata.dropout_rate, share if share > 0.1 else 0.9 * share
    for _ in range(6):
        trial = at_rate(bundle, rate)
        found = share_of(read_passes(outputs_of(trial, images, engine, range(96)), bundle.metadata))
        if abs(found / wanted - 1) < 0.08:
            break
        # Variance between passes is proportional to the rate, as long as this is small.
        rate = min(0.3, rate * (wanted / (1 - wanted)) / (found / (1 - found)))
    return trial


def many_passes(
    bundle: models.Bundle, images: Images, engine: Engine, *, n_passes: int, folder: Path
) -> npt.NDArray[np.float32]:
    """(object, pass, output), from the folder as far as they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{bundle.sha256}_{engine.name}_{len(images)}.npy"
    found = np.load(path) if path.exists() else np.empty((len(images), 0, 0), np.float32)
    while found.shape[1] < n_passes:
        more = outputs_of(bundle, images, engine, range(found.shape[1], found.shape[1] + PIECE))
        found = np.concatenate([found, more], axis=1) if found.shape[1] else more
        np.save(path, found)
    return found[:, :n_passes]


@dataclass(frozen=True)
class Quality:
    """RMS errors of the default quantiles, over objects, parameters and levels, in posterior standard deviations.

    Attributes
    ----------
    draws : of 1000 draws, one a pass
    adaptive : of adaptive passes, by tolerance: error, mean stated error, mean passes
    tolerance : the largest whose error is no worse than the draws'
    """

    draws: float
    adaptive: dict[float, tuple[float, float, float]]
    tolerance: float


def quality(
    outputs: npt.NDArray[np.float32], bundle: models.Bundle, min_passes: int | None = None
) -> Quality:
    """From many passes: blocks of 1000 are as many repetitions of both procedures; those at the end go on with the first passes."""
    ensemble, metadata = Ensemble((bundle,)), bundle.metadata
    blocks = [
        np.roll(outputs, -first, axis=1)[:, :N_DRAWS] for first in range(0, outputs.shape[1], BEGINNINGS)
    ]
    quantities = [q for q in quantities_of(metadata.parameters) if not q.is_magnitude]
    truth = estimate_quantiles(ensemble.passes([outputs.astype(np.float64)]), quantities, LEVELS)
    off = [
        np.quantile(_draws(ensemble.passes([block.astype(np.float64)]), i), LEVELS, axis=1)
        for i, block in enumerate(blocks)
    ]
    errors = [(np.moveaxis(q, 0, -1) - truth.output) / truth.std[..., None] for q in off]
    draws = _rms(np.stack(errors))
    adaptive = {}
    for tolerance in TOLERANCES:
        rule = StoppingRule.of(
            Ensemble((bundle,)), PosteriorConfig(tolerance=tolerance, min_passes=min_passes)
        )
        stops = [_stopped(block, rule) for block in blocks]
        errors = [(output - truth.output) / truth.std[..., None] for output, _, _ in stops]
        expected, passes = (np.concatenate([stop[k] for stop in stops]) for k in (1, 2))
        adaptive[tolerance] = (_rms(np.stack(errors)), _rms(expected), float(passes.mean()))
    good = [tolerance for tolerance, (error, _, _) in adaptive.items() if error <= draws]
    return Quality(draws, adaptive, max(good))


def _draws(passes: GaussianPasses, seed: int) -> Floats:
    """(object, draw, parameter)."""
    keys = draw_keys(np.arange(len(passes.mean)), seed=seed, bundle_sha256="draws", passes=range(N_DRAWS))
    return passes.draws(keys)


def _rms(values: npt.ArrayLike) -> float:
    return float(np.sqrt(np.square(values).mean()))


def _stopped(outputs: npt.NDArray[np.float32], rule: StoppingRule) -> tuple[Floats, Floats, Floats]:
    """What objects say when they stop: outputs, errors (object, parameter, level) and passes (object,)."""
    quantities = [q for q in quantities_of(rule.ensemble.metadata.parameters) if not q.is_magnitude]
    parameters = [
        i for i, q in enumerate(quantities_of(rule.ensemble.metadata.parameters)) if not q.is_magnitude
    ]
    shape = (len(outputs), len(quantities), len(LEVELS))
    output, error, used = np.empty(shape), np.empty(shape), np.zeros(len(outputs))
    left = np.arange(len(outputs))
    for n in rule.checkpoints:
        found = rule.estimate([outputs[left, :n]], [np.zeros((len(left), n), np.int64)])
        enough = found.converged(rule.tolerance) | (n == rule.checkpoints[-1])
        done = left[enough]
        output[done], error[done] = found.output[enough][:, parameters], found.error[enough][:, parameters]
        used[done] = n
        left = left[~enough]
        if not len(left):
            break
    return output, error, used


def block_of(bundle: models.Bundle, images: Images) -> CutoutBlock:
    """Cutouts in nJy, as infer_block takes them."""
    n, n_bands = images.shape[:2]
    of_band = np.ones((n, n_bands), np.float32)
    zeros = np.zeros((n, 2))
    return CutoutBlock(
        bundle.grid, bundle.bands, np.arange(n), zeros[:, 0], zeros[:, 0], images, None, None,
        zeros, zeros, np.zeros((n, 2, 2)), np.full(n, ""), of_band, of_band, of_band, of_band, np.zeros(n, np.int32),
    )  # fmt: skip


def paper_pass(plain: PlainGampen, images: Tensor, rng: np.random.Generator) -> Floats:
    """One pass of all galaxies, and a draw from each one's normal distribution, (object, parameter)."""
    with torch.inference_mode():
        outputs = plain(images).numpy()[:, None]
    passes = read_gaussian(outputs, n_parameters(outputs.shape[2]))
    normal = rng.normal(size=passes.mean.shape)
    return (passes.mean + np.einsum("otij,otj->oti", passes.factor, normal))[:, 0]


def n_parameters(n_outputs: int) -> int:
    """Of a normal head: (3 n + n^2) / 2 outputs."""
    return round((math.sqrt(9 + 8 * n_outputs) - 3) / 2)


def kernel_density(draws: Floats, *, exact: bool = True) -> Floats:
    """Quantiles and mode of one galaxy's parameter: a kernel density of its draws (draw,) and the CDF's integral.

    `exact` : the CDF by scipy's integral of the density up to each point; otherwise the trapezoids of the density.
    """
    density = gaussian_kde(draws)
    grid = np.linspace(draws.min(), draws.max(), KDE_POINTS)
    height = density(grid)
    if exact:
        below = np.array([density.integrate_box_1d(-np.inf, point) for point in grid])
    else:
        below = np.concatenate([[0.0], np.cumsum(0.5 * (height[1:] + height[:-1]) * np.diff(grid))])
    return np.append(np.interp(LEVELS, below, grid), grid[np.argmax(height)])


def time_inference(
    bundle: models.Bundle, images: Images, tolerance: float, args: argparse.Namespace
) -> dict[str, Any]:
    """Seconds a galaxy of the paper's procedure, whole, and of `infer_block` with each engine; ratios pair by pair."""
    plain, here = plain_network(bundle), torch.from_numpy(in_unit(bundle, images))
    rng, block = np.random.default_rng(1), block_of(bundle, images)
    draws = from_draws(bundle, images)

    def paper() -> None:
        for _ in range(args.loop_passes):
            paper_pass(plain, here, rng)

    def densities() -> None:
        for column in draws:
            kernel_density(column)

    passes: dict[str, float] = {}

    def ours(name: str) -> Callable[[], None]:
        posterior = PosteriorConfig(tolerance=tolerance, min_passes=args.min_passes)
        everything = np.ones(len(images), bool)

        def run() -> None:
            execution = Execution(Engine.named(name))
            found = models.infer_block(
                bundle,
                models.BlockInputs(block, everything),
                name="m",
                posterior=posterior,
                execution=execution,
            )
            passes[name] = float(found["m_passes"].mean())

        return run

    contenders = {"loop": paper, "densities": densities, **{name: ours(name) for name in args.engines}}
    rows = {row.name: row.seconds for row in compare(contenders, rounds=args.rounds)}
    n = len(images)
    loop = [seconds / args.loop_passes * N_DRAWS / n for seconds in rows["loop"]]
    whole = [a + b for a, b in zip(loop, rows["densities"], strict=True)]
    found = {"paper_s": statistics.median(whole), "of_it_densities_s": statistics.median(rows["densities"])}
    for name in args.engines:
        ratios = [a / (b / n) for a, b in zip(whole, rows[name], strict=True)]
        found[name] = {
            "passes": passes[name],
            "seconds": statistics.median(rows[name]) / n,
            "times_faster": [statistics.median(ratios), min(ratios), max(ratios)],
        }
    return found


def from_draws(bundle: models.Bundle, images: Images) -> list[Floats]:
    """1000 draws, in its unit, of each parameter of one galaxy; from few passes, which cost time."""
    outputs = outputs_of(bundle, in_unit(bundle, images[:1]), Engine(), range(50))
    passes = read_passes(np.tile(outputs, (1, N_DRAWS // 50, 1)), bundle.metadata)
    drawn = _draws(passes, 1)[0]
    return [from_output(drawn[:, i], parameter) for i, parameter in enumerate(bundle.metadata.parameters)]


def time_summary(bundle: models.Bundle, images: Images, engine: Engine, rounds: int) -> dict[str, Any]:
    """64 passes: their summary for a group and a block, against kernel densities and against the passes themselves."""
    group = np.resize(images, (GROUP_OBJECTS, *images.shape[1:]))
    keys = draw_keys(np.arange(len(group)), seed=1, bundle_sha256=bundle.sha256, passes=range(64))
    sampler = Sampler(executor(bundle, engine, "cpu"), in_unit(bundle, group), batch=256)
    outputs = sampler.run(np.arange(len(group)), keys).outputs
    of_group = read_passes(outputs, bundle.metadata)
    of_block = read_passes(np.tile(outputs, (BLOCK_OBJECTS // GROUP_OBJECTS, 1, 1)), bundle.metadata)
    parameters = [q for q in quantities_of(bundle.metadata.parameters) if not q.is_magnitude]
    draws = from_draws(bundle, images)
    ensemble, raw = Ensemble((bundle,)), RawPasses(outputs)

    def densities(exact: bool) -> None:
        for column in draws:
            kernel_density(column, exact=exact)

    # Long enough that a busy machine interrupts all alike.
    def summaries(passes: GaussianPasses) -> None:
        for _ in range(SUMMARIES // len(passes.mean)):
            for quantity in parameters:
                summarize_mixture(passes, quantity, LEVELS)

    def columns() -> None:
        for _ in range(SUMMARIES // len(outputs)):
            columns_of(ensemble, [raw], [keys], method="mixture", quantiles=tuple(LEVELS))

    contenders = {
        "densities": lambda: densities(True),
        "trapezoids": lambda: densities(False),
        "block": lambda: summaries(of_block),
        "group": lambda: summaries(of_group),
        "columns": columns,
        "passes": lambda: sampler.run(np.arange(1), keys[:1]),
    }
    seconds = {row.name: row.seconds for row in compare(contenders, rounds=rounds)}
    each = {name: [s / SUMMARIES for s in seconds[name]] for name in ("block", "group", "columns")}

    def ratio(a: Sequence[float], b: Sequence[float]) -> float:
        return statistics.median(x / y for x, y in zip(a, b, strict=True))

    return {
        "engine": engine.name,
        "summary_ms": {name: 1e3 * statistics.median(s) for name, s in each.items()},
        "times_faster_than_densities": {name: ratio(seconds["densities"], s) for name, s in each.items()},
        "times_faster_than_trapezoids": {name: ratio(seconds["trapezoids"], s) for name, s in each.items()},
        "share_of_inference": {name: ratio(s, seconds["passes"]) for name, s in each.items()},
    }


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", help="a GaMPEN with a gaussian head: a path, or demo:gampen")
    parser.add_argument(
        "--engines", nargs="+", default=["torchscript-float32", "rebuilt-float32", "rebuilt-bfloat16"]
    )
    parser.add_argument("--galaxies", type=int, default=20, help="timed")
    parser.add_argument("--reference-galaxies", type=int, default=20, help="of which many passes are made")
    parser.add_argument("--reference-passes", type=int, default=20_000)
    parser.add_argument(
        "--folder", type=Path, default=Path(".benchmarks/posterior"), help="keeps many passes"
    )
    parser.add_argument("--loop-passes", type=int, default=20, help="of the paper's 1000 that are timed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--shares", type=float, nargs="+", default=SHARES, help="those left out stay as they were"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--min-passes", type=int, help="as in [posterior]; left out: the calibration's start, or 64"
    )
    parser.add_argument(
        "--rates",
        type=float,
        nargs="+",
        help="that give the shares; left out: searched for. At its own rate a bundle stops by its own calibration",
    )
    return parser.parse_args()


def main() -> None:
    """Both questions, at both shares."""
    args = parsed()
    torch.set_num_threads(args.threads)
    bundle = models.load_bundle(models.bundle_path(args.bundle))
    images = draw_galaxies(bundle, args.galaxies)
    engine, few = Engine.named(args.engines[-1]), in_unit(bundle, images[: args.reference_galaxies])
    name = "".join(c if c.isalnum() else "_" for c in bundle.metadata.name)
    path = RESULTS / f"posteriors_of_{name}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found["summary"] = time_summary(bundle, images, engine, max(5, args.rounds))
    print(json.dumps(found["summary"]), flush=True)
    for share, rate in zip(args.shares, args.rates or [None] * len(args.shares), strict=True):
        scaled = at_rate(bundle, rate) if rate else with_share(bundle, few, engine, share)
        outputs = many_passes(scaled, few, engine, n_passes=args.reference_passes, folder=args.folder)
        has = share_of(read_passes(outputs, bundle.metadata))
        good = quality(outputs, scaled, args.min_passes)
        print(f"share {has:.3f} at rate {scaled.metadata.dropout_rate:.3g}: {good}", flush=True)
        times = time_inference(scaled, images, good.tolerance, args)
        print(json.dumps(times), flush=True)
        started = f", from {args.min_passes} passes" if args.min_passes else ""
        found[f"share {share:g}{started}"] = {
            "share": has,
            "rate": scaled.metadata.dropout_rate,
            "quality": asdict(good),
            "times": times,
            "arguments": {**vars(args), "folder": str(args.folder)},
        }
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
