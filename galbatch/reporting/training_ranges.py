"""The ranges of a model's parameters in training: one network's, or those of the networks of its cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galbatch import catalog
from galbatch.core.columns import case_of_network
from galbatch.reporting.contents import Contents, Quantity

__all__ = ["BeyondTraining", "TrainingRange", "beyond_training", "training_ranges"]

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TrainingRange:
    """The range of a parameter in the training of a network, and the objects whose values are that network's.

    Attributes
    ----------
    case : name of the network's case; "" for a model of one network
    low, high : smallest and largest value in training, in the catalog's unit
    is_own : (object,) bool
    """

    case: str
    low: float
    high: float
    is_own: Mask

    @property
    def ends(self) -> tuple[float, float]:
        """Smallest and largest value."""
        return self.low, self.high

    def text(self, unit: str) -> str:
        """Return case and range as text: ``low 0.1 to 12 arcsec``."""
        return f"{self.case} {self.low:.4g} to {self.high:.4g} {unit}".strip()


@dataclass(frozen=True, slots=True)
class BeyondTraining:
    """The share of a quantity's medians outside the training range of the network that gave them; NaN without any median."""

    title: str
    ranges: str
    share: float


def training_ranges(contents: Contents, model: str) -> dict[str, list[TrainingRange]]:
    """Return the range of each parameter in the training of each of a model's networks; networks that state none are left out."""
    found: dict[str, list[TrainingRange]] = {}
    for network in catalog.networks_of(contents.properties, model):
        case, cases = case_of_network(network), contents.cases.get(model)
        is_own = np.ones(len(contents), np.bool_) if cases is None else np.asarray(cases == case)
        for parameter, ends in catalog.trained_ranges(contents.properties, network).items():
            found.setdefault(parameter, []).append(TrainingRange(case, *ends, is_own))
    return found


def beyond_training(
    quantities: Sequence[Quantity], trained: Mapping[str, Sequence[TrainingRange]]
) -> list[BeyondTraining]:
    """Return the share of medians outside the training range, of each quantity with a range; medians of a case without one do not count."""
    lines = []
    for one in quantities:
        if ranges := trained.get(one.parameter):
            known, beyond = 0, 0
            for each in ranges:
                medians = one.median[each.is_own & np.isfinite(one.median)]
                known += len(medians)
                beyond += int(((medians < each.low) | (medians > each.high)).sum())
            text = ", ".join(each.text(one.unit) for each in ranges)
            lines.append(BeyondTraining(one.title, text, beyond / known if known else np.nan))
    return lines
