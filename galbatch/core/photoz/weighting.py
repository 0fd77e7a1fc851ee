"""Weights by which a spectroscopic sample has the colors and magnitudes of a target sample."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from galbatch.errors import UsageError

__all__ = ["N_NEIGHBORS", "target_weights"]

Floats = npt.NDArray[np.float64]

N_NEIGHBORS = 20
"""Neighbors in the spectroscopic sample that a weight is estimated from: its error is about 1 / sqrt(20), and its resolution the
volume that they fill."""


def target_weights(sample: Floats, target: Floats, *, n_neighbors: int = N_NEIGHBORS) -> Floats:
    """Return weights of a sample by which it has the distribution of a target sample, estimated from nearest neighbors.

    The weight of an object is the number of target objects within the distance of its k-th neighbor in the sample, over k
    (Lima et al. 2008, MNRAS 390, 118, equation 24). Distances are Euclidean after each column is divided by its standard
    deviation in the target. Objects of the target where the sample has none are represented by no weight: no weighting makes up
    for them.

    Parameters
    ----------
    sample : (object, column) float64, colors and magnitudes of the sample, finite
    target : (target object, column) float64, those of the target, finite
    n_neighbors : number k of neighbors; at most the size of the sample less 1

    Returns
    -------
    (object,) float64 with mean 1

    Raises
    ------
    UsageError
        One of them has fewer than two objects, or no target object lies near any object of the sample.
    """
    if min(len(sample), len(target)) < 2:
        raise UsageError(
            f"weights: {len(sample)} objects and {len(target)} of the target; two or more of both are needed"
        )
    scale = target.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)  # A column that does not vary in the target tells nothing.
    own, theirs = KDTree(sample / scale), KDTree(target / scale)
    k = min(n_neighbors, len(sample) - 1)
    # The first neighbor of an object is itself.
    distance = own.query(own.data, k=[k + 1])[0][:, 0]
    count = np.asarray(theirs.query_ball_point(own.data, distance, return_length=True), dtype=np.float64)
    if not count.any():
        raise UsageError(
            "weights: no object of the target lies near one of the sample; are the columns the same, in the same unit?"
        )
    return count / count.mean()
