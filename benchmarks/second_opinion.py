"""How often does the second opinion of a bundle raise a false alarm on fresh galaxies? With --write it is measured and put next to the shipped bundles.

    python benchmarks/second_opinion.py [demo:gampen demo:gampen_survey demo:sfnet] [--fresh 4000] [--write] [--galaxies 6000]

Galaxies are of the population that each bundle was trained on, of seeds that neither training nor calibration has seen. --write measures how the
network's estimates follow from the photometry of one set of galaxies, as `models calibrate` does for bundles of your own, and writes
NAME.disagreement.json into the folder of the shipped bundles. The share above the limit of each false-alarm rate is then counted on another
set, with as many passes as a run makes at least.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from harness import RESULTS

from galbatch import models, photometry, simulation
from galbatch.config import PhotometryConfig, PosteriorConfig
from galbatch.core.types import BLOCK_OBJECTS, CutoutBlock
from galbatch.learning.second_opinion import measure_disagreement
from galbatch.models.bundle.opinion import DISAGREEMENT_SUFFIX, write_disagreement

MEASURED_SEED, FRESH_SEED = 2041, 2042
PASSES = 32
NETWORK = "network"


def images_of(bundle: models.Bundle, n_galaxies: int, *, seed: int) -> simulation.TrainingSet:
    """Draw galaxies of the population that a bundle was trained on, on its grid."""
    return simulation.training_set(
        n_galaxies,
        bands=bundle.bands,
        size_px=bundle.grid.size_px,
        population=population_of(bundle),
        seed=seed,
    )


def population_of(bundle: models.Bundle) -> str:
    """Return the population that a bundle was trained on."""
    return str(bundle.metadata.training["population"])


def measured(bundle: models.Bundle, n_galaxies: int) -> models.DisagreementInfo:
    """Return the second opinion of a bundle, of all these galaxies."""
    drawn = images_of(bundle, n_galaxies, seed=MEASURED_SEED)
    # Only pixels are read.
    held_out = models.HeldOut(drawn.images, np.zeros((n_galaxies, len(bundle.metadata.parameters))))
    data = f"simulated galaxies of population {population_of(bundle)}, seed {MEASURED_SEED}"
    found = measure_disagreement(bundle, held_out, data=data, max_objects=n_galaxies)
    assert found is not None, "its parameters have no counterpart in the photometry"
    return found


def disagreements(
    bundle: models.Bundle, info: models.DisagreementInfo, images: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Return the disagreement of images (object, band, y, x) as a run finds it, (object,)."""
    each = []
    for start in range(0, len(images), BLOCK_OBJECTS):
        some = images[start : start + BLOCK_OBJECTS]
        ids = np.arange(start, start + len(some))
        block = CutoutBlock.of_images(some, bundle.bands, bundle.grid, object_id=ids)
        inputs = models.BlockInputs(block, np.ones(len(block), np.bool_))
        found = models.infer_block(bundle, inputs, name=NETWORK, posterior=PosteriorConfig(passes=PASSES))
        off = models.disagreement(
            info,
            bundle.metadata.parameters,
            photometry.measure_photometry(block, PhotometryConfig()),
            found,
            model=NETWORK,
            bands=bundle.bands,
            photometry_version=photometry.PHOTOMETRY_VERSION,
        )
        each.append(off)
    return np.concatenate(each)


def false_alarms(info: models.DisagreementInfo, off: npt.NDArray[np.float32]) -> list[dict[str, float]]:
    """Return the share of objects above the limit of each rate, and its standard error."""
    rows = []
    for rate in info.rates:
        share = float(np.mean(off > models.disagreement_limit(info, rate)))
        rows.append({"stated": rate, "found": share, "error": float(np.sqrt(rate * (1 - rate) / len(off)))})
    return rows


def main() -> None:
    """Measure and write where asked for, print the table of each bundle, and keep the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", nargs="*", default=["demo:gampen", "demo:gampen_survey", "demo:sfnet"])
    parser.add_argument("--fresh", type=int, default=4000)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--galaxies", type=int, default=6000)
    args = parser.parse_args()
    for name in args.bundles:
        path = models.bundle_path(name)
        bundle = models.load_bundle(path)
        info = measured(bundle, args.galaxies) if args.write else bundle.metadata.disagreement
        assert info is not None, f"{name} has no second opinion; --write makes one"
        if args.write:
            write_disagreement(Path(path).with_suffix(DISAGREEMENT_SUFFIX), bundle.sha256, info)
        off = disagreements(bundle, info, images_of(bundle, args.fresh, seed=FRESH_SEED).images)
        rows = false_alarms(info, off)
        for row in rows:
            print(
                f"{name}: stated {100 * row['stated']:5.1f} %, found {100 * row['found']:6.2f} +- {100 * row['error']:.2f} %"
            )
        content: dict[str, Any] = {
            "galaxies": len(off),
            "unknown": float(np.mean(np.isnan(off))),
            "measured_on": info.n_objects,
            "rates": rows,
        }
        RESULTS.mkdir(exist_ok=True)
        file = RESULTS / f"false_alarms_of_the_second_opinion_of_{name.replace(':', '_')}.json"
        file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
