"""Log scores of a bundle on held-out objects: the logarithm of the density, or of the probability, of the true value."""

from __future__ import annotations

import numpy as np

from galbatch.models.bundle import Bundle, Ensemble
from galbatch.models.calibration.choosing import Progress
from galbatch.models.calibration.evaluation import (
    OBJECTS_AT_ONCE,
    Floats,
    HeldOut,
    PassSettings,
    run_held_out,
)
from galbatch.models.heads import head_of, read_passes
from galbatch.models.posterior import log_densities, quantities_of

__all__ = ["log_scores"]


def log_scores(
    bundle: Bundle,
    held_out: HeldOut,
    passes: PassSettings,
    *,
    parameter: str,
    progress: Progress | None = None,
) -> Floats:
    """Return the natural logarithm of the density at the true value of each object, (object,) float64, per unit of the parameter.

    Of a bundle that gives classes it is the logarithm of the true class's probability, the mean over the passes. The posterior is the
    one that runs give, inflated if the bundle says so. NaN where the network gave numbers that are not finite.

    Parameters
    ----------
    bundle : bundle whose passes are distributions or classes
    held_out : objects with their true values
    passes : number of passes per object, their seed and batch size
    parameter : name of the parameter; not used for classes
    progress : function called with the number of objects done since the last call
    """
    metadata = bundle.metadata
    (factors,) = Ensemble((bundle,)).inflation_factors
    outputs = run_held_out(bundle, held_out, passes, progress=progress)
    found = np.full(len(held_out), np.nan)
    kept = np.flatnonzero(outputs.finite)
    for start in range(0, len(kept), OBJECTS_AT_ONCE):
        rows = kept[start : start + OBJECTS_AT_ONCE]
        of_rows, labels = read_passes(outputs.numbers[rows], metadata), held_out.labels[rows]
        if head_of(metadata.head).is_classes:
            # A probability that rounds to 0 has the logarithm -inf, which the caller refuses.
            with np.errstate(divide="ignore"):
                found[rows] = np.log((of_rows.mean.mean(axis=1) * labels).sum(axis=1))
            continue
        (quantity,) = [one for one in quantities_of(metadata.parameters) if one.name == parameter]
        of_rows = of_rows if factors is None else of_rows.inflated(factors)
        found[rows] = log_densities(of_rows, quantity, labels[:, quantity.index])
    return found
