"""Recipes of the demo bundles. Not for science: small networks, trained on simulations for minutes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from galbatch.models.metadata import LabelInfo, ParameterInfo
from galbatch.models.training.settings import TrainingSettings

__all__ = ["RECIPES", "TRAINING_DATA", "Recipe"]

TRAINING_DATA = {
    "paper": (
        "galaxies of table 1 of Ghosh et al. 2022 (ApJ 935, 138), drawn by galbatch simulate: one galaxy a stamp, no neighbors, "
        "independent noise; colors of two components"
    ),
    "survey": (
        "galaxies as a survey sees them, drawn by galbatch simulate: by counts of magnitudes, among neighbors and stars, with "
        "correlated noise and a PSF that varies; colors of two components"
    ),
}
"""Descriptions of the simulated populations, for the model cards."""
NOT_FOR_SCIENCE = "demonstration only, not for science"


ALIKE: dict[str, Any] = {
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "warmup_epochs": 0.5,
    "max_gradient_norm": 5.0,
    "batch": 64,
    "validation_share": 0.1,
    "test_share": 0.0,  # The bundles are tested on galaxies simulated with another seed.
    "training_data": TRAINING_DATA["paper"],
    "licence": "BSD-3-Clause",
}
"""The settings that both recipes have in common."""


@dataclass(frozen=True)
class Recipe:
    """The training of a demo bundle.

    Attributes
    ----------
    settings : settings of the training
    size_px : side of the simulated images, in pixels
    n_objects, population, seed : number of objects, population and seed of the simulated training set; the columns of its
        truth have the parameters' names
    spoiled : whether part of the images are spoiled as real ones are: by close neighbors, sky offsets, other PSFs and flat cores
    """

    settings: TrainingSettings
    size_px: int = 96
    n_objects: int = 30_000
    population: str = "paper"
    seed: int = 101
    spoiled: bool = False


GAMPEN = TrainingSettings(
    name="demo-gampen",
    version="1",
    architecture="gampen",
    bands=("g",),
    parameters=(
        ParameterInfo(
            "bt",
            "",
            "bulge-to-total light ratio in g",
            "logit",
            limits=(0.02, 0.98),
            labels=(
                LabelInfo("highly bulge-dominated", at_least=0.85),
                LabelInfo("highly disk-dominated", at_most=0.1),
                LabelInfo("intermediate"),
            ),
        ),
        ParameterInfo(
            "re_arcsec",
            "arcsec",
            "half-light radius (semi-major axis, intrinsic) of the summed profile in g",
            "ln",
            labels=(LabelInfo("R_e < 1 arcsec, below the seeing", at_most=1.0),),
        ),
        ParameterInfo("flux_njy", "nJy", "total flux in g", "ln", magnitude="mag"),
    ),
    background="none: simulated without sky",
    width=1 / 16,
    in_channels=3,
    # The variance that zeros add to a pixel's sum goes as rate / channels; this rate keeps the paper's ratio, with 7e-4.
    dropout_rate=5e-5,
    epochs=10,
    limit_tail=0.3,
    # Averaged over half an epoch: the losses of single steps jump, as a few galaxies have very narrow posteriors.
    average_weights=0.995,
    **ALIKE,
    citation=f"architecture: Ghosh et al. 2022, ApJ 935, 138; weights: {NOT_FOR_SCIENCE}",
)

SFNET = TrainingSettings(
    name="demo-sfnet",
    version="1",
    architecture="sfnet",
    bands=("g", "r"),
    parameters=(
        ParameterInfo("color_gr_mag", "mag", "g - r of the total light", "identity"),
        ParameterInfo("mag_r", "mag", "AB magnitude of the total light in r", "identity"),
    ),
    background="none: simulated without sky",
    width=1 / 8,
    n_top_features=16,  # Of 64 features; with 8 the error of the magnitude is a quarter larger.
    head="gaussian",
    frozen_norm_share=0.5,
    dropout_rate=2e-5,
    epochs=12,
    average_weights=0.995,
    **ALIKE,
    citation=f"after SFNet (sparse feature network); weights: {NOT_FOR_SCIENCE}",
)

RECIPES = {"gampen": Recipe(GAMPEN), "sfnet": Recipe(SFNET)}
"""The recipes by the names of the demo bundles."""
