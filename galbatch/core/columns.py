"""Columns of the catalog: their names are made and parsed here alone, with dtype, unit, UCD, description and missing value.

A result column's name is ``<model>_<what>``. What stands for "what" follows from a row of `Statistic`, and from the
quantity, level or rank that `ColumnKey` adds to it: ``gampen_bt_q500``, ``gampen_corr_bt_re_arcsec``, ``sfnet_feature_0``,
``gampen_flags``. A new kind of column is a new row, a place in the list of `galbatch.models.result_columns`, and its values.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galbatch.core.flags import CatalogFlag, ModelFlag, PixelFlag

__all__ = [
    "DEC",
    "HEALPIX",
    "ID",
    "MC_ERROR",
    "MODEL_FLAGS",
    "OOD_DISTANCE",
    "OWN_COLUMNS",
    "PASSES",
    "PIXEL_FLAGS",
    "RA",
    "Column",
    "ColumnKey",
    "ResultColumn",
    "Scope",
    "Statistic",
    "flag_columns",
    "parse_column",
    "parse_columns",
    "quantile_columns",
    "quantile_suffix",
    "quantity_column",
]

LEVEL_DECIMALS = 10
"""Decimals of a quantile's level that its name keeps: more than any level has that a user writes, fewer than round-off shows."""

NO_VALUE = "NaN: no value, the flags say why"


@dataclass(frozen=True, slots=True)
class Column:
    """A catalog column before it is written.

    Attributes
    ----------
    name : in the catalog
    dtype : a pyarrow type name (``int32``, ``float32``, ``string``)
    unit : a VOUnits string, "" for none
    description : says what the missing value means where it can occur
    ucd : Unified Content Descriptor, "" for none
    missing : number that stands for "no value"; None: null
    flags : the bits, of a column of flags
    """

    name: str
    dtype: str
    unit: str
    description: str
    ucd: str = ""
    missing: float | None = None
    flags: type[CatalogFlag] | None = None

    @property
    def arrow_type(self) -> pa.DataType:
        """The pyarrow type."""
        return pa.string() if self.dtype == "string" else pa.from_numpy_dtype(np.dtype(self.dtype))

    def empty(self, n_objects: int) -> npt.NDArray[Any]:
        """Return (object,) missing values, in the column's dtype; of text an object array."""
        dtype = np.dtype(object) if self.dtype == "string" else np.dtype(self.dtype)
        return np.full(n_objects, self.missing, dtype)


HEALPIX = Column(
    "_healpix_29", "int64", "", "HEALPix index, order 29, NESTED, ICRS; rows are sorted by it", "pos.healpix"
)
ID = Column("object_id", "int64", "", "id of the object, as in the object list", "meta.id;meta.main")
RA = Column("ra_deg", "float64", "deg", "right ascension, ICRS, as in the object list", "pos.eq.ra;meta.main")
DEC = Column("dec_deg", "float64", "deg", "declination, ICRS, as in the object list", "pos.eq.dec;meta.main")
OWN_COLUMNS = (HEALPIX, ID, RA, DEC)
"""The first columns of every leaf; `object_id` is int64 or string."""

PIXEL_FLAGS = Column(
    "flags", "int32", "", "what the pixels and the object list say", "meta.code", missing=0, flags=PixelFlag
)
"""The first column of results; the columns of models follow it, those of the object list stand before it."""


class Scope(enum.Enum):
    """The things that a statistic can be of, which decide the form of the column's name."""

    QUANTITY = "<model>_<quantity>_<word>"
    PAIR = "<model>_<word>_<quantity>_<second quantity>"
    RANK = "<model>_<word>_<rank>"
    MODEL = "<model>_<word>"


