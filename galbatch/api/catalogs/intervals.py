"""The columns that bound an interval of a quantity, and what is asked for when a quantity or interval is not there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from galbatch.api.lookup import LEVEL_TOLERANCE, central_levels
from galbatch.config import nearest_hint
from galbatch.core.columns import quantile_columns, quantity_column
from galbatch.errors import UsageError

__all__ = ["IntervalColumns", "interval_columns"]


@dataclass(frozen=True, slots=True)
class IntervalColumns:
    """Names of the columns that bound an interval, and of the median's; None if the catalog has no median."""

    lower: str
    upper: str
    median: str | None


def interval_columns(
    names: Sequence[str], quantity: str, probability: float, model: str | None = None
) -> IntervalColumns:
    """Return the columns of the equal-tailed interval of a quantity.

    Parameters
    ----------
    names : sequence of str
        All columns of the catalog, in its order.
    quantity : str
        ``re_arcsec``, or with its model ``gampen_re_arcsec``.
    probability : float
        In (0, 1), such as 0.68.
    model : str or None
        Needed if several models have the quantity and `quantity` does not name one.

    Raises
    ------
    UsageError
        There is no such quantity (the message names a similar one), several models have it, or the catalog has no quantiles
        of such an interval.
    """
    found = quantile_columns(names)
    whole = {quantity_column(*key): key for key in found}
    fitting = [
        key for key in found if (key == whole.get(quantity) or key[1] == quantity) and model in (None, key[0])
    ]
    if not fitting:
        known = [*dict.fromkeys(name for _, name in found), *whole]
        of_model = "" if model is None else f" of model {model}"
        raise UsageError(
            f"no quantity {quantity}{of_model}{nearest_hint(quantity, known)}; there are {', '.join(whole) or 'none'}"
        )
    if len(fitting) > 1:
        raise UsageError(
            f"{quantity} is a quantity of the models {' and '.join(key[0] for key in fitting)}: name one by model="
        )
    columns = found[fitting[0]]
    levels = list(columns)
    ends = central_levels(levels, probability) if 0 < probability < 1 else None
    if ends is None:
        pairs = [(low, high) for low in levels for high in levels if low < 0.5 and abs(low + high - 1) < 1e-6]
        there = ", ".join(f"{high - low:.4g}" for low, high in sorted(pairs, reverse=True))
        raise UsageError(
            f"no interval of probability {probability:g} of {quantity}: the catalog has those of {there or 'none'}; joint "
            "draws give any"
        )
    middle = min(levels, key=lambda level: abs(level - 0.5))
    return IntervalColumns(
        columns[ends[0]],
        columns[ends[1]],
        columns[middle] if abs(middle - 0.5) < LEVEL_TOLERANCE else None,
    )
