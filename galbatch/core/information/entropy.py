"""The entropy of labels as a mean of terms of single objects, so that it can be bootstrapped with the log scores."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree
from scipy.special import digamma

from galbatch.errors import UsageError

__all__ = ["class_log_frequencies", "log_label_density"]

Floats = npt.NDArray[np.float64]

# Of few labels as many neighbors, of more the square root of their number: the logarithm of the density at a label is then known to
# 1 / sqrt(k), 0.13 of 4,000 labels, which matters where single objects are compared.
FEWEST_NEIGHBORS = 5


def log_label_density(labels: Floats) -> Floats:
    """Return the natural logarithm of the labels' density at each label, (object,), whose mean is minus their entropy.

    The estimator is that of Kozachenko & Leonenko (1987) with the distance to the k-th neighbor, k = sqrt(n), in one dimension.

    Parameters
    ----------
    labels : (object,) float64

    Raises
    ------
    UsageError
        There are fewer than seven labels, or so many are equal that they have no density.
    """
    n = len(labels)
    if n < FEWEST_NEIGHBORS + 2:
        raise UsageError(f"information: {n} objects in a bin; {FEWEST_NEIGHBORS + 2} or more are needed")
    k = max(FEWEST_NEIGHBORS, round(n**0.5))
    # The first neighbor of a label is itself.
    distance = KDTree(labels[:, None]).query(labels[:, None], k=[k + 1])[0][:, 0]
    if (distance == 0).any():
        raise UsageError(
            f"information: {int((distance == 0).sum())} of {n} labels have {k} others that are equal: they take single values "
            "and have no density; train networks with a softmax head, whose parameters are the classes"
        )
    return np.asarray(digamma(k) - digamma(n) - np.log(2 * distance))


def class_log_frequencies(labels: Floats) -> Floats:
    """Return the natural logarithm of the frequency of each object's class, (object,), whose mean is minus the entropy.

    Parameters
    ----------
    labels : (object, class) float64, 1 for the object's class and 0 for the others
    """
    return np.asarray(np.log((labels * labels.mean(axis=0)).sum(axis=1)))
