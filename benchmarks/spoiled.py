"""Which flags do objects carry whose posteriors are moved by what spoils real images, and which do clean objects carry?

    python benchmarks/spoiled.py demo:gampen demo:gampen_survey [--galaxies 200] [--calibrate-on 2000]

Galaxies of the population that each bundle was trained on, of a seed that neither training nor calibration has seen, alone in their cutouts
and with half-light radii above 0.35 arcsec: these are the clean objects. Each row of the table spoils the same images in one way
(`spoiled_scenes.py`). A bundle without a second opinion gets one first, of galaxies of its population. A shift is that of the median, in standard deviations of the clean posterior. Of all objects that are moved by more
than two in any parameter, the share with a quality flag is counted, without the rows that look like another galaxy (zero points; a wider
PSF where there are no stars to see it by), and without stars, which have no true posterior: of them the share with POINT_LIKE is given. Draws follow from object ids, so a clean and a
spoiled object are run with the same masks. With all thresholds times one factor (`FACTORS`) the shares of clean and of
moved objects with a flag make a curve, and so do those of each flag alone. NOT_CONVERGED is not counted: it says that a network's passes were too few, not what the pixels are.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from harness import RESULTS
from spoiled_scenes import CLEAN, OFFSETS, ROWS, STARS, WIDER, ZERO_POINT, Scene, cutouts, drawn
from spoiled_tile import with_tile

from galbatch import models, photometry, simulation
from galbatch.config import FlagsConfig, PhotometryConfig, PosteriorConfig
from galbatch.core.columns import MODEL_FLAGS, ColumnKey, Statistic
from galbatch.core.flags import CatalogFlag, ModelFlag, PixelFlag, quality_bits
from galbatch.core.types import CutoutBlock
from galbatch.learning.second_opinion import measure_disagreement

SIMULATION_SEED, CALIBRATION_SEED = 2033, 2040
NETWORK = "network"
"""The network's name in the columns."""

PASSES = 32

NOT_COUNTED = (CLEAN, STARS, ZERO_POINT)

QUALITY_OF_MODEL = quality_bits(ModelFlag) & ~ModelFlag.NOT_CONVERGED

MOVED_SIGMAS = 2.0

FACTORS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
"""Factors on the thresholds of the curves. Rates of false alarms are divided by them; POINT_LIKE and OUT_OF_DOMAIN stay as they are."""
SCALED = (
    "blended_share",
    "asymmetric_share",
    "flat_core_share",
    "sky_offset_share",
    "sky_level_share",
    "psf_unlike_share",
)
CURVES = (
    PixelFlag.BLENDED,
    PixelFlag.SATURATED_CORE,
    PixelFlag.SKY_OFFSET,
    PixelFlag.PSF_UNLIKE,
    ModelFlag.INCONSISTENT,
)
"""The flags whose thresholds are scaled."""

MIN_STAR_SNR = 20.0

