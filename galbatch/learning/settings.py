"""Settings of a training: those of a recipe or of a parent bundle, replaced by a file and by options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from galbatch import models
from galbatch.errors import ConfigError

__all__ = ["resolve_settings"]

# The weights of a parent bundle are near the new minimum: a tenth of its learning rate keeps the first steps from
# leaving it.
PARENT_RATE_SHARE = 0.1


# A dense network on a table of 10,000 objects takes seconds an epoch at most, and learns nothing at GaMPEN's rate of 5e-7.
MLP_DEFAULTS: Mapping[str, Any] = {
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "warmup_epochs": 1.0,
    "max_gradient_norm": 5.0,
    "batch": 128,
    "epochs": 60,
    "augmentation": False,
}


# An encoder of random weights learns with the same optimizer; smaller batches, as images take more memory than columns.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "mlp": MLP_DEFAULTS,
    "timm": {**MLP_DEFAULTS, "batch": 64, "epochs": 40, "augmentation": True},
}


def resolve_settings(
    architecture: str,
    given: Mapping[str, Any],
    *,
    base: models.TrainingSettings | models.Bundle | None,
    name: str,
    source: str,
) -> models.TrainingSettings:
    """Return the settings of a training, in which given settings replace those of a recipe or of a parent bundle.

    Parameters
    ----------
    architecture : {"gampen", "sfnet", "mlp", "timm"}
    given : mapping of str
        Settings from a file or from options; they replace those of `base`.
    base : TrainingSettings, Bundle or None
        Settings of a recipe; or a parent bundle, of whose learning rate a tenth is taken. None: the defaults, which are
        the GaMPEN paper's, and for others those of `DEFAULTS`.
    name : str
        Name of the bundle, unless `given` has one.
    source : str
        Text at the beginning of error messages.

    Returns
    -------
    TrainingSettings

    Raises
    ------
    ConfigError
        A key is unknown, or values do not fit each other.
    """
    if isinstance(base, models.TrainingSettings):
        inherited = {field.name: getattr(base, field.name) for field in dataclasses.fields(base)}
    elif base is not None:
        inherited = models.settings_of(base.metadata)
        rate = inherited.get("learning_rate", models.TrainingSettings.learning_rate)
        inherited = {**inherited, "learning_rate": PARENT_RATE_SHARE * rate, "name": name}
    else:
        inherited = {"name": name, **DEFAULTS.get(architecture, {})}
    # Weights of one architecture do not fit the other, nor does a file written for it.
    for settings in (given, inherited):
        if settings.get("architecture", architecture) != architecture:
            raise ConfigError(
                f"{source}: architecture is {settings['architecture']}, and {architecture} is to be trained"
            )
    if "head" in given:
        # The loss and the options of the parent's head, such as the edges of bins, mean nothing to another head.
        own = {"loss", *(option for head in models.HEADS.values() for option in head.options)}
        inherited = {key: value for key, value in inherited.items() if key not in own}
    return models.parse_settings({**inherited, "architecture": architecture, **given}, source=source)
