"""What does a Monte Carlo pass of the shipped bundles cost, and what does caching the prefix save?

64 passes of 64 simulated galaxies at 96 px: galbatch's way (everything before the first dropout once a galaxy, passes of
several galaxies in one batch) against running the whole network for each pass. Run: python benchmarks/passes.py
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from harness import compare, report

from galbatch import models, simulate
from galbatch.models.sampling import run_passes
from galbatch.types import njy_per_unit

N_GALAXIES = 64
N_PASSES = 64


def main(threads: int) -> None:
    """Compare for both bundles."""
    torch.set_num_threads(threads)
    for name in models.demo_bundles():
        bundle = models.load_bundle(models.bundle_path(name))
        truth = simulate.draw_population(N_GALAXIES, bands=bundle.bands, seed=9)
        images = simulate.draw_stamps(
            truth, bands=bundle.bands, size_px=bundle.grid.size_px, seed=9, processes=1
        )
        images /= np.float32(njy_per_unit(bundle.metadata.input.zero_point_mag))
        keys = np.random.default_rng(1).integers(-(2**62), 2**62, (N_GALAXIES, N_PASSES))

        def whole_network(bundle=bundle, images=images, keys=keys) -> None:
            with torch.inference_mode():
                every = torch.from_numpy(images)
                for number in range(N_PASSES):
                    bundle.sample(
                        bundle.prefix(every), torch.from_numpy(np.ascontiguousarray(keys[:, number]))
                    )

        def galbatch_passes(bundle=bundle, images=images, keys=keys) -> None:
            run_passes(bundle, images, keys, batch=256)

        measured = compare(
            {"whole network for each pass": whole_network, "galbatch": galbatch_passes}, rounds=3
        )
        report(f"passes of {name} with {threads} threads", measured, items=N_GALAXIES * N_PASSES, unit="pass")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