Values = Mapping[str, npt.NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class Judged:
    """A row of the table: the columns of the catalog, and the flags of each object."""

    values: Values
    pixel_flags: npt.NDArray[np.int32]
    model_flags: npt.NDArray[np.int32]
    scaled: tuple[Judged, ...] = ()
    """The same with the thresholds times each of `FACTORS`."""

    @property
    def flagged(self) -> npt.NDArray[np.bool_]:
        """Which objects carry any quality flag."""
        quality = (self.pixel_flags & quality_bits(PixelFlag)) | (self.model_flags & QUALITY_OF_MODEL)
        return np.asarray(quality != 0)

    def has(self, flag: CatalogFlag) -> npt.NDArray[np.bool_]:
        """Which objects carry a flag."""
        flags = self.pixel_flags if isinstance(flag, PixelFlag) else self.model_flags
        return np.asarray((flags & flag) != 0)

    def share_of(self, flag: CatalogFlag) -> float:
        """The share of objects with a flag."""
        return float(self.has(flag).mean())


def judged(bundle: models.Bundle, block: CutoutBlock) -> Judged:
    """Measure and infer cutouts as a run does, with `PASSES` passes."""
    measured = photometry.measure_photometry(block, PhotometryConfig())
    inputs = models.BlockInputs(block, np.ones(len(block), np.bool_), max_missing_share=0.5)
    found = models.infer_block(bundle, inputs, name=NETWORK, posterior=PosteriorConfig(passes=PASSES))
    off = None
    if (info := bundle.metadata.disagreement) is not None:
        off = models.disagreement(
            info,
            bundle.metadata.parameters,
            measured,
            found,
            model=NETWORK,
            bands=block.bands,
            photometry_version=photometry.PHOTOMETRY_VERSION,
        )

    def flagged_with(thresholds: FlagsConfig) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        of_pixels = block.flags | photometry.photometry_flags(measured, block, thresholds=thresholds)
        of_model = found[MODEL_FLAGS.name(NETWORK)]
        if info is None or off is None:
            return of_pixels, of_model
        limit = models.disagreement_limit(info, thresholds.inconsistent_rate)
        return of_pixels, of_model | np.where(off > limit, np.int32(ModelFlag.INCONSISTENT), np.int32(0))

    scaled = tuple(Judged(measured, *flagged_with(scaled_thresholds(factor))) for factor in FACTORS)
    return Judged({**measured, **found}, *flagged_with(FlagsConfig()), scaled)


def scaled_thresholds(factor: float) -> FlagsConfig:
    """Return the default thresholds times a factor, within the ranges that the config allows."""
    default = FlagsConfig()
    changed = {name: min(1.0, factor * getattr(default, name)) for name in SCALED}
    rate = min(max(default.inconsistent_rate / factor, 0.002), 0.5)
    return default.model_copy(update={**changed, "inconsistent_rate": rate})


def shifts(bundle: models.Bundle, clean: Values, spoiled: Values) -> npt.NDArray[np.float64]:
    """Return the shift of each parameter's median in standard deviations of the clean posterior, (object, parameter); NaN: no value."""
    each = []
    for parameter in bundle.metadata.parameters:
        median = ColumnKey(Statistic.QUANTILE, parameter.name, level=0.5).name(NETWORK)
        std = ColumnKey(Statistic.STD, parameter.name).name(NETWORK)
        each.append((spoiled[median].astype(np.float64) - clean[median]) / clean[std])
    return np.stack(each, axis=1)


def is_moved(bundle: models.Bundle, clean: Judged, one: Judged) -> npt.NDArray[np.bool_]:
    """Return which objects have a parameter that is moved by more than `MOVED_SIGMAS`, (object,)."""
    return np.asarray((np.abs(shifts(bundle, clean.values, one.values)) > MOVED_SIGMAS).any(axis=1))


def curves_of(clean: Judged, moved: Sequence[tuple[Judged, npt.NDArray[np.bool_]]]) -> dict[str, Any]:
    """Return the shares of clean and of moved objects that are flagged, by factor: with any flag, and with each scaled one alone."""
    n_moved = max(1, sum(int(which.sum()) for _, which in moved))

    def both(carries: Callable[[Judged], npt.NDArray[np.bool_]]) -> dict[str, list[float]]:
        of_moved = [
            sum(int(carries(one.scaled[k])[which].sum()) for one, which in moved) / n_moved
            for k in range(len(FACTORS))
        ]
        return {"clean": [float(carries(one).mean()) for one in clean.scaled], "moved": of_moved}

    each = {str(flag.name): both(lambda one, flag=flag: one.has(flag)) for flag in CURVES}
    return {"factors": list(FACTORS), "any quality flag": both(lambda one: one.flagged), **each}


def row_of(bundle: models.Bundle, clean: Judged, one: Judged) -> dict[str, Any]:
    """Return what the table says of one row, and which objects are moved and flagged."""
    shift = shifts(bundle, clean.values, one.values)
    moved = is_moved(bundle, clean, one)
    flags = [*PixelFlag, *(flag for flag in ModelFlag if flag is not ModelFlag.NOT_CONVERGED)]
    shares = {str(flag.name): one.share_of(flag) for flag in flags}
    return {
        "shift": dict(
            zip((p.name for p in bundle.metadata.parameters), np.nanmedian(shift, axis=0), strict=True)
        ),
        "moved": int(moved.sum()),
        "moved_and_flagged": int((moved & one.flagged).sum()),
        "flagged": float(one.flagged.mean()),
        "flags": {name: share for name, share in shares.items() if share},
    }


def star_shares(stars: Judged, bands: tuple[str, ...]) -> dict[str, float]:
    """Return the number of stars above a signal-to-noise of 20 in any band, and the share of them that is POINT_LIKE."""
    ratio = [stars.values[f"phot_flux_njy_{b}"] / stars.values[f"phot_flux_err_njy_{b}"] for b in bands]
    is_bright = np.max(ratio, axis=0) > MIN_STAR_SNR
    point_like = (stars.pixel_flags & PixelFlag.POINT_LIKE) != 0
    return {"n": int(is_bright.sum()), "POINT_LIKE": float(point_like[is_bright].mean())}


def not_counted(scene: Scene) -> tuple[str, ...]:
    """Return the rows that do not count among the moved: those of a wider PSF only where there are stars to see it by."""
    has_stars = np.isfinite(scene.tiles[CLEAN].stars).any()
    return NOT_COUNTED if has_stars else (*NOT_COUNTED, WIDER)


def table_of(bundle: models.Bundle, scene: Scene) -> dict[str, Any]:
    """Return the rows of a bundle, and the two shares that are asked for."""
    clean = judged(bundle, cutouts(scene, CLEAN))
    left_out = not_counted(scene)
    rows: dict[str, Any] = {}
    moved_ones: list[tuple[Judged, npt.NDArray[np.bool_]]] = []
    for name in ROWS:
        one = clean if name == CLEAN else judged(bundle, cutouts(scene, name))
        rows[name] = row_of(bundle, clean, one)
        if name not in left_out:
            moved_ones.append((one, is_moved(bundle, clean, one)))
        if name == STARS:
            rows[name]["bright"] = star_shares(one, scene.bands)
        print(row_text(name, rows[name]), flush=True)
    counted = [row for name, row in rows.items() if name not in left_out]
    moved = sum(row["moved"] for row in counted)
    return {
        "galaxies": len(scene.truth),
        "not_counted": list(left_out),
        "stars_over_stated": {
            name: scene.tiles[name].stars.tolist() for name in (CLEAN, WIDER) if name in scene.tiles
        },
        "sky_level_njy": {
            name: [scene.tiles[name].sky_level_njy.tolist(), scene.tiles[name].sky_level_err_njy.tolist()]
            for name in (CLEAN, *OFFSETS)
            if name in scene.tiles
        },
        "rows": rows,
        "moved": moved,
        "flagged_of_moved": sum(row["moved_and_flagged"] for row in counted) / max(1, moved),
        "flagged_of_clean": rows[CLEAN]["flagged"],
        "curves": curves_of(clean, moved_ones),
        "silent": {
            name: row["moved"] - row["moved_and_flagged"]
            for name, row in rows.items()
            if name not in (CLEAN, STARS)
        },
    }


def row_text(name: str, row: Mapping[str, Any]) -> str:
    """Return a line for people."""
    shift = " / ".join(f"{value:+.1f}" for value in row["shift"].values())
    flags = ", ".join(f"{flag} {100 * share:.0f}" for flag, share in row["flags"].items())
    return f"  {name:<40} {shift:<22} moved {row['moved']:4d}, flagged {row['moved_and_flagged']:4d}; all {100 * row['flagged']:3.0f} %: {flags}"


def with_second_opinion(bundle: models.Bundle, n_galaxies: int) -> models.Bundle:
    """Return the bundle with a second opinion of galaxies of its population; the same file, and so the same draws."""
    population = bundle.metadata.training.get("population", "paper")
    drawn = simulation.training_set(
        n_galaxies,
        bands=bundle.bands,
        size_px=bundle.grid.size_px,
        population=population,
        seed=CALIBRATION_SEED,
    )
    labels = np.stack([drawn.truth[p.name].to_numpy() for p in bundle.metadata.parameters], axis=1)
    info = measure_disagreement(bundle, models.HeldOut(drawn.images, labels), data=f"population {population}")
    return dataclasses.replace(bundle, metadata=dataclasses.replace(bundle.metadata, disagreement=info))


def scene_of(bundle: models.Bundle, n_galaxies: int) -> Scene:
    """Draw the galaxies on which a bundle is judged, and their tile; those of the population survey have stars beside them.

    The population paper is drawn as stamps: its sky's level is that of the survey's tile, with what is added to the stamps' sky added to the tile's.
    """
    population = bundle.metadata.training.get("population", "paper")
    scene = drawn(
        population, n_galaxies, bands=bundle.bands, size_px=bundle.grid.size_px, seed=SIMULATION_SEED
    )
    return with_tile(scene, stars=population == "survey", seed=SIMULATION_SEED)


def main() -> None:
    """Print the table of each bundle and keep the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", nargs="*", default=["demo:gampen", "demo:gampen_survey"])
    parser.add_argument("--galaxies", type=int, default=200)
    parser.add_argument("--calibrate-on", type=int, default=2000)
    args = parser.parse_args()
    for path in args.bundles:
        bundle = models.load_bundle(models.bundle_path(path))
        if bundle.metadata.disagreement is None and args.calibrate_on:
            bundle = with_second_opinion(bundle, args.calibrate_on)
        print(f"{bundle.metadata.name}: shift of {' / '.join(p.name for p in bundle.metadata.parameters)}")
        one = table_of(bundle, scene_of(bundle, args.galaxies))
        print(
            f"  {one['moved']} objects moved by more than {MOVED_SIGMAS:g} sd, {100 * one['flagged_of_moved']:.1f} % of them flagged; "
            f"of clean objects {100 * one['flagged_of_clean']:.1f} %"
        )
        RESULTS.mkdir(exist_ok=True)
        name = f"spoiled_images_of_{bundle.metadata.name.replace('-', '_')}.json"
        (RESULTS / name).write_text(json.dumps(one, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
