"""Settings of a training: a file and options over those of a recipe or of a parent bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from galbatch import models
from galbatch.errors import ConfigError

__all__ = ["resolve_settings"]

# A parent's weights are near the new minimum: a tenth of its learning rate keeps the first steps from undoing them.
PARENT_RATE_SHARE = 0.1
HEAD_SETTINGS = ("loss", "edges", "components")
"""Settings that belong to a kind of head: another head does not inherit them."""


def resolve_settings(
    architecture: str,
    given: Mapping[str, Any],
    *,
    base: models.TrainingSettings | models.Bundle | None,
    name: str,
    source: str,
) -> models.TrainingSettings:
    """Return the settings of a file and of options over those of a recipe or a parent.

    Parameters
    ----------
    architecture : gampen or sfnet
    given : settings that replace those of the base
    base : a recipe's settings; a parent, whose learning rate is taken times 0.1; None: the paper's defaults
    name : of the bundle, unless `given` names it
    source : what messages begin with

    Raises
    ------
    ConfigError
        A key is not known, or values do not fit.
    """
    if isinstance(base, models.TrainingSettings):
        inherited = {field.name: getattr(base, field.name) for field in dataclasses.fields(base)}
    elif base is not None:
        inherited = models.settings_of(base.metadata)
        rate = inherited.get("learning_rate", models.TrainingSettings.learning_rate)
        inherited = {**inherited, "learning_rate": PARENT_RATE_SHARE * rate, "name": name}
    else:
        inherited = {"name": name}
    for settings in (given, inherited):
        if settings.get("architecture", architecture) != architecture:
            raise ConfigError(
                f"{source}: architecture is {settings['architecture']}, and {architecture} is to be trained"
            )
    if "head" in given:
        inherited = {key: value for key, value in inherited.items() if key not in HEAD_SETTINGS}
    return models.parse_settings({**inherited, "architecture": architecture, **given}, source=source)
