"""Statistics: the kinds of result columns of a network, and the names that are made from them.

The name of a result column is the model's name, an underscore and a suffix. A member of `Statistic` and the quantity,
level or rank in a `ColumnKey` give the suffix: ``gampen_bt_q500``, ``gampen_corr_bt_re_arcsec``, ``sfnet_feature_0``,
``gampen_flags``. To add a kind of column, add a member to `Statistic`, list the column in
`galbatch.models.result_columns`, and compute its values.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from galbatch.core.columns.definitions import NO_TEXT, NO_VALUE, Column
from galbatch.core.flags import ModelFlag
from galbatch.core.ucds import quantity_ucd

__all__ = [
    "CASE",
    "EMBEDDING",
    "GRID_STATISTICS",
    "HPD_STATISTICS",
    "IDENTITY",
    "MC_ERROR",
    "MODEL_FLAGS",
    "OOD_DISTANCE",
    "PARTS_STATISTICS",
    "PASSES",
    "ColumnKey",
    "ResultColumn",
    "Scope",
    "Statistic",
    "quantile_suffix",
    "quantity_column",
]

LEVEL_DECIMALS = 10
"""Decimals of a quantile's level that are kept in the column's name.

Users write fewer decimals, and the rounding error of a float64 only shows in later ones.
"""


# Where several peaks are far apart, the shortest interval holds the valleys between them.
HPD_TEXT = (
    "{} end of the shortest interval with {} % of the posterior of {{what}}, on its grid of density; null: no value, or "
    "less lies on the grid"
)

PARTS_TEXT = (
    "number of intervals of the region of highest density with {} % of the posterior of {{what}}; 1: it is hpd{}_low to _high; more: "
    "these ends hold valleys of lower density, too; -1: no value, or less lies on the grid"
)


class Scope(enum.Enum):
    """The subject of a statistic: one quantity, a pair of them, a feature of some rank, or the whole model.

    Values are templates of the column's name.
    """

    QUANTITY = "<model>_<quantity>_<word>"
    PAIR = "<model>_<word>_<quantity>_<second quantity>"
    RANK = "<model>_<word>_<rank>"
    MODEL = "<model>_<word>"


class Statistic(enum.Enum):
    """The kinds of result columns: word in the column's name, scope, dtype, description, UCD and missing value of each.

    Braces in a description or UCD are placeholders, which `ColumnKey.column` fills in; ``{of}`` in a UCD is that of the
    quantity.
    """

    _value_: str
    scope: Scope
    dtype: str
    text: str
    ucd: str
    missing: float | str

    QUANTILE = (
        "q",
        Scope.QUANTITY,
        "float32",
        f"posterior quantile {{level:g}} of {{what}}; {NO_VALUE}",
        "{of};stat.percentile",
    )
    MEAN = "mean", Scope.QUANTITY, "float32", f"posterior mean of {{what}}; {NO_VALUE}", "{of};stat.mean"
    STD = (
        "std",
        Scope.QUANTITY,
        "float32",
        f"posterior standard deviation of {{what}}; {NO_VALUE}",
        "stat.stdev;{of}",
    )
    MODE = (
        "mode",
        Scope.QUANTITY,
        "float32",
        f"most probable value of {{what}}; {NO_VALUE}",
        "{of};meta.modelled",
    )
    EPISTEMIC_STD = (
        "epistemic_std",
        Scope.QUANTITY,
        "float32",
        f"scatter between dropout passes: standard deviation of the means of the passes of {{what}}; {NO_VALUE}",
        "stat.error;{of}",
    )
    LABEL = (
        "label",
        Scope.QUANTITY,
        "string",
        "word for the median of {what}: {labels}; empty: none",
        "meta.code.class;{of}",
        NO_TEXT,
    )
    DENSITY = (
        "density",
        Scope.QUANTITY,
        "float32",
        "posterior density of {what}: its mean in each of {n_bins} equal bins from {low:g} to {high:g}; nulls: no value",
        "stat.probability;{of}",
    )
    VECTOR = (
        "vector",
        Scope.QUANTITY,
        "float32",
        "{what}: {length} numbers of the network, their mean over the passes, of no posterior; nulls: no value",
        "{of};meta.modelled",
    )
    HPD68_LOW = "hpd68_low", Scope.QUANTITY, "float32", HPD_TEXT.format("lower", "68.27"), "{of};stat.min"
    HPD68_HIGH = "hpd68_high", Scope.QUANTITY, "float32", HPD_TEXT.format("upper", "68.27"), "{of};stat.max"
    HPD95_LOW = "hpd95_low", Scope.QUANTITY, "float32", HPD_TEXT.format("lower", "95.45"), "{of};stat.min"
    HPD95_HIGH = "hpd95_high", Scope.QUANTITY, "float32", HPD_TEXT.format("upper", "95.45"), "{of};stat.max"
    HPD68_PARTS = "hpd68_parts", Scope.QUANTITY, "int16", PARTS_TEXT.format("68.27", "68"), "meta.number", -1
    HPD95_PARTS = "hpd95_parts", Scope.QUANTITY, "int16", PARTS_TEXT.format("95.45", "95"), "meta.number", -1
    PEAKS = (
        "peaks",
        Scope.QUANTITY,
        "int16",
        "number of peaks of the density of {what} on its grid, with a prominence of a tenth of the highest; -1: no value",
        "meta.number",
        -1,
    )
    CORRELATION = (
        "corr",
        Scope.PAIR,
        "float32",
        f"posterior correlation of the transformed {{quantity}} and {{second}}; {NO_VALUE}",
        "stat.correlation;{of};{of_second}",
    )
    PASSES = (
        "passes",
        Scope.MODEL,
        "int32",
        "Monte Carlo dropout passes of each network of the model; 0: none, the flags say why",
        "meta.number",
        0,
    )
    MC_ERROR = (
        "mc_error",
        Scope.MODEL,
        "float32",
        f"largest Monte Carlo error of a quantile, in posterior standard deviations; {NO_VALUE}",
        "stat.error",
    )
    OOD_DISTANCE = (
        "ood_distance",
        Scope.MODEL,
        "float32",
        "Mahalanobis distance of the network's last features from those of its training set, over the bundle's limit "
        f"({{limit}}): above 1 the object is {ModelFlag.OUT_OF_DOMAIN.name}; {NO_VALUE}",
        "stat.value",
    )
    DISAGREEMENT = (
        "disagreement",
        Scope.MODEL,
        "float32",
        "largest difference of an estimate (flux, size, magnitude or color) from what the photometry of the same pixels (phot_*) lets expect, "
        f"in units of its scatter in the calibration; above the limit the object is {ModelFlag.INCONSISTENT.name}; {NO_VALUE}",
        "stat.value",
    )
    FEATURE = (
        "feature",
        Scope.RANK,
        "int16",
        "number of the feature of rank {rank} in the pass without dropout; -1: none fired, or no value",
        "meta.code",
        -1,
    )
    ACTIVATION = (
        "activation",
        Scope.RANK,
        "float32",
        "activation of the feature of rank {rank} in the pass without dropout; null: none fired, or no value",
        "stat.value",
    )
    FREQUENCY = (
        "frequency",
        Scope.RANK,
        "float32",
        "share of the passes in which the feature of rank {rank} was among the {n_features} that fired; null: none "
        "fired, no value, or a bundle that does not tell",
        "stat.probability",
    )
    EMBEDDING = (
        "embedding",
        Scope.MODEL,
        "float32",
        "the last features of the network, before its head, in the pass without dropout; nulls: no value, or numbers "
        "beyond the range of {dtype}",
        "stat.value",
    )
    CASE = (
        "case",
        Scope.MODEL,
        "string",
        "case of {model} whose network gave the values: {cases}; empty: the object is in none",
        "meta.code",
        NO_TEXT,
    )
    IDENTITY = (
        "identity",
        Scope.MODEL,
        "int64",
        "digest of all that {model}'s values follow from: pixels, auxiliary inputs, network, settings and version of the code; equal "
        "in two catalogs: the same values; 0: not selected",
        "meta.version",
        0,
    )
    FLAGS = (
        "flags",
        Scope.MODEL,
        "int32",
        "what {model} says of its own values",
        "meta.code.qual",
        # Zero would say that the values are good, but rows keep the missing value when no network was run on them.
        int(ModelFlag.NOT_SELECTED),
    )

    def __new__(
        cls, word: str, scope: Scope, dtype: str, text: str, ucd: str = "", missing: float | str = math.nan
    ) -> Self:
        member = object.__new__(cls)
        # Enum takes a member whose value exists already for an alias, so each word can be used once.
        member._value_ = word
        member.scope, member.dtype = scope, dtype
        member.text, member.ucd, member.missing = text, ucd, missing
        return member

    @property
    def word(self) -> str:
        """The word in the column's name, such as ``mean``."""
        return self.value

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Regular expression for the part of a column's name after the model's name and an underscore."""
        word = re.escape(self.word)
        if self is Statistic.QUANTILE:
            # At least three digits, because quantile_suffix pads shorter levels with zeros.
            return re.compile(rf"(?P<quantity>.+)_{word}(?P<level>\d{{3,}})")
        return re.compile(
            {
                Scope.QUANTITY: rf"(?P<quantity>.+)_{word}",
                # Names of quantities contain underscores: only a list of them tells where the first of a pair ends.
                Scope.PAIR: rf"{word}_(?P<pair>.+)",
                Scope.RANK: rf"{word}_(?P<rank>\d+)",
                Scope.MODEL: word,
            }[self.scope]
        )


HPD_STATISTICS = {
    0.6827: (Statistic.HPD68_LOW, Statistic.HPD68_HIGH),
    0.9545: (Statistic.HPD95_LOW, Statistic.HPD95_HIGH),
}
"""The statistics of the ends of the shortest intervals, by their probability."""

PARTS_STATISTICS = {0.6827: Statistic.HPD68_PARTS, 0.9545: Statistic.HPD95_PARTS}
"""The statistics that say of how many intervals a region of highest density consists, by its probability."""

GRID_STATISTICS = (
    Statistic.DENSITY,
    *(end for ends in HPD_STATISTICS.values() for end in ends),
    *PARTS_STATISTICS.values(),
    Statistic.PEAKS,
)
"""The statistics of a density on a grid, in the order of their columns."""


def quantile_suffix(level: float) -> str:
    """Return the last part of a quantile column's name, "q" and at least three decimals of the level: 0.5 gives "q500", 0.02275 "q02275"."""
    # The decimals are rounded before trailing zeros are cut: 1 - 0.9 is 0.09999999999999998 as a float, and must give q100.
    digits = f"{level:.{LEVEL_DECIMALS}f}".split(".")[1].rstrip("0")
    return f"{Statistic.QUANTILE.word}{digits.ljust(3, '0')}"


