"""How much of the posteriors is epistemic: the share of the variance that comes from between the passes.

For each bundle at several dropout rates, over simulated galaxies that no training has seen: share, weight of the tails of the
passes' means, and the passes that the Monte Carlo error of the default quantiles asks for; by size and by magnitude.

    python benchmarks/epistemic_share.py demo:gampen demo:gampen_survey demo:sfnet
    python benchmarks/epistemic_share.py wide.pt --galaxies 96 --passes 64 --bf16

The rate of a loaded script is an attribute, so one bundle serves for all rates. The network is as it was trained, at its own rate.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from harness import RESULTS
from scipy.special import ndtr, ndtri

from galbatch import models, simulation
from galbatch.core.types import ab_mag, njy_per_unit
from galbatch.models.heads import read_passes
from galbatch.models.networks import draw_keys
from galbatch.models.posterior import Passes, to_output

Floats = npt.NDArray[np.float64]

RATES = (2e-4, 4e-4, 7e-4)
SIMULATION_SEED = 2027  # the shipped bundles were trained on galaxies of seed 101
LEVELS = (0.02275, 0.15865, 0.5, 0.84135, 0.97725)  # run.toml's default
TOLERANCE = 0.05  # run.toml's default
UNDETECTED_JUMPS_FLOOR = (
    176  # passes that an adaptive run asks for at that tolerance in any case: see models/stopping.py
)
MAX_PASSES = 1000  # run.toml's default
DRAWS = 1000  # of the GaMPEN paper
N_BINS = 4
CACHE_BYTES = 8 * 2**20  # of first maps that a batch holds at most
FAR = 4.0  # standard deviations; of normal passes 63 in a million lie beyond


@dataclass(frozen=True)
class Galaxies:
    """Held-out galaxies.

    Attributes
    ----------
    images : (object, band, y, x) float32, in the bundle's unit
    truth : (object, parameter) float64, standardized
    re_arcsec, mag : (object,) float64; the magnitude in the bundle's first band
    """

    images: npt.NDArray[np.float32]
    truth: Floats
    re_arcsec: Floats
    mag: Floats


@dataclass(frozen=True)
class PassStatistics:
    """What the passes of some objects say, (object, parameter) float64 each.

    Attributes
    ----------
    share : of the variance that is between the passes
    kurtosis : of the passes' means; 3 for normal ones
    far : share of the passes whose mean lies more than FAR standard deviations of the means off
    needed : passes for which the standard error of the worst quantile is TOLERANCE posterior standard deviations
    equal : passes that give every quantile at least as well as the paper's DRAWS draws, one a pass
    residual, std : of the posterior's mean from the truth, and its standard deviation, standardized
    """

    share: Floats
    kurtosis: Floats
    far: Floats
    needed: Floats
    equal: Floats
    residual: Floats
    std: Floats


def draw_galaxies(bundle: models.Bundle, n_galaxies: int, *, seed: int = SIMULATION_SEED) -> Galaxies:
    """Galaxies of the population that the bundle was trained on."""
    metadata = bundle.metadata
    drawn = simulation.training_set(
        n_galaxies,
        bands=bundle.bands,
        size_px=bundle.grid.size_px,
        population=metadata.training.get("population", "paper"),
        seed=seed,
    )
    images = drawn.images / np.float32(njy_per_unit(metadata.input.zero_point_mag))
    columns = {name: drawn.truth.column(name).to_numpy() for name in drawn.truth.column_names}
    truth = np.stack([to_output(columns[p.name], p) for p in metadata.parameters], axis=1)
    mag = ab_mag(columns[f"flux_{bundle.bands[0]}_njy"])
    return Galaxies(images, truth, columns["re_arcsec"], mag)


@torch.inference_mode()
def outputs_at(
    bundle: models.Bundle,
    images: npt.NDArray[np.float32],
    rate: float,
    *,
    n_passes: int,
    bf16: bool = False,
) -> npt.NDArray[np.float32]:
    """Passes at a dropout rate, (object, pass, output); 0: the one pass without dropout."""
    own, bundle.script.dropout_rate = bundle.script.dropout_rate, rate
    keys = draw_keys(
        np.arange(len(images)), seed=1, bundle_sha256=bundle.sha256, passes=np.arange(n_passes if rate else 1)
    )
    try:
        found = [_passes_of(bundle, image[None], of, bf16) for image, of in zip(images, keys, strict=True)]
    finally:
        bundle.script.dropout_rate = own
    return np.stack(found)


def _passes_of(
    bundle: models.Bundle, image: npt.NDArray[np.float32], keys: npt.NDArray[np.int64], bf16: bool
) -> npt.NDArray[np.float32]:
    """(pass, output) of one object (1, band, y, x)."""
    features = bundle.prefix(torch.from_numpy(image))
    parts = []
    batch = max(8, CACHE_BYTES // features.nbytes)
    for start in range(0, len(keys), batch):
        some = torch.from_numpy(keys[start : start + batch])
        rows = features.expand(len(some), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            parts.append(bundle.script.sample(rows, some).float())
    return torch.cat(parts).numpy()


def statistics_of(passes: Passes, truth: Floats) -> PassStatistics:
    """Shares and tails. Variances between passes have n - 1 below, so that few passes do not lower the share."""
    n = passes.mean.shape[1]
    within = np.diagonal(passes.within(), axis1=1, axis2=2)
    centered = passes.mean - passes.mean.mean(axis=1, keepdims=True)
    between = np.square(centered).sum(axis=1) / (n - 1)
    score = centered / np.sqrt(between)[:, None]
    std = np.sqrt(within + between)
    needed, equal = zip(*(needed_passes(passes, i, std[:, i]) for i in range(truth.shape[1])), strict=True)
    return PassStatistics(
        between / (within + between),
        (score**4).mean(axis=1),
        (np.abs(score) > FAR).mean(axis=1),
        np.stack(needed, axis=1),
        np.stack(equal, axis=1),
        passes.mean.mean(axis=1) - truth,
        std,
    )


def needed_passes(passes: Passes, index: int, std: Floats) -> tuple[Floats, Floats]:
    """`PassStatistics.needed` and `PassStatistics.equal` of one parameter, (object,), by the delta method.

    The error of a draw's share below is q (1 - q): the density is the same for both and drops out.
    """
    marginal, levels = passes.marginal(index), np.asarray(LEVELS)
    quantiles = marginal.quantiles(levels)
    variance = marginal.cdf(quantiles).var(axis=1, ddof=1)  # (object, level), of a single pass
    needed = variance / np.square(marginal.density(quantiles) * std[:, None] * TOLERANCE)
    return needed.max(axis=1), DRAWS * (variance / (levels * (1 - levels))).max(axis=1)


def normal_needed(share: float) -> float:
    """As `PassStatistics.needed`, of passes alike in width whose means are normal, from their epistemic share."""
    level = np.asarray(LEVELS)
    x, between, within = ndtri(level), np.sqrt(share), np.sqrt(1.0 - share)
    nodes, weights = np.polynomial.hermite_e.hermegauss(101)
    below = ndtr((x - between * nodes[:, None]) / within)
    variance = (weights / weights.sum()) @ np.square(below - level)
    density = np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi)
    return float((variance / np.square(density * TOLERANCE)).max())


def bins_of(values: Floats) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """Bins of equal numbers, by name: "all", then from the smallest."""
    yield "all", np.ones(len(values), dtype=bool)
    edges = np.quantile(values, np.linspace(0, 1, N_BINS + 1))
    which = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, N_BINS - 1)
    for i in range(N_BINS):
        yield f"{edges[i]:.2f} to {edges[i + 1]:.2f}", which == i


def rows_of(found: PassStatistics, galaxies: Galaxies, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row for each parameter, quantity of the bins and bin."""
    for quantity, values in (("re_arcsec", galaxies.re_arcsec), ("mag", galaxies.mag)):
        for interval, inside in bins_of(values):
            if interval == "all" and quantity != "re_arcsec":
                continue
            for i, name in enumerate(names):
                of = {key: value[inside, i] for key, value in vars(found).items()}
                yield {
                    "parameter": name,
                    "by": quantity if interval != "all" else "",
                    "bin": interval,
                    "n": int(inside.sum()),
                    "share_median": float(np.median(of["share"])),
                    "share_90": float(np.quantile(of["share"], 0.9)),
                    "kurtosis_median": float(np.median(of["kurtosis"])),
                    "kurtosis_90": float(np.quantile(of["kurtosis"], 0.9)),
                    "far": float(of["far"].mean()),
                    "needed_median": float(np.median(of["needed"])),
                    "needed_90": float(np.quantile(of["needed"], 0.9)),
                    "equal_median": float(np.median(of["equal"])),
                    "equal_90": float(np.quantile(of["equal"], 0.9)),
                    "rms_residual": float(np.sqrt(np.square(of["residual"]).mean())),
                    "rms_score": float(np.sqrt(np.square(of["residual"] / of["std"]).mean())),
                }


