"""Columns of the catalog: name, dtype, unit, UCD, description and missing value of each. Names are made and parsed only here.

The name of a result column is the model's name, an underscore and a suffix. A member of `Statistic` and the quantity,
level or rank in a `ColumnKey` give the suffix: ``gampen_bt_q500``, ``gampen_corr_bt_re_arcsec``, ``sfnet_feature_0``,
``gampen_flags``. To add a kind of column, add a member to `Statistic`, list the column in
`galbatch.models.result_columns`, and compute its values.
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
from galbatch.core.pixels import PATH_COLUMNS
from galbatch.core.ucds import quantity_ucd

__all__ = [
    "DEC",
    "HEALPIX",
    "ID",
    "MC_ERROR",
    "MODEL_FLAGS",
    "NO_TEXT",
    "OOD_DISTANCE",
    "OWN_COLUMNS",
    "PASSES",
    "PIXEL_FLAGS",
    "RA",
    "RESERVED_COLUMNS",
    "SEPARATION",
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
    "result_names",
]

LEVEL_DECIMALS = 10
"""Decimals of a quantile's level that are kept in the column's name.

Users write fewer decimals, and the rounding error of a float64 only shows in later ones.
"""

NO_VALUE = "null: no value, the flags say why"

NO_TEXT = ""
"""The missing text: astropy, FITS and VOTable have no null for text, and astropy would read it as the word None."""


@dataclass(frozen=True, slots=True)
class Column:
    """The definition of a catalog column.

    Attributes
    ----------
    name : str
        The column's name in the catalog.
    dtype : str
        A numpy dtype such as ``int32`` or ``float32``, or ``string``.
    unit : str
        Unit in the VOUnits syntax, "" for none.
    description : str
        One line for users of the catalog. It explains the missing value where one can occur.
    ucd : str
        Unified Content Descriptor (UCD1+), "" for none.
    missing : float or str
        The value that marks a missing one in the program's arrays. Files hold null in place of NaN, and all other values
        as they are.
    flags : type of CatalogFlag, or None
        The meaning of the bits, if this is a column of flags.
    """

    name: str
    dtype: str
    unit: str
    description: str
    ucd: str = ""
    missing: float | str = math.nan
    flags: type[CatalogFlag] | None = None

    @property
    def arrow_type(self) -> pa.DataType:
        """The column's pyarrow type."""
        return pa.string() if self.dtype == "string" else pa.from_numpy_dtype(np.dtype(self.dtype))

    def empty(self, n_objects: int) -> npt.NDArray[Any]:
        """Return an array (object,) of missing values in the column's dtype, or in dtype object if the column holds text.

        Integers have no NaN: a column of integers must state the number that marks a missing value.
        """
        dtype = np.dtype(object) if self.dtype == "string" else np.dtype(self.dtype)
        return np.full(n_objects, self.missing, dtype)


HEALPIX = Column(
    "_healpix_29", "int64", "", "HEALPix index, order 29, NESTED, ICRS; rows are sorted by it", "pos.healpix"
)
ID = Column("object_id", "int64", "", "id of the object, as in the object list", "meta.id;meta.main")
RA = Column("ra_deg", "float64", "deg", "right ascension, ICRS, as in the object list", "pos.eq.ra;meta.main")
DEC = Column("dec_deg", "float64", "deg", "declination, ICRS, as in the object list", "pos.eq.dec;meta.main")
SEPARATION = Column("separation_arcsec", "float64", "arcsec", "distance from the center", "pos.angDistance")
OWN_COLUMNS = (HEALPIX, ID, RA, DEC)
"""The first columns of every leaf (Parquet file of the catalog); `object_id` is int64 or string, as in the object list."""

PIXEL_FLAGS = Column(
    "flags",
    "int32",
    "",
    "what the pixels and the object list say",
    "meta.code.qual",
    missing=0,
    flags=PixelFlag,
)
"""The first result column: columns copied from the object list come before it, columns of the models after it."""