def quantity_column(model: str, quantity: str) -> str:
    """Return ``<model>_<quantity>``: the column of the quantity in a table of draws, and the prefix of its result columns."""
    return f"{model}_{quantity}"


@dataclass(frozen=True, slots=True)
class ColumnKey:
    """The identity of a result column within its model.

    Attributes
    ----------
    statistic : Statistic
        The kind of column.
    quantity : str
        Parameter or magnitude, such as ``bt``; "" for statistics of the whole model and of features.
    second : str
        Second quantity of a correlation, otherwise "".
    level : float or None
        Level of a quantile, in (0, 1); None for other statistics.
    rank : int or None
        Rank of a feature, 0 for the strongest; None for other statistics.
    """

    statistic: Statistic
    quantity: str = ""
    second: str = ""
    level: float | None = None
    rank: int | None = None

    @property
    def suffix(self) -> str:
        """The column's name without the model's name and the underscore after it."""
        word, scope = self.statistic.word, self.statistic.scope
        if self.level is not None:
            return f"{self.quantity}_{quantile_suffix(self.level)}"
        if scope is Scope.QUANTITY:
            return f"{self.quantity}_{word}"
        if scope is Scope.PAIR:
            return f"{word}_{self.quantity}_{self.second}"
        return word if scope is Scope.MODEL else f"{word}_{self.rank}"

    def name(self, model: str) -> str:
        """Return the column's name in the catalog."""
        return f"{model}_{self.suffix}"

    def column(self, model: str, *, unit: str = "", ucds: Sequence[str] = (), **words: Any) -> ResultColumn:
        """Return the definition of the column for one model.

        Parameters
        ----------
        model : str
            The model's name in run.toml.
        unit : str
            Unit of the values in the VOUnits syntax, "" for none.
        ucds : sequence of str
            UCD of the quantity, and for a pair also of the second one; empty: they follow from names and unit.
        **words
            Values for the placeholders in the statistic's description. The model and the fields of this key are filled
            in without them.
        """
        statistic = self.statistic
        own = {"model": model, "quantity": self.quantity, "second": self.second}
        text = statistic.text.format(**own, level=self.level, rank=self.rank, **words)
        # UCD1+ has a word of its own for the percentile at 0.5.
        ucd = "{of};stat.median" if self.level == 0.5 else statistic.ucd
        given = ucds or [quantity_ucd(name, unit, ()) for name in (self.quantity, self.second)]
        return ResultColumn(
            self.name(model),
            statistic.dtype,
            unit,
            text,
            ucd.format(of=given[0], of_second=given[-1]),
            statistic.missing,
            ModelFlag if statistic is Statistic.FLAGS else None,
            model=model,
            key=self,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultColumn(Column):
    """The definition of a catalog column that holds a model's results."""

    model: str
    key: ColumnKey


PASSES, MC_ERROR = ColumnKey(Statistic.PASSES), ColumnKey(Statistic.MC_ERROR)
OOD_DISTANCE, MODEL_FLAGS = ColumnKey(Statistic.OOD_DISTANCE), ColumnKey(Statistic.FLAGS)
IDENTITY, EMBEDDING = ColumnKey(Statistic.IDENTITY), ColumnKey(Statistic.EMBEDDING)
CASE, DISAGREEMENT = ColumnKey(Statistic.CASE), ColumnKey(Statistic.DISAGREEMENT)
