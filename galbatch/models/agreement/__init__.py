"""The second opinion: whether a network's estimates agree with the photometry of the same pixels.

`fit_disagreement` learns at calibration how estimates follow from the photometry of held-out objects, `disagreement` says by how much an
object is off in units of their scatter, and `disagreement_limit` above which value a stated share of such objects lies.
"""

from galbatch.models.agreement.fitting import MIN_DISAGREEMENT_OBJECTS, fit_disagreement
from galbatch.models.agreement.judging import disagreement, disagreement_limit, disagreement_parameters

__all__ = [
    "MIN_DISAGREEMENT_OBJECTS",
    "disagreement",
    "disagreement_limit",
    "disagreement_parameters",
    "fit_disagreement",
]
