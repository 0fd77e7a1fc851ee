"""The matched rows of a catalog and another table, with the quantities that both have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galbatch import catalog, objects
from galbatch.core.columns import (
    DEC,
    ID,
    PIXEL_FLAGS,
    RA,
    Statistic,
    flag_columns,
    parse_columns,
    quantile_columns,
)
from galbatch.errors import UsageError
from galbatch.reporting.comparison.binning import Binning
from galbatch.reporting.comparison.matching import Matching, match_ids, match_sky
from galbatch.reporting.comparison.reference import OtherTable, ReferenceColumn, find_column
from galbatch.reporting.contents import SPOILING_FLAGS, Quantity, quantities_of

__all__ = ["Joined", "Keys", "QuantityColumns", "join", "quantity_columns"]

Floats = npt.NDArray[np.float64]

QuantityColumns = Mapping[tuple[str, str], ReferenceColumn]
"""Columns of the other table by model and quantity of the catalog."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The way in which rows are matched: by ``id`` or on the ``sky``, within a radius, by which columns of the other table (None: by their names)."""

    match: str
    radius_arcsec: float
    id: str | None = None
    ra: str | None = None
    dec: str | None = None

    def columns(self, other: OtherTable) -> list[str]:
        """Return the other table's column of ids, or those of right ascension and declination."""
        stated = {"id": self.id} if self.match == "id" else {"ra": self.ra, "dec": self.dec}
        return [name or other.guess(key)[0] for key, name in stated.items()]

    def matching(self, here: pa.Table, other: OtherTable, there: pa.Table) -> Matching:
        """Return the rows of a catalog and of the other table that are the same object."""
        columns = self.columns(other)
        if self.match == "id":
            return match_ids(here.column(ID.name), there.column(columns[0]), where=other.where(columns[0]))
        mine = (here.column(RA.name).to_numpy(), here.column(DEC.name).to_numpy())
        theirs = (other.degrees(there, columns[0]), other.degrees(there, columns[1]))
        return match_sky(mine, theirs, radius_arcsec=self.radius_arcsec)


@dataclass(frozen=True, eq=False)
class Joined:
    """Rows of a catalog and of another table that are the same objects, side by side.

    Attributes
    ----------
    here, there : pyarrow.Table
        The columns that the comparison needs.
    other : OtherTable
    columns : QuantityColumns
    bins : tuple of Binning
    matching : Matching
        The rows in the whole tables, and the numbers of all others.
    """

    here: pa.Table
    there: pa.Table
    other: OtherTable
    columns: QuantityColumns
    bins: tuple[Binning, ...]
    matching: Matching

    def __len__(self) -> int:
        return int(self.here.num_rows)

    def without_spoiled(self) -> Joined:
        """Return the objects without flags that say that the pixels do not show them as they are."""
        clean = pa.array((self.here.column(PIXEL_FLAGS.name).to_numpy() & int(SPOILING_FLAGS)) == 0)
        return replace(self, here=self.here.filter(clean), there=self.there.filter(clean))

    def quantities(self) -> list[Quantity]:
        """Return the catalog's quantities that the other table has."""
        return [one for one in quantities_of(self.here) if (one.model, one.parameter) in self.columns]

    def reference(self, quantity: Quantity) -> Floats:
        """Return the other table's values of a quantity, (object,) float64, in the catalog's unit; NaN where there is none."""
        column = self.columns[quantity.model, quantity.parameter]
        return self.other.values(self.there, column, quantity.unit)

    def bin_values(self, name: str) -> Floats:
        """Return the values (object,) by which objects are binned: of a quantity the other table's, or a column of either table."""
        for quantity in self.quantities():
            if quantity.parameter == name:
                return self.reference(quantity)
        if name in self.here.column_names:
            return objects.numbers_of("the catalog", self.here.column(name), name=name, expected="numbers")
        return self.other.numbers(self.there, name)


def quantity_columns(catalog_path: str, other: OtherTable, given: Mapping[str, str]) -> QuantityColumns:
    """Return the columns of the other table that are quantities of the catalog.

    Raises
    ------
    UsageError
        `given` names a quantity that the catalog does not have, or there is no column at all.
    """
    quantiles = quantile_columns(catalog.read_schema(catalog_path).names)
    known = ", ".join(dict.fromkeys(quantity for _, quantity in quantiles))
    if unknown := set(given) - {quantity for _, quantity in quantiles}:
        raise UsageError(f"--column {min(unknown)}: the catalog's quantities are {known}")
    found = {key: find_column(other, *key, given) for key in quantiles}
    columns = {key: column for key, column in found.items() if column is not None}
    if not columns:
        raise UsageError(
            f"{other.label}: none of its columns is known as a quantity of the catalog ({known}); name them by "
            f"--column QUANTITY=COLUMN; its columns are {', '.join(other.names)}"
        )
    return columns


def join(
    catalog_path: str,
    other: OtherTable,
    columns: QuantityColumns,
    *,
    keys: Keys,
    bins: Sequence[str],
    further: Sequence[str] = (),
) -> Joined:
    """Read the columns that a comparison needs of a catalog and of another table, and match their rows.

    Parameters
    ----------
    catalog_path : str
    other : OtherTable
    columns : QuantityColumns
    keys : Keys
        How rows are matched.
    bins : sequence of str
        As `Binning.parse` takes them.
    further : sequence of str
        Further columns to read, of the catalog or else of the other table. Densities of the quantities are read, too.

    Raises
    ------
    UsageError
        A bin or a further column is in neither.
    """
    names = catalog.read_schema(catalog_path).names
    quantities = {quantity for _, quantity in columns}
    binnings = tuple(Binning.parse(text, {*names, *other.names, *quantities}) for text in bins)
    levels = [name for key, of in quantile_columns(names).items() if key in columns for name in of.values()]
    if unknown := [name for name in further if name not in {*names, *other.names}]:
        raise UsageError(f"column {unknown[0]}: neither the catalog nor {other.label} has it")
    binned = [*(one.name for one in binnings if one.name not in quantities), *further]
    densities = [
        name
        for name, (model, key) in parse_columns(names).items()
        if key.statistic is Statistic.DENSITY and (model, key.quantity) in columns
    ]
    mine = [ID.name, RA.name, DEC.name, *levels, *densities, *(name for name in binned if name in names)]
    theirs = [*keys.columns(other), *(column.name for column in columns.values())]
    # In the catalog's order and with the columns of flags, which tell where each model's columns end.
    read = {*mine, *flag_columns(names)}
    here = catalog.read_catalog(catalog_path, columns=[name for name in names if name in read])
    there = other.read([*theirs, *(name for name in binned if name not in names)])
    matching = keys.matching(here, other, there)
    return Joined(
        here.take(pa.array(matching.here)),
        there.take(pa.array(matching.there)),
        other,
        columns,
        binnings,
        matching,
    )
