"""Train a demo bundle: simulate galaxies, train, judge on galaxies of another seed, save with a card."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch import models, simulate

__all__ = ["fit_bundle", "model_card", "simulated_set"]


def fit_bundle(
    recipe: models.Recipe, output: Path, *, progress: Callable[[models.Epoch], None] | None = None
) -> Mapping[str, Mapping[str, Any]]:
    """Train as `recipe` says; write the bundle to `output` and its card, ``.md``, beside it.

    Returns
    -------
    For each parameter what `models.evaluate` found on galaxies that nothing was trained on.
    """
    settings = recipe.settings
    images, labels = simulated_set(recipe, n_objects=recipe.n_objects, seed=recipe.seed)
    trained = models.train(images, labels, settings=settings, progress=progress)
    script = models.script_of(trained.network)
    models.save_bundle(str(output), script, trained.metadata)
    bundle = models.load_bundle(str(output))
    images, labels = simulated_set(recipe, n_objects=recipe.n_test_objects, seed=recipe.test_seed)
    results = models.evaluate(bundle, images, labels)
    output.with_suffix(".md").write_text(model_card(recipe, bundle, results), encoding="utf-8")
    return results


def simulated_set(
    recipe: models.Recipe, *, n_objects: int, seed: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Stamps and labels of freshly drawn galaxies.

    Returns
    -------
    images : (object, band, y, x) float32, nJy
    labels : (object, parameter) float64, physical units, in the recipe's order
    """
    settings = recipe.settings
    truth = simulate.draw_population(n_objects, bands=settings.bands, population=recipe.population, seed=seed)
    images = simulate.draw_stamps(truth, bands=settings.bands, size_px=recipe.size_px, seed=seed)
    labels = [truth.column(parameter.name).to_numpy() for parameter in settings.parameters]
    return images, np.stack(labels, axis=1).astype(np.float64)


def model_card(recipe: models.Recipe, bundle: models.Bundle, results: Mapping[str, Mapping[str, Any]]) -> str:
    """What the bundle is, how it was made, how well it does, and what it is not: Markdown."""
    settings, metadata = recipe.settings, bundle.metadata
    made = metadata.training or {}
    lines = [
        f"# {metadata.name} {metadata.version}",
        "",
        f"A small {metadata.architecture} that ships with galbatch for its demo and tests. **Not for science.**",
        "",
        f"- Input: {recipe.size_px} px at {settings.pixel_scale_arcsec} arcsec, bands {', '.join(settings.bands)}, "
        f"zero point {settings.zero_point_mag} mag",
        f"- Network: width {settings.width:g} of the paper's, dropout rate {settings.dropout_rate:g}"
        + (f", top k = {settings.n_top_features}" if settings.n_top_features else ""),
        f"- sha256 `{bundle.sha256}`",
        "",
        "## How it was made",
        "",
        f"`galbatch models train {settings.architecture}`, on {recipe.n_objects:,} {metadata.training_data} "
        f"(seed {recipe.seed}).",
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in made.items()),
        "",
        "## How well it does",
        "",
        f"On {recipe.n_test_objects:,} fresh galaxies of the same population (seed {recipe.test_seed}; nothing was "
        "trained on them), 64 passes, equal-tailed intervals:",
        "",
        "| parameter | R² of the median | median residual | scatter | covered by 68.27 % | by 95.45 % |",
        "|---|---|---|---|---|---|",
        *(_result_line(name, result) for name, result in results.items()),
        "",
        *_limit_lines(results),
        "## What it is not",
        "",
        "The simulation has no neighbors, no correlated noise, and sizes, fluxes and bulge shares that are uniform, unlike "
        "the sky's. On real pixels its numbers mean nothing; OUT_OF_DOMAIN and EXTRAPOLATED say so where they can.",
        "",
        f"Licence: {metadata.licence}. {metadata.citation}.",
        "",
    ]
    return "\n".join(lines)


def _result_line(name: str, result: Mapping[str, Any]) -> str:
    of = "" if result["r2_of"] == name else f" (of {result['r2_of']})"
    return (
        f"| {name} | {result['r2']:.3f}{of} | {result['bias']:.3g} | {result['scatter']:.3g} | "
        f"{100 * result['coverage_68']:.1f} % | {100 * result['coverage_95']:.1f} % |"
    )


def _limit_lines(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Coverage apart for truths at a parameter's limits, where the posterior has a point mass."""
    lines = []
    for name, result in results.items():
        if "coverage_68_inside_limits" in result:
            lines += [
                f"For {name}, apart for truths inside and at the limits of its transform: "
                f"{100 * result['coverage_68_inside_limits']:.1f} % and {100 * result['coverage_68_at_limits']:.1f} % are "
                "covered by the 68.27 % interval (at the limits the integral transform is drawn within the point mass; "
                f"if touching the closed interval counts, {100 * result['coverage_68_closed']:.1f} % of all are).",
                "",
            ]
    return lines


def changed(
    recipe: models.Recipe, *, objects: int | None, epochs: int | None, seed: int | None
) -> models.Recipe:
    """The recipe with other numbers; None keeps its own."""
    settings = recipe.settings
    if epochs is not None:
        settings = dataclasses.replace(settings, epochs=epochs)
    if seed is not None:
        settings = dataclasses.replace(settings, seed=seed)
    changes: dict[str, Any] = {"settings": settings}
    if objects is not None:
        changes |= {"n_objects": objects, "n_test_objects": max(200, objects // 6)}
    return dataclasses.replace(recipe, **changes)