def measure(name: str, galaxies: int, n_passes: int, bf16: bool) -> dict[str, Any]:
    """All rates of a bundle, as JSON holds them."""
    bundle = models.load_bundle(models.bundle_path(name))
    parameters = [parameter.name for parameter in bundle.metadata.parameters]
    held_out = draw_galaxies(bundle, galaxies)
    at_rate = {}
    for rate in sorted({*RATES, bundle.metadata.dropout_rate}):
        outputs = outputs_at(bundle, held_out.images, rate, n_passes=n_passes, bf16=bf16)
        found = statistics_of(read_passes(outputs, bundle.metadata), held_out.truth)
        rows = list(rows_of(found, held_out, parameters))
        at_rate[f"{rate:g}"] = {"rows": rows, "objects": of_objects(found)}
        show(name, rate, at_rate[f"{rate:g}"])
    return {
        "question": "epistemic share",
        "bundle": bundle.metadata.name,
        "own_rate": bundle.metadata.dropout_rate,
        "training": bundle.metadata.training,
        "galaxies": galaxies,
        "passes": n_passes,
        "precision": "bf16" if bf16 else "float32",
        "rates": at_rate,
    }


def of_objects(found: PassStatistics) -> dict[str, float]:
    """Passes that objects need for all their parameters together; the mean as an adaptive run would have it."""
    needed = found.needed.max(axis=1)
    equal = found.equal.max(axis=1)
    return {
        "equal_mean": float(equal.mean()),
        "equal_median": float(np.median(equal)),
        "equal_90": float(np.quantile(equal, 0.9)),
        "needed_median": float(np.median(needed)),
        "needed_90": float(np.quantile(needed, 0.9)),
        "more_than_floor": float((needed > UNDETECTED_JUMPS_FLOOR).mean()),
        "more_than_1000": float((needed > MAX_PASSES).mean()),
        "adaptive_mean": float(np.clip(needed, UNDETECTED_JUMPS_FLOOR, MAX_PASSES).mean()),
    }


