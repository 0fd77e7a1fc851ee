"""One object of a catalog for human readers: position, flags with their texts, and each model's values with intervals and units."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import astropy.units as u
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy.coordinates import SkyCoord

from galbatch import catalog
from galbatch.core.columns import (
    DEC,
    HEALPIX,
    ID,
    MC_ERROR,
    MODEL_FLAGS,
    PASSES,
    PIXEL_FLAGS,
    RA,
    SEPARATION,
    ColumnKey,
    Statistic,
    parse_columns,
    quantile_columns,
    result_names,
)
from galbatch.core.flags import FLAGS_KEY, count_flags
from galbatch.models import ResultTable

__all__ = [
    "FlagText",
    "ModelValues",
    "ObjectValues",
    "central_levels",
    "flag_counts",
    "flag_counts_of",
    "flag_texts",
    "object_values",
    "sexagesimal",
    "short_columns",
]

SHARES = (0.6827, 0.9545)
"""Probabilities of the intervals that are shown: 1 and 2 sigma of a normal distribution."""

ID_WIDTH, VALUE_WIDTH = 19, 10
"""Characters that an id of 64 bits and a number take in a table."""

LEVEL_TOLERANCE = 0.005
"""How far a level may be from that of an interval: a run may round its levels, 0.16 and 0.84 for 68.27 %."""


@dataclass(frozen=True, slots=True)
class FlagText:
    """A bit that is set in a column of flags: its value, name, class (quality or information) and text."""

    value: int
    name: str
    flag_class: str
    text: str


@dataclass(frozen=True, slots=True)
class ModelValues:
    """The values of one model for an object.

    Attributes
    ----------
    model : str
    n_passes : int
        Number of passes of each network; 0: none was run.
    mc_error : float or None
        Largest Monte Carlo error of a quantile in posterior standard deviations; None if there is none.
    flags : tuple of FlagText
    quantities : ResultTable
        A row for each quantity that has a value: median, intervals, unit.
    labels : tuple of (str, str)
        Quantity and word for its median.
    """

    model: str
    n_passes: int
    mc_error: float | None
    flags: tuple[FlagText, ...]
    quantities: ResultTable
    labels: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ObjectValues:
    """An object of a catalog.

    Attributes
    ----------
    object_id : int or str
    ra_deg, dec_deg : float
    kept : tuple of (str, object, str)
        Name, value and unit of each column that was kept from the object list.
    flags : tuple of FlagText
        What the pixels and the object list say.
    models : tuple of ModelValues
    """

    object_id: int | str
    ra_deg: float
    dec_deg: float
    kept: tuple[tuple[str, Any, str], ...]
    flags: tuple[FlagText, ...]
    models: tuple[ModelValues, ...]


def central_levels(levels: Sequence[float], share: float) -> tuple[float, float] | None:
    """Return those of the levels that bound the equal-tailed interval of probability `share`; None if there are none."""
    ends = []
    for end in ((1 - share) / 2, (1 + share) / 2):
        nearest = min(levels, key=lambda level: abs(level - end), default=math.inf)
        if abs(nearest - end) >= LEVEL_TOLERANCE:
            return None
        ends.append(nearest)
    return ends[0], ends[1]


def flag_texts(field: pa.Field, value: int) -> tuple[FlagText, ...]:
    """Return the bits that are set in a value of a column of flags, by the meanings that its field metadata state."""
    rows = json.loads((field.metadata or {}).get(FLAGS_KEY.encode(), b"[]"))
    return tuple(
        FlagText(row["value"], row["name"], row["class"], row["text"]) for row in rows if value & row["value"]
    )


def flag_counts(catalog_path: str, column: str) -> list[tuple[int, FlagText]]:
    """Return how many objects of a catalog have each flag of a column of flags, for all flags of the column.

    Raises
    ------
    CatalogError
        There is no catalog, or it has no such column.
    """
    table = catalog.read_catalog(catalog_path, columns=[column])
    return flag_counts_of(table.schema.field(0), table.column(0).to_numpy())


def flag_counts_of(field: pa.Field, values: npt.NDArray[np.int32]) -> list[tuple[int, FlagText]]:
    """Return how many of the values (object,) of a column of flags have each flag, for all flags that its field metadata state."""
    every = flag_texts(field, -1)
    return list(zip(count_flags(values, [flag.value for flag in every]), every, strict=True))


def short_columns(names: Sequence[str], *, width: int) -> list[str]:
    """Return the columns of a catalog that a narrow table shows: position, then medians, as many as `width` characters hold.

    Parameters
    ----------
    names : sequence of str
        All columns of the catalog, in the catalog's order.
    width : int
        Width of the table in characters, with the ids and the separations, which are not returned.
    """
    medians = [columns[0.5] for columns in quantile_columns(names).values() if 0.5 in columns]
    left = width - ID_WIDTH - len(SEPARATION.name) - 4
    shown = []
    for name in (RA.name, DEC.name, *medians):
        left -= max(len(name), VALUE_WIDTH) + 2
        if left < 0:
            break
        shown.append(name)
    return shown


def sexagesimal(ra_deg: float, dec_deg: float) -> str:
    """Return a position as text, in hours and degrees to 0.1 arcsec: ``10:00:24.20 -02:13:05.0``."""
    position = SkyCoord(ra_deg % 360, dec_deg, unit=u.deg)
    ra = position.ra.to_string(u.hourangle, sep=":", precision=2, pad=True)
    return f"{ra} {position.dec.to_string(sep=':', precision=1, pad=True, alwayssign=True)}"


def object_values(row: pa.Table) -> ObjectValues:
    """Return the values of an object with their units, from the first row of a table such as `galbatch.catalog.read_objects` returns."""
    values, schema = row.to_pylist()[0], row.schema
    own = {HEALPIX.name, ID.name, RA.name, DEC.name, *result_names(schema.names)}
    kept = [(name, values[name], _unit(schema, name)) for name in schema.names if name not in own]
    # Every model has a column of flags, and may have no quantity.
    models = [model for model, key in parse_columns(schema.names).values() if key == MODEL_FLAGS]
    return ObjectValues(
        values[ID.name],
        values[RA.name],
        values[DEC.name],
        tuple(kept),
        flag_texts(schema.field(PIXEL_FLAGS.name), values[PIXEL_FLAGS.name]),
        tuple(_model_values(model, schema, values) for model in models),
    )


def _model_values(model: str, schema: pa.Schema, values: dict[str, Any]) -> ModelValues:
    name = MODEL_FLAGS.name(model)
    quantities = {
        quantity: columns
        for (whose, quantity), columns in quantile_columns(schema.names).items()
        if whose == model
    }
    labels = {
        quantity: values.get(ColumnKey(Statistic.LABEL, quantity).name(model)) for quantity in quantities
    }
    rows = [
        _row(
            quantity,
            {level: values[column] for level, column in columns.items()},
            _unit(schema, next(iter(columns.values()))),
        )
        for quantity, columns in quantities.items()
        if None not in [values[column] for column in columns.values()]
    ]
    heads = ("", "median", *(f"{100 * share:.0f} % interval" for share in SHARES), "unit")
    return ModelValues(
        model,
        values.get(PASSES.name(model), 0),
        values.get(MC_ERROR.name(model)),
        flag_texts(schema.field(name), values[name]),
        ResultTable(model, heads, tuple(rows)),
        tuple((quantity, label) for quantity, label in labels.items() if label),
    )


def _row(quantity: str, quantiles: dict[float, float], unit: str) -> tuple[str, ...]:
    """Return the cells of a quantity: name, median, intervals and unit; with two digits of half the first interval's width."""
    levels = list(quantiles)
    ends = [central_levels(levels, share) for share in SHARES]
    inner = ends[0] or (levels[0], levels[-1])
    decimals = _decimals((quantiles[inner[1]] - quantiles[inner[0]]) / 2)

    def shown(level: float) -> str:
        return f"{quantiles[level]:.{decimals}f}"

    middle = min(levels, key=lambda level: abs(level - 0.5))
    intervals = ["" if pair is None else f"{shown(pair[0])} to {shown(pair[1])}" for pair in ends]
    return quantity, shown(middle) if abs(middle - 0.5) < LEVEL_TOLERANCE else "", *intervals, unit


def _decimals(width: float) -> int:
    """Return the number of decimals that show two digits of a width; 4 for a width of zero, of a network without posterior."""
    return max(0, min(8, 1 - math.floor(math.log10(width)))) if width > 0 else 4


def _unit(schema: pa.Schema, name: str) -> str:
    return str((schema.field(name).metadata or {}).get(b"unit", b"").decode())
