"""How near does a trained GaMPEN come to table 2 and figure 12 of its paper, on galaxies that it has not seen?

    galbatch models train gampen -o quarter_width.pt --settings benchmarks/quarter_width.toml
    galbatch models calibrate quarter_width.pt -o calibrated.pt --simulate paper
    python benchmarks/paper_tables.py calibrated.pt [--galaxies 4000] [--passes 64]

Galaxies of table 1 of the paper, of a seed that neither training nor calibration has seen. `reproduce_gampen.py` trains the whole
network, at the paper's size, and prints the same tables.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
from harness import RESULTS
from reproduce_gampen import paper_tables

from galbatch import models, simulation
from galbatch.models import Ensemble, HeldOut, PassSettings
from galbatch.models.calibration import judge, run_held_out

SIMULATION_SEED = 2051


def main() -> None:
    """Judge the bundle, print the tables and keep them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", help="bundle with the parameters of the demo recipe, calibrated")
    parser.add_argument("--galaxies", type=int, default=4000)
    parser.add_argument("--passes", type=int, default=64)
    args = parser.parse_args()
    bundle = models.load_bundle(models.bundle_path(args.bundle))
    drawn = simulation.training_set(
        args.galaxies,
        bands=bundle.bands,
        size_px=bundle.grid.size_px,
        population="paper",
        seed=SIMULATION_SEED,
    )
    labels = np.stack([drawn.truth[p.name].to_numpy() for p in bundle.metadata.parameters], axis=1)
    metadata, held_out = bundle.metadata, HeldOut(drawn.images, labels)
    outputs = run_held_out(bundle, held_out, PassSettings(n_passes=args.passes))
    (factors,) = Ensemble((bundle,), True).inflation_factors
    found = {
        "as trained": judge(outputs, metadata, held_out),
        "corrected": judge(outputs, metadata, held_out, factors=factors),
    }
    content = {
        "question": __doc__.splitlines()[0],
        "training": metadata.training,
        "galaxies": len(found["corrected"]),
        "passes": found["corrected"].n_passes,
        **paper_tables(found),
    }
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"paper_tables_of_{metadata.name.replace('-', '_')}.json"
    target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