class Statistic(enum.Enum):
    """The kinds of result columns, a row each: word in the name, scope, dtype, description, UCD, missing value.

    Braces in a description are filled in by who makes the column, see `ColumnKey.column`.
    """

    _value_: str
    scope: Scope
    dtype: str
    text: str
    ucd: str
    missing: float | None

    QUANTILE = "q", Scope.QUANTITY, "float32", f"posterior quantile {{level:g}} of {{what}}; {NO_VALUE}"
    MEAN = "mean", Scope.QUANTITY, "float32", f"posterior mean of {{what}}; {NO_VALUE}", "stat.mean"
    STD = (
        "std",
        Scope.QUANTITY,
        "float32",
        f"posterior standard deviation of {{what}}; {NO_VALUE}",
        "stat.stdev",
    )
    MODE = "mode", Scope.QUANTITY, "float32", f"most probable value of {{what}}; {NO_VALUE}"
    EPISTEMIC_STD = (
        "epistemic_std",
        Scope.QUANTITY,
        "float32",
        f"standard deviation over passes of a pass's mean of {{what}}; {NO_VALUE}",
    )
    LABEL = (
        "label",
        Scope.QUANTITY,
        "string",
        "word for the median of {what}: {labels}; null: none",
        "",
        None,
    )
    CORRELATION = (
        "corr",
        Scope.PAIR,
        "float32",
        f"posterior correlation of the transformed {{quantity}} and {{second}}; {NO_VALUE}",
        "stat.correlation",
    )
    PASSES = (
        "passes",
        Scope.MODEL,
        "int32",
        "Monte Carlo dropout passes of each network of the model; 0: none, the flags say why",
        "",
        0,
    )
    MC_ERROR = (
        "mc_error",
        Scope.MODEL,
        "float32",
        f"largest Monte Carlo error of a quantile, in posterior standard deviations; {NO_VALUE}",
    )
    OOD_DISTANCE = (
        "ood_distance",
        Scope.MODEL,
        "float32",
        "Mahalanobis distance of the network's last features from those of its training set, over the bundle's limit "
        f"({{limit:.4g}}): above 1 the object is {ModelFlag.OUT_OF_DOMAIN.name}; {NO_VALUE}",
    )
    FEATURE = (
        "feature",
        Scope.RANK,
        "int16",
        "number of the feature of rank {rank} in the pass without dropout; -1: none fired, or no value",
        "",
        -1,
    )
    ACTIVATION = (
        "activation",
        Scope.RANK,
        "float32",
        "activation of the feature of rank {rank} in the pass without dropout; NaN: none fired, or no value",
    )
    FREQUENCY = (
        "frequency",
        Scope.RANK,
        "float32",
        "share of the passes in which the feature of rank {rank} was among the {n_features} that fired; NaN: none "
        "fired, no value, or a bundle that does not tell",
    )
    FLAGS = (
        "flags",
        Scope.MODEL,
        "int32",
        "what {model} says of its own values",
        "meta.code",
        int(ModelFlag.NOT_SELECTED),
    )

    def __new__(
        cls, word: str, scope: Scope, dtype: str, text: str, ucd: str = "", missing: float | None = math.nan
    ) -> Self:
        member = object.__new__(cls)
        member._value_ = word
        member.scope, member.dtype = scope, dtype
        member.text, member.ucd, member.missing = text, ucd, missing
        return member

    @property
    def word(self) -> str:
        """The word that stands for it in a column's name."""
        return self.value

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Expression for what stands behind the model's name."""
        word = re.escape(self.word)
        if self is Statistic.QUANTILE:
            return re.compile(rf"(?P<quantity>.+)_{word}(?P<level>\d{{3,}})")
        return re.compile(
            {
                Scope.QUANTITY: rf"(?P<quantity>.+)_{word}",
                Scope.PAIR: rf"{word}_(?P<pair>.+)",
                Scope.RANK: rf"{word}_(?P<rank>\d+)",
                Scope.MODEL: word,
            }[self.scope]
        )


def quantile_suffix(level: float) -> str:
    """Return the digits of a level after "0.", three at least: 0.5 is q500, 0.15865 is q15865, 0.02275 is q02275."""
    digits = f"{level:.{LEVEL_DECIMALS}f}".split(".")[1].rstrip("0")
    return f"{Statistic.QUANTILE.word}{digits.ljust(3, '0')}"


def quantity_column(model: str, quantity: str) -> str:
    """Return the name of a quantity's draws, which the names of its result columns begin with."""
    return f"{model}_{quantity}"