RESERVED_COLUMNS = (*(column.name for column in OWN_COLUMNS), PIXEL_FLAGS.name, *PATH_COLUMNS)
"""Names of the catalog's own columns (and of HATS' path columns): columns of an object list cannot keep them."""


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
        f"standard deviation over passes of a pass's mean of {{what}}; {NO_VALUE}",
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
        f"({{limit:.4g}}): above 1 the object is {ModelFlag.OUT_OF_DOMAIN.name}; {NO_VALUE}",
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


def result_names(names: Sequence[str]) -> list[str]:
    """Return the names of a catalog's result columns: the column ``flags`` and all after it; none if the catalog has no ``flags``."""
    return list(names[list(names).index(PIXEL_FLAGS.name) :]) if PIXEL_FLAGS.name in names else []


PASSES, MC_ERROR = ColumnKey(Statistic.PASSES), ColumnKey(Statistic.MC_ERROR)
OOD_DISTANCE, MODEL_FLAGS = ColumnKey(Statistic.OOD_DISTANCE), ColumnKey(Statistic.FLAGS)


def parse_columns(names: Sequence[str]) -> dict[str, tuple[str, ColumnKey]]:
    """Return the model and the key of each result column of a catalog.

    The columns of one model are adjacent, and its column of flags is the last of them. The flags therefore mark where each
    model's columns end, and models whose names begin alike (``gampen``, ``gampen_survey``) are kept apart. Columns copied
    from the object list come before the column ``flags`` and are left out.

    Parameters
    ----------
    names : sequence of str
        All columns of the catalog, in the catalog's order.

    Returns
    -------
    dict of str to (str, ColumnKey)
        Model name and key, by column name.
    """
    # Without the column `flags` the names are those of results alone.
    results = result_names(names)[1:] if PIXEL_FLAGS.name in names else list(names)
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
    """Return the names of a catalog's columns of flags: ``flags`` of the pixels, then ``<model>_flags`` of each model."""
    keys = parse_columns(names)
    model_flags = [name for name, (_, key) in keys.items() if key == MODEL_FLAGS]
    return [PIXEL_FLAGS.name, *model_flags] if PIXEL_FLAGS.name in names else model_flags


def quantile_columns(names: Sequence[str]) -> dict[tuple[str, str], dict[float, str]]:
    """Return the names of a catalog's quantile columns, by (model, quantity) and then by level in ascending order."""
    found: dict[tuple[str, str], dict[float, str]] = {}
    for name, (model, key) in parse_columns(names).items():
        if key.level is not None:
            found.setdefault((model, key.quantity), {})[key.level] = name
    return {quantity: dict(sorted(columns.items())) for quantity, columns in found.items()}


def _parse_block(names: Sequence[str], model: str) -> Iterator[ColumnKey]:
    """Yield the keys of one model's columns. Its quantities are those that have quantiles."""
    found = [parsed[1] for name in names if (parsed := parse_column(name, (model,))) is not None]
    # A first pass finds the quantities, without which the names of correlations cannot be split.
    quantities = {key.quantity for key in found if key.statistic is Statistic.QUANTILE}
    for name in names:
        if (parsed := parse_column(name, (model,), quantities=quantities)) is not None:
            yield parsed[1]


def parse_column(
    name: str, models: Collection[str], *, quantities: Collection[str] = ()
) -> tuple[str, ColumnKey] | None:
    """Return the model and the key of one result column, or None if it belongs to none of `models`.

    Parameters
    ----------
    name : str
        The column's name in the catalog.
    models : collection of str
        Names of all models of the run. If the column's name begins with several of them, the longest is taken.
    quantities : collection of str
        Names of the model's quantities. If empty, any quantity is accepted, but no correlation is recognized: without
        the list the two names in it cannot be separated.
    """
    own = [model for model in models if name.startswith(f"{model}_")]
    if not own:
        return None
    # "gampen_survey_bt_q500" begins with "gampen_" too.
    model = max(own, key=len)
    rest = name.removeprefix(f"{model}_")
    # The longest word first: otherwise "bt_epistemic_std" would be read as the "std" of a quantity "bt_epistemic".
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