def show(name: str, rate: float, found: dict[str, Any]) -> None:
    """Print a table."""
    print(
        f"{name} at {rate:g}: parameter, bin, share median and 90 %, kurtosis, passes beyond {FAR:g} sigma, passes needed, equal to draws"
    )
    for row in found["rows"]:
        print(
            f"  {row['parameter']:<14}{row['by']:>10} {row['bin']:<16} {row['share_median']:7.3f} {row['share_90']:7.3f}"
            f" {row['kurtosis_median']:7.1f} {row['kurtosis_90']:6.1f} {row['far']:9.5f}"
            f" {row['needed_median']:8.0f} {row['needed_90']:8.0f} {row['equal_median']:6.0f} {row['equal_90']:6.0f}   rms {row['rms_residual']:.3f}, of std {row['rms_score']:.2f}",
        )
    print("  passes for all parameters:", {k: round(v, 3) for k, v in found["objects"].items()}, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each bundle; JSON for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", nargs="+", metavar="BUNDLE")
    parser.add_argument("--galaxies", type=int, default=256)
    parser.add_argument("--passes", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 in the convolutions: half the time")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    for name in given.bundles:
        content = measure(name, given.galaxies, given.passes, given.bf16)
        RESULTS.mkdir(exist_ok=True)
        target = RESULTS / f"epistemic_share_of_{content['bundle'].replace('-', '_')}.json"
        target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        print(target)


if __name__ == "__main__":
    main()