@dataclass(frozen=True, slots=True)
class ColumnKey:
    """A result column, whatever its model is called.

    Attributes
    ----------
    statistic : what it holds
    quantity : parameter or magnitude; "" of statistics of the whole model
    second : the other quantity of a pair
    level : of a quantile, in (0, 1)
    rank : of a feature, 0 for the strongest
    """

    statistic: Statistic
    quantity: str = ""
    second: str = ""
    level: float | None = None
    rank: int | None = None

    @property
    def suffix(self) -> str:
        """The name without the model's."""
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

    def column(self, model: str, *, unit: str = "", **words: Any) -> ResultColumn:
        """Return the column.

        Parameters
        ----------
        model : its name in the run
        unit : of the values
        words : values for the braces in the statistic's description, but for the key's own fields and the model
        """
        statistic = self.statistic
        own = {"model": model, "quantity": self.quantity, "second": self.second}
        text = statistic.text.format(**own, level=self.level, rank=self.rank, **words)
        return ResultColumn(
            self.name(model),
            statistic.dtype,
            unit,
            text,
            "stat.median" if self.level == 0.5 else statistic.ucd,
            statistic.missing,
            ModelFlag if statistic is Statistic.FLAGS else None,
            model=model,
            key=self,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultColumn(Column):
    """A catalog column that a model fills."""

    model: str
    key: ColumnKey


PASSES, MC_ERROR = ColumnKey(Statistic.PASSES), ColumnKey(Statistic.MC_ERROR)
OOD_DISTANCE, MODEL_FLAGS = ColumnKey(Statistic.OOD_DISTANCE), ColumnKey(Statistic.FLAGS)


def parse_columns(names: Sequence[str]) -> dict[str, tuple[str, ColumnKey]]:
    """Return model and key of all result columns of a catalog, by their names.

    The columns of a model stand together, and its flags are the last of them. That says where each model's columns end,
    so models whose names begin alike (``gampen``, ``gampen_survey``) are not confused. Columns of the object list are left
    out: they stand before the column ``flags``.

    Parameters
    ----------
    names : all columns of the catalog, in its order
    """
    results = list(names)
    if PIXEL_FLAGS.name in results:
        results = results[results.index(PIXEL_FLAGS.name) + 1 :]
    found: dict[str, tuple[str, ColumnKey]] = {}
    block: list[str] = []
    for name in results:
        block.append(name)
        model = name.removesuffix(f"_{Statistic.FLAGS.word}")
        if model != name and all(one.startswith(f"{model}_") for one in block):
            found |= {key.name(model): (model, key) for key in _parse_block(block, model)}
            block = []
    return found


def flag_columns(names: Sequence[str]) -> list[str]:
    """Return the columns of flags among all columns of a catalog: of the pixels, then of each model."""
    keys = parse_columns(names)
    model_flags = [name for name, (_, key) in keys.items() if key == MODEL_FLAGS]
    return [PIXEL_FLAGS.name, *model_flags] if PIXEL_FLAGS.name in names else model_flags


def quantile_columns(names: Sequence[str]) -> dict[tuple[str, str], dict[float, str]]:
    """Return the columns of the quantiles among all columns of a catalog: by model and quantity, then by rising level."""
    found: dict[tuple[str, str], dict[float, str]] = {}
    for name, (model, key) in parse_columns(names).items():
        if key.level is not None:
            found.setdefault((model, key.quantity), {})[key.level] = name
    return {quantity: dict(sorted(columns.items())) for quantity, columns in found.items()}


def _parse_block(names: Sequence[str], model: str) -> Iterator[ColumnKey]:
    """The keys of all columns of one model; its quantities are those that have quantiles."""
    found = [parsed[1] for name in names if (parsed := parse_column(name, (model,))) is not None]
    quantities = {key.quantity for key in found if key.statistic is Statistic.QUANTILE}
    for name in names:
        if (parsed := parse_column(name, (model,), quantities=quantities)) is not None:
            yield parsed[1]


def parse_column(
    name: str, models: Collection[str], *, quantities: Collection[str] = ()
) -> tuple[str, ColumnKey] | None:
    """Return the model and the key of a result column; None if it is none of these models'.

    Parameters
    ----------
    name : in the catalog
    models : all models of the run. Where several begin the name, the longest is the column's
    quantities : the model's; without them any is accepted, and correlations, whose two names cannot be separated, are not
    """
    own = [model for model in models if name.startswith(f"{model}_")]
    if not own:
        return None
    model = max(own, key=len)
    rest = name.removeprefix(f"{model}_")
    # The longest word first: the standard deviation of "bt_epistemic" is no column of bt's.
    for statistic in sorted(Statistic, key=lambda one: -len(one.word)):
        match = statistic.pattern.fullmatch(rest)
        if match and (key := _key(statistic, match.groupdict(), quantities)):
            return model, key
    return None


def _key(statistic: Statistic, parts: dict[str, str], quantities: Collection[str]) -> ColumnKey | None:
    if "pair" in parts:
        pairs = ((first, second) for first in quantities for second in quantities)
        found = next((pair for pair in pairs if "_".join(pair) == parts["pair"]), None)
        return None if found is None else ColumnKey(statistic, *found)
    quantity = parts.get("quantity", "")
    if quantity and quantities and quantity not in quantities:
        return None
    level = float(f"0.{parts['level']}") if "level" in parts else None
    return ColumnKey(statistic, quantity, level=level, rank=int(parts["rank"]) if "rank" in parts else None)
