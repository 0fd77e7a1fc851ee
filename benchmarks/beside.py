"""What share of inference is not passes: what is computed once a galaxy, estimates, summaries, flags?

    OMP_NUM_THREADS=1 python benchmarks/beside.py demo:gampen_survey demo:sfnet wide

`wide` is a GaMPEN of the paper's width at 96 px with random weights and a domain: what things cost does not hang on them. Galaxies stop after
40 passes (`--passes`), but for the shipped bundles, which stop by their own calibration. In processor time of one thread, median of rounds.
For Gaussian heads the columns that a run computes from its passes are compared with kernel densities of 1,000 draws of each parameter.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from typing import Any

import numpy as np
import torch
from harness import RESULTS
from posterior import block_of, draw_galaxies, from_draws, kernel_density

from galbatch import models
from galbatch.config import PosteriorConfig
from galbatch.models import Engine, Execution
from galbatch.models.engines.native import NativePrepared
from galbatch.models.inference import block as blocks

WIDE_FEATURES = 512


class Clock:
    """Seconds of processor time inside of functions."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, method: Any) -> Any:
        """The method, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            before = time.process_time()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds += time.process_time() - before

        return timed


def bundle_of(name: str) -> models.Bundle:
    """A bundle by its path, or the wide one with a domain of 512 features."""
    if name != "wide":
        return models.load_bundle(models.bundle_path(name))
    wide = models.wide_gampen(96)
    covariance = tuple(tuple(row) for row in np.eye(WIDE_FEATURES).tolist())
    domain = models.DomainInfo(
        features_mean=(0.0,) * WIDE_FEATURES, features_covariance=covariance, distance_limit=100.0
    )
    metadata = dataclasses.replace(wide.metadata, domain=domain)
    return models.Bundle(metadata, wide.sha256, wide.script)


def shares(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds a galaxy in passes, beside them, and of that in its columns; the share beside them; kernel densities against columns."""
    bundle = bundle_of(name)
    n = args.wide_galaxies if name == "wide" else args.galaxies
    block = block_of(bundle, draw_galaxies(bundle, n))
    fixed = {"min_passes": args.passes, "tolerance": 10.0} if name == "wide" else {}
    posterior = PosteriorConfig(**fixed)
    execution = Execution(Engine.named(args.engine))
    inputs = models.BlockInputs(block, np.ones(n, bool))
    draws = from_draws(bundle, block.image) if bundle.metadata.head.kind == "gaussian" else []
    plain, summarize, rows = NativePrepared.passes, blocks.columns_of, []
    found: dict[str, Any] = {}
    for number in range(args.rounds + 1):
        clock, columns, densities = Clock(), Clock(), Clock()
        NativePrepared.passes = clock.around(plain)
        blocks.columns_of = columns.around(summarize)
        before = time.process_time()
        found = models.infer_block(bundle, inputs, name="m", posterior=posterior, execution=execution)
        whole = time.process_time() - before
        for of_parameter in draws:
            densities.around(kernel_density)(of_parameter)
        if number:  # The first round warms up.
            beside = whole - clock.seconds
            ratio = densities.seconds / (columns.seconds / n)
            rows.append((clock.seconds / n, beside / n, columns.seconds / n, beside / whole, ratio))
    NativePrepared.passes, blocks.columns_of = plain, summarize
    passes, beside, of_columns, share, times = (statistics.median(row) for row in zip(*rows, strict=True))
    return {
        "engine": args.engine,
        "galaxies": n,
        "passes": float(found["m_passes"].mean()),
        "ms_in_passes": 1e3 * passes,
        "ms_beside": 1e3 * beside,
        "ms_columns": 1e3 * of_columns,
        "share_beside": share,
        "densities_over_columns": times if draws else None,
    }


def main() -> None:
    """One JSON file of all bundles."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--engine", default="rebuilt-float32")
    parser.add_argument("--galaxies", type=int, default=128)
    parser.add_argument("--wide-galaxies", type=int, default=16)
    parser.add_argument("--passes", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = {name: shares(name, args) for name in args.bundles}
    print(json.dumps(found, indent=1))
    (RESULTS / f"beside_passes_{args.engine}.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
