"""The rows of a catalog that a page shows: positions, ids, flags, and other columns when they are first asked for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from galbatch import api
from galbatch.catalog import parse_ids, read_schema
from galbatch.core.columns import (
    DEC,
    EMBEDDING,
    HEALPIX,
    ID,
    RA,
    flag_columns,
    parse_columns,
    quantile_columns,
)
from galbatch.core.flags import FlagClass
from galbatch.errors import UsageError

__all__ = ["BrowsedRows", "RaisedFlag", "nearest_point"]

Floats = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class RaisedFlag:
    """A flag that some objects have: its column of flags, what is known of it, and the number of objects."""

    column: str
    flag: api.FlagText
    n: int

    @property
    def label(self) -> str:
        """Column, name and number of objects as text."""
        return f"{self.column}: {self.flag.name} ({self.n:,})"


@dataclass(frozen=True)
class BrowsedRows:
    """The rows of a catalog in memory.

    Attributes
    ----------
    catalog : galbatch.api.Catalog
    schema : pyarrow.Schema
        Of all its columns.
    object_id : pyarrow.Array, (object,)
    flags : mapping of column to (object,) int32
    raised : tuple of RaisedFlag
        In the order of columns and bits; flags that no object has are left out.
    ra_turns : bool
        Whether the objects lie on both sides of 0 h, so that right ascensions above 180 deg are shown as negative.
    """

    catalog: api.Catalog
    schema: pa.Schema
    object_id: pa.Array
    flags: dict[str, npt.NDArray[np.int32]]
    raised: tuple[RaisedFlag, ...]
    ra_turns: bool
    _columns: dict[str, Floats] = field(default_factory=dict)

    @classmethod
    def read(cls, catalog: api.Catalog) -> BrowsedRows:
        """Read ids, positions and flags of a catalog; 40 bytes an object, where it has two models.

        Raises
        ------
        CatalogError, DamagedError
            As `galbatch.api.Catalog.to_arrow`.
        """
        names = flag_columns(catalog.columns)
        table = catalog.to_arrow([ID.name, RA.name, DEC.name, *names])
        flags = {name: table.column(name).to_numpy() for name in names}
        ra = np.asarray(table.column(RA.name).to_numpy(), np.float64) % 360
        turned = np.where(ra > 180, ra - 360, ra)
        turns = bool(len(ra)) and np.ptp(turned) < np.ptp(ra)
        raised = [
            RaisedFlag(name, flag, n)
            for name, values in flags.items()
            for n, flag in api.flag_counts_of(table.schema.field(name), values)
            if n
        ]
        dec = np.asarray(table.column(DEC.name).to_numpy(), np.float64)
        columns = {RA.name: turned if turns else ra, DEC.name: dec}
        schema = read_schema(catalog.path)
        ids = table.column(ID.name).combine_chunks()
        return cls(catalog, schema, ids, flags, tuple(raised), bool(turns), columns)

    def __len__(self) -> int:
        return len(self.object_id)

    @property
    def plottable(self) -> list[str]:
        """Names of the columns of numbers, without vectors, flags and the index of the sky."""
        left_out = {HEALPIX.name, ID.name, *self.flags}
        return [
            one.name
            for one in self.schema
            if one.name not in left_out and (pa.types.is_floating(one.type) or pa.types.is_integer(one.type))
        ]

    @property
    def first_columns(self) -> tuple[str, str]:
        """The two columns that a page begins with: medians of the first model with two quantities, or the position."""
        medians = {
            key: columns[0.5]
            for key, columns in quantile_columns(self.schema.names).items()
            if 0.5 in columns
        }
        for model in self.catalog.models:
            names = [name for (whose, _), name in medians.items() if whose == model]
            if len(names) > 1:
                return names[0], names[1]
        return RA.name, DEC.name

    @property
    def embedded(self) -> str | None:
        """The first model with an embedding, in which an object has neighbors; None if there is none."""
        keys = parse_columns(self.schema.names).values()
        return next((model for model, key in keys if key == EMBEDDING), None)

    def label(self, column: str) -> str:
        """Return the name of a column with its unit."""
        unit = (self.schema.field(column).metadata or {}).get(b"unit", b"").decode()
        return f"{column} ({unit})" if unit else column

    def values(self, column: str) -> Floats:
        """Return a column (object,) as floats, NaN where it is missing; it is kept in memory.

        Raises
        ------
        CatalogError, DamagedError
            As `galbatch.api.Catalog.to_arrow`.
        """
        if column not in self._columns:
            found = self.catalog.to_arrow([column]).column(0).to_numpy()
            # float32 is enough for a plot, but for integers above 2^24, as ids of tiles, and for positions.
            kind = np.float32 if found.dtype == np.float32 else np.float64
            self._columns[column] = np.asarray(found, kind)
        return self._columns[column]

    def shown(self, chosen: Collection[RaisedFlag], *, only: bool) -> Mask:
        """Return which rows (object,) have none of the chosen flags; with `only`, which have any of them. Without a choice all are shown."""
        if not chosen:
            return np.ones(len(self), np.bool_)
        has = np.zeros(len(self), np.bool_)
        for name, values in self.flags.items():
            bits = sum(one.flag.value for one in chosen if one.column == name)
            has |= (values & bits) != 0
        return has if only else ~has

    @property
    def quality_flags(self) -> list[RaisedFlag]:
        """The raised flags that warn about a value."""
        return [one for one in self.raised if one.flag.flag_class == FlagClass.QUALITY]

    def ids(self, rows: npt.NDArray[np.intp]) -> list[Any]:
        """Return the ids of some rows (row,)."""
        return list(self.object_id.take(pa.array(rows)).to_pylist())

    def row_of(self, object_id: str) -> int:
        """Return the row of an id that is given as text.

        Raises
        ------
        UsageError
            No row has it, or it cannot be an id of the catalog.
        """
        values = parse_ids(self.catalog.path, self.object_id.type, [object_id])
        row = int(pc.index(self.object_id, pa.scalar(values[0], self.object_id.type)).as_py())
        if row < 0:
            raise UsageError(f"{self.catalog.path}: no object {object_id} among the {len(self):,} rows shown")
        return row

    def listed(self, rows: npt.NDArray[np.intp]) -> pa.Table:
        """Return id and position of some rows (row,): an object list that ``[objects]`` reads."""
        return self.catalog.to_arrow([ID.name, RA.name, DEC.name]).take(pa.array(rows))


def nearest_point(
    x: Floats, y: Floats, at: tuple[float, float], spans: tuple[float, float], *, reach: float
) -> int | None:
    """Return the index of the point (point,) nearest to a place of a panel; None if none is within `reach`.

    Parameters
    ----------
    x, y : (point,) float
    at : (float, float)
    spans : (float, float)
        Width and height of the panel's view: distances are in units of them.
    reach : float
        Largest distance, as a share of the view.
    """
    distance = np.hypot((x - at[0]) / spans[0], (y - at[1]) / spans[1])
    if not len(distance) or np.isnan(distance).all():
        return None
    index = int(np.nanargmin(distance))
    return index if distance[index] <= reach else None
