"""How many passes do objects take, and how far off are their quantiles, with and without the stopping calibration?

    python benchmarks/stopping.py demo:gampen demo:gampen_survey demo:sfnet
    python benchmarks/stopping.py wide.pt --galaxies 8 --passes 2000

Both rules stop the same passes, in one run: held-out galaxies of the population that the bundle was trained on, of a seed that neither the
training nor the calibration has seen, with many passes each, whose quantiles are the reference. Blocks of 1000 passes are as many
repetitions. The paper's 1000 draws, one a pass, are judged by the same reference. The network runs by its fastest engine.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from harness import RESULTS

from galbatch import models, simulation
from galbatch.config import PosteriorConfig
from galbatch.core.types import njy_per_unit
from galbatch.models import Ensemble, choose_engine, executor
from galbatch.models.inference import Sampler, StoppingRule
from galbatch.models.networks import draw_keys

Floats = npt.NDArray[np.float64]

SIMULATION_SEED = 2032
N_DRAWS = 1000  # of the paper, and the largest number of passes
GROUP = 16


def many_passes(bundle: models.Bundle, n_galaxies: int, n_passes: int) -> npt.NDArray[np.float32]:
    """(galaxy, pass, output)."""
    images = simulation.training_set(
        n_galaxies,
        bands=bundle.bands,
        size_px=bundle.grid.size_px,
        population=bundle.metadata.training.get("population", "paper"),
        seed=SIMULATION_SEED,
    ).images / np.float32(njy_per_unit(bundle.metadata.input.zero_point_mag))
    engine = choose_engine(Ensemble((bundle,)), kind="auto", precision="auto", device="cpu")
    keys = draw_keys(np.arange(n_galaxies), seed=1, bundle_sha256=bundle.sha256, passes=range(n_passes))
    parts = []
    for start in range(0, n_galaxies, GROUP):
        some = slice(start, start + GROUP)
        sampler = Sampler(executor(bundle, engine, "cpu"), images[some], batch=256)
        pieces = [
            sampler.run(np.arange(len(keys[some])), keys[some, first : first + N_DRAWS]).outputs
            for first in range(0, n_passes, N_DRAWS)
        ]
        parts.append(np.concatenate(pieces, axis=1))
        print(f"  {start + len(pieces[0])} of {n_galaxies} galaxies", flush=True)
    return np.concatenate(parts)


def judged(rule: StoppingRule, blocks: list[npt.NDArray[np.float32]], truth: Any) -> dict[str, float]:
    """Stop all objects of all blocks by a rule, and compare their quantiles with the reference."""
    off, stated, used, converged, scatter = [], [], [], [], []
    for block in blocks:
        left = np.arange(len(block))
        for n in rule.checkpoints:
            found = rule.estimate([block[left, :n]], [np.zeros((len(left), n), np.int64)])
            enough = found.converged(rule.tolerance)
            stops = enough | (n == rule.checkpoints[-1])
            rows = left[stops]
            off.append((found.output[stops] - truth.output[rows]) / truth.std[rows][..., None])
            stated.append(found.error[stops])
            used.append(np.full(len(rows), n))
            converged.append(enough[stops])
            scatter.append(epistemic(rule.ensemble, block[rows, :n]))
            left = left[~stops]
            if not len(left):
                break
    errors, expected, has = np.concatenate(off), np.concatenate(stated), np.concatenate(converged)
    largest = np.abs(errors).max(axis=(1, 2))
    return {
        "mean_passes": float(np.concatenate(used).mean()),
        "median_passes": float(np.median(np.concatenate(used))),
        "rms_error": rms(errors),
        "converged": float(has.mean()),
        "actual_over_stated_of_converged": rms(errors[has]) / rms(expected[has])
        if has.any()
        else float("nan"),
        "largest_beyond_two_tolerances": float((largest[has] > 2 * rule.tolerance).mean())
        if has.any()
        else float("nan"),
    }


def epistemic(ensemble: Ensemble, outputs: npt.NDArray[np.float32]) -> Floats:
    """Standard deviation of the passes' means, (object, parameter)."""
    passes = ensemble.passes([outputs.astype(np.float64)])
    count = len(ensemble.metadata.parameters)
    return np.stack([passes.marginal(i).mean.std(axis=1) for i in range(count)], axis=1)


def noise_of_epistemic_std(ensemble: Ensemble, outputs: npt.NDArray[np.float32], n: int) -> float:
    """RMS relative difference of epistemic_std from n passes, median over galaxies and parameters."""
    whole = epistemic(ensemble, outputs)
    runs = [
        epistemic(ensemble, outputs[:, i * n : (i + 1) * n]) / whole - 1 for i in range(outputs.shape[1] // n)
    ]
    return float(np.median(np.sqrt(np.square(runs).mean(axis=0))))


def rms_of_draws(rule: StoppingRule, blocks: list[npt.NDArray[np.float32]], truth: Any) -> float:
    """RMS error of the quantiles of 1000 draws, one from each pass."""
    samples = replace(rule, method="samples", learned=None)
    off = []
    for i, block in enumerate(blocks):
        keys = draw_keys(np.arange(len(block)), seed=i, bundle_sha256="draws", passes=range(N_DRAWS))
        off.append((samples.estimate([block], [keys]).output - truth.output) / truth.std[..., None])
    return rms(np.stack(off))


def rms(values: npt.ArrayLike) -> float:
    return float(np.sqrt(np.square(values).mean()))


def compare_rules(bundle: models.Bundle, args: argparse.Namespace) -> dict[str, Any]:
    """Both rules on the same passes."""
    ensemble = Ensemble((bundle,))
    outputs = many_passes(bundle, args.galaxies, args.passes)
    learned = StoppingRule.of(ensemble, PosteriorConfig(tolerance=args.tolerance))
    if learned.learned is None:
        raise SystemExit(f"{bundle.metadata.name}: has no stopping calibration")
    allowance = StoppingRule.of(ensemble, PosteriorConfig(tolerance=args.tolerance, min_passes=64))
    allowance = replace(allowance, learned=None)
    keys = np.zeros(outputs.shape[:2], np.int64)
    truth = allowance.estimate([outputs], [keys])
    blocks = [outputs[:, i : i + N_DRAWS] for i in range(0, args.passes - N_DRAWS + 1, N_DRAWS)]
    found = {
        name: judged(rule, blocks, truth) for name, rule in (("before", allowance), ("learned", learned))
    }
    n_stop = learned.checkpoints[0]
    return {
        "galaxies": args.galaxies,
        "passes": args.passes,
        "tolerance": args.tolerance,
        "start": n_stop,
        "rms_error_of_1000_draws": rms_of_draws(allowance, blocks, truth),
        **found,
        "noise_of_epistemic_std": {
            str(n): noise_of_epistemic_std(ensemble, outputs, n) for n in (n_stop, 176)
        },
    }


def main() -> None:
    """One JSON file for each bundle."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--galaxies", type=int, default=16)
    parser.add_argument("--passes", type=int, default=4000, help="of each galaxy, in thousands")
    parser.add_argument("--tolerance", type=float, default=0.05)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for path in args.bundles:
        bundle = models.load_bundle(models.bundle_path(path))
        print(path, flush=True)
        found = compare_rules(bundle, args)
        print(json.dumps(found, indent=1), flush=True)
        name = "".join(c if c.isalnum() else "_" for c in bundle.metadata.name)
        text = json.dumps(found, indent=1) + "\n"
        (RESULTS / f"stopping_of_{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
