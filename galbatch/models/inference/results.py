"""The result columns of a network, in the catalog's order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from galbatch.core.columns import (
    MC_ERROR,
    MODEL_FLAGS,
    OOD_DISTANCE,
    PASSES,
    ColumnKey,
    ResultColumn,
    Statistic,
)
from galbatch.models.metadata import BundleMetadata
from galbatch.models.posterior import Quantity, quantities_of

__all__ = ["INFER_VERSION", "result_columns"]

INFER_VERSION = 6
"""The version of the code that computes results; it is increased whenever numbers in the catalog change."""

EXTINCTION = "not corrected for Galactic extinction"

SCALARS = (Statistic.MEAN, Statistic.STD, Statistic.MODE, Statistic.EPISTEMIC_STD)
"""The statistics of each quantity, whose columns follow those of its quantiles."""


def result_columns(metadata: BundleMetadata, *, name: str, quantiles: Sequence[float]) -> list[ResultColumn]:
    """Return the result columns of one network: those of each quantity, of the whole model, of features, and last the flags.

    Parameters
    ----------
    metadata : metadata of the bundle
    name : name of the network in the run, which is the prefix of the columns
    quantiles : levels of the quantiles, in (0, 1), rising
    """
    columns: list[ResultColumn] = []
    for quantity in quantities_of(metadata.parameters):
        columns += _quantity_columns(quantity, name, quantiles)
    for first, second in combinations([parameter.name for parameter in metadata.parameters], 2):
        columns.append(ColumnKey(Statistic.CORRELATION, first, second).column(name))
    columns += [PASSES.column(name), MC_ERROR.column(name)]
    if (limit := metadata.domain.distance_limit) is not None:
        columns.append(OOD_DISTANCE.column(name, limit=limit))
    for statistic in (Statistic.FEATURE, Statistic.ACTIVATION, Statistic.FREQUENCY):
        keys = (ColumnKey(statistic, rank=rank) for rank in range(metadata.n_top_features))
        columns += [key.column(name, n_features=metadata.n_top_features) for key in keys]
    # The flags come last: readers of a catalog find by them where the columns of a model end.
    return [*columns, MODEL_FLAGS.column(name)]


def _quantity_columns(quantity: Quantity, name: str, levels: Sequence[float]) -> Iterator[ResultColumn]:
    """Yield the columns of one quantity: quantiles, other statistics, and the label of a parameter that has labels."""
    what = quantity.parameter.description or quantity.parameter.name
    if quantity.is_magnitude:
        what = f"AB magnitude of {what}, {EXTINCTION}"
    elif quantity.parameter.unit in ("nJy", "mag"):
        what = f"{what}, {EXTINCTION}"
    unit = "mag" if quantity.is_magnitude else quantity.parameter.unit
    keys = [ColumnKey(Statistic.QUANTILE, quantity.name, level=level) for level in levels]
    keys += [ColumnKey(statistic, quantity.name) for statistic in SCALARS]
    yield from (key.column(name, unit=unit, what=what) for key in keys)
    if quantity.parameter.labels and not quantity.is_magnitude:
        labels = ", ".join(label.text for label in quantity.parameter.labels)
        yield ColumnKey(Statistic.LABEL, quantity.name).column(name, what=what, labels=labels)
