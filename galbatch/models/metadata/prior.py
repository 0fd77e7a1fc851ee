"""The prior of a bundle: the density of the labels that its network was trained on.

See `galbatch.models.bundle.prior` for how it is estimated and evaluated.
"""

# No postponed annotations: config looks for the nearest known key in the classes the fields name.
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

__all__ = ["PriorInfo"]

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class PriorInfo:
    """The density of labels, a mixture of normal distributions in the standardized space of the parameters.

    Attributes
    ----------
    weights : (component,) shares of the components, above 0, with the sum 1
    means : (component, parameter)
    covariances : (component, parameter, parameter), positive definite
    source : training: of the labels that the network learned from; calibration: of held-out objects that stand for them
    n_objects : number of the labels
    data : description of the objects
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    weights: tuple[float, ...]
    means: Matrix
    covariances: tuple[Matrix, ...]
    source: Literal["training", "calibration"] = "training"
    n_objects: int = 0
    data: str = ""

    def problems(self, n_parameters: int) -> list[str]:
        """Return messages on values that contradict each other or the number of parameters; empty if there are none."""
        n = len(self.weights)
        if n == 0 or not _has_shapes(self, n, n_parameters):
            return [f"prior: {n} weights need as many means and covariances of {n_parameters} parameters"]
        if min(self.weights) <= 0 or abs(sum(self.weights) - 1) > 1e-3:
            return [f"prior: weights must be above 0 with the sum 1, found {list(self.weights)}"]
        if not all(
            np.allclose(one, one.T) and np.linalg.eigvalsh(one).min() > 0
            for one in np.asarray(self.covariances)
        ):
            return ["prior: covariances must be positive definite"]
        return []

    def text(self) -> str:
        """Return a sentence's part on whose prior it is."""
        whose = (
            "training galaxies"
            if self.source == "training"
            else "held-out galaxies that stand for the training set"
        )
        return f"the density of the labels of {self.n_objects:,} {whose}" + (
            f": {self.data}" if self.data else ""
        )


def _has_shapes(prior: PriorInfo, n_components: int, n_parameters: int) -> bool:
    """Return whether means and covariances are of so many components and parameters."""
    lengths = {len(row) for row in (*prior.means, *(row for one in prior.covariances for row in one))}
    sizes = {len(one) for one in prior.covariances}
    counts = {len(prior.means), len(prior.covariances)}
    return (counts, lengths, sizes) == ({n_components}, {n_parameters}, {n_parameters})
