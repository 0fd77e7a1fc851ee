"""Is a network that was trained on spoiled images (`models train --augment`) misled less by them, and are its intervals as wide as they should be?

    python benchmarks/augmented.py demo:gampen_survey AUGMENTED.pt [--galaxies 200]

The galaxies and the ways of spoiling them are those of `spoiled.py`, of seeds that no training has seen; of its rows those that --augment
trains on. The first bundle was trained without, on the same population. Shifts of both are in standard deviations of the first one's clean
posterior, so that a network does not look better by being less sure. Coverage is the share of true values between the limits of
1 and of 2 sigma, 68 and 95 percent.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import numpy.typing as npt
from harness import RESULTS
from spoiled import NETWORK, PASSES, SIMULATION_SEED
from spoiled_scenes import CLEAN, WIDER, Scene, cutouts, drawn

from galbatch import models
from galbatch.config import PosteriorConfig
from galbatch.core.columns import ColumnKey, Statistic

TRAINED_ON = (
    CLEAN,
    "neighbor at 2 arcsec, 30 % of the flux",
    "neighbor at 2 arcsec, 100 % of the flux",
    "flat core without a mask bit",
    "sky +5 nJy a pixel",
    "sky -5 nJy a pixel",
    "sky +1 nJy a pixel",
    WIDER,
)
"""Rows of `spoiled_scenes.ROWS` that spoil images as --augment does, and the clean ones."""

LOW_2, LOW_1, _, HIGH_1, HIGH_2 = PosteriorConfig().quantiles
INTERVALS = {"68": (LOW_1, HIGH_1), "95": (LOW_2, HIGH_2)}

Floats = npt.NDArray[np.float64]


def posteriors(bundle: models.Bundle, scene: Scene) -> dict[str, dict[str, Any]]:
    """Return the columns of the network for the images of each row."""
    found = {}
    for name in TRAINED_ON:
        block = cutouts(scene, name)
        inputs = models.BlockInputs(block, np.ones(len(block), np.bool_), max_missing_share=0.5)
        posterior = PosteriorConfig(passes=PASSES)
        found[name] = models.infer_block(bundle, inputs, name=NETWORK, posterior=posterior)
    return found


def column(
    values: dict[str, Any], parameter: str, statistic: Statistic, level: float | None = None
) -> Floats:
    """Return a column of a parameter, (object,) float64."""
    key = ColumnKey(statistic, parameter) if level is None else ColumnKey(statistic, parameter, level=level)
    return np.asarray(values[key.name(NETWORK)], np.float64)


def row_of(
    values: dict[str, Any], clean: dict[str, Any], unit: Floats, truth: Floats, name: str
) -> dict[str, float]:
    """Return what the table says of one parameter in one row: median of the shifts and of their sizes, width, and coverage."""
    median, of_clean = (column(one, name, Statistic.QUANTILE, 0.5) for one in (values, clean))
    shift = (median - of_clean) / unit
    found = {
        "shift": float(np.nanmedian(shift)),
        "size": float(np.nanmedian(np.abs(shift))),
        "width": float(np.nanmedian(column(values, name, Statistic.STD) / unit)),
    }
    for percent, levels in INTERVALS.items():
        low, high = (column(values, name, Statistic.QUANTILE, level) for level in levels)
        # Quantiles are float32: B/T of exactly 0 lies in an interval that begins at 0.
        found[f"coverage_{percent}"] = float(np.mean((truth >= low - 1e-6) & (truth <= high + 1e-6)))
    return found


def table_of(before: models.Bundle, after: models.Bundle, scene: Scene) -> dict[str, Any]:
    """Return the rows of both bundles, by row and parameter."""
    of_each = {"before": posteriors(before, scene), "after": posteriors(after, scene)}
    table: dict[str, Any] = {}
    for name in TRAINED_ON:
        table[name] = {}
        for parameter in before.metadata.parameters:
            unit = column(of_each["before"][CLEAN], parameter.name, Statistic.STD)
            truth = np.asarray(scene.truth[parameter.name].to_numpy(), np.float64)
            table[name][parameter.name] = {
                which: row_of(rows[name], rows[CLEAN], unit, truth, parameter.name)
                for which, rows in of_each.items()
            }
    return table


def main() -> None:
    """Print the table and keep the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--galaxies", type=int, default=200)
    args = parser.parse_args()
    before, after = (models.load_bundle(models.bundle_path(path)) for path in (args.before, args.after))
    population = before.metadata.training.get("population", "paper")
    scene = drawn(
        population, args.galaxies, bands=before.bands, size_px=before.grid.size_px, seed=SIMULATION_SEED
    )
    table = table_of(before, after, scene)
    for name, parameters in table.items():
        print(name)
        for parameter, both in parameters.items():
            texts = [
                f"{which} shift {one['shift']:+6.2f}, size {one['size']:5.2f}, width {one['width']:5.2f}, "
                f"coverage {100 * one['coverage_68']:3.0f} {100 * one['coverage_95']:3.0f} %"
                for which, one in both.items()
            ]
            print(f"  {parameter:<12} {'; '.join(texts)}")
    RESULTS.mkdir(exist_ok=True)
    content = {"galaxies": len(scene.truth), "training": after.metadata.training, "rows": table}
    name = f"augmented_training_of_{before.metadata.name.replace('-', '_')}.json"
    (RESULTS / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
