"""The other table of a comparison: which of its columns are the catalog's quantities, and their values in the catalog's units."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galbatch import objects, storage
from galbatch.core.columns import quantile_columns
from galbatch.core.types import njy_per_unit
from galbatch.errors import ObjectListError, UsageError
from galbatch.reporting.comparison.units import converted, unit_of_name

__all__ = ["OtherTable", "ReferenceColumn", "find_column"]

Floats = npt.NDArray[np.float64]

GAMPEN_NAMES = {"re_arcsec": "R_e_asec", "bt": "bt", "flux_njy": "total_flux_adus", "mag": "total_mag"}
"""Quantities in the names of GaMPEN's published summaries, such as ``preds_R_e_asec_median``; before it may stand a band."""

GAMPEN_STATISTICS = ("median", "mode", "mean")
"""Point estimates of GaMPEN's summaries, the one that is most like a catalog's median first."""

GAMPEN_FLUX_UNIT = f"{njy_per_unit(27.0):.6g} nJy"
"""The unit of GaMPEN's fluxes: counts of HSC's coadds, whose zero point is 27.0 mag."""

OTHER_NAMES = {
    "re_arcsec": ("re", "reff", "rhalf", "hlr", "halflightradius", "effectiveradius", "radius"),
    "bt": ("b/t", "btot", "bulgetototal", "bulgefraction", "bulgetototalratio"),
    "flux_njy": ("flux", "totalflux"),
    "mag": ("mag", "magnitude", "totalmag", "magtotal"),
}
"""Names that tables use for a quantity, in lower case and without underscores, spaces and dashes."""


@dataclass(frozen=True, slots=True)
class ReferenceColumn:
    """A column of the other table and its unit; None if the file, or the column's name, says it."""

    name: str
    unit: str | None = None


class OtherTable:
    """A table in a file of any kind that object lists have, or in memory.

    Parameters
    ----------
    source : str or pyarrow.Table
        Path of a table, of a folder of Parquet files, or of a HATS catalog; or the table.
    hdu : int, str or None
        The table of a file with several.
    """

    def __init__(self, source: str | pa.Table, *, hdu: int | str | None = None) -> None:
        self.label = source if isinstance(source, str) else "the other table"
        self._hdu = hdu
        if isinstance(source, str) and objects.is_hats(source):
            source = storage.join(source, "dataset")
        self._source = source
        self.names: list[str] = (
            objects.column_names(source, hdu=hdu) if isinstance(source, str) else source.column_names
        )

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Return columns of all rows; raises `ObjectListError` as `galbatch.objects.read_table` does."""
        wanted = list(dict.fromkeys(columns))
        if missing := [name for name in wanted if name not in self.names]:
            raise ObjectListError(f"{self.label}: no column {missing[0]}; there are {', '.join(self.names)}")
        if isinstance(self._source, str):
            return objects.read_table(self._source, columns=wanted, hdu=self._hdu)
        return self._source.select(wanted)

    def guess(self, *keys: str) -> list[str]:
        """Return the columns that are the ``id``, ``ra`` or ``dec``, by the names that surveys use; raise if there are none."""
        found = objects.guess_columns(self.label, self.names, keys)
        return [found[key] for key in keys]

    def where(self, column: str) -> str:
        """Return file and column as error messages name them."""
        return f"{self.label}: column {column}"

    def numbers(self, table: pa.Table, name: str) -> Floats:
        """Return a column of a table that was read, (row,) float64, NaN for null; raise `ObjectListError` if it is not numbers."""
        return objects.numbers_of(self.label, table.column(name), name=name, expected="numbers")

    def degrees(self, table: pa.Table, name: str) -> Floats:
        """Return a column of positions (row,) in degrees, NaN for null; raises as `galbatch.objects.degrees_of` does."""
        return objects.degrees_of(self.label, table, name)

    def values(self, table: pa.Table, column: ReferenceColumn, wanted: str) -> Floats:
        """Return the values (row,) float64 of a quantity in the unit `wanted`; raise `UsageError` if units do not fit.

        A column that states no unit, neither by its metadata nor at the end of its name, is taken to be in `wanted`.
        """
        stated = (table.schema.field(column.name).metadata or {}).get(b"unit", b"").decode()
        unit = column.unit if column.unit is not None else stated or unit_of_name(column.name) or wanted
        numbers = self.numbers(table, column.name)
        return converted(numbers, unit, wanted, where=self.where(column.name))


def find_column(
    other: OtherTable, model: str, quantity: str, given: Mapping[str, str]
) -> ReferenceColumn | None:
    """Return the column of another table that holds a quantity of the catalog, None if there is none.

    Looked for in this order: the column that is given, one of the quantity's own name, GaMPEN's published summaries, the median of
    another catalog of galbatch (of the same model, or of its only one), usual names; a magnitude also by its flux.

    Parameters
    ----------
    other : OtherTable
    model, quantity : str
        As in the catalog's columns.
    given : mapping of quantity to ``COLUMN`` or ``COLUMN:UNIT``

    Raises
    ------
    UsageError
        The column that is given is not there, or several columns are equally good.
    """
    if quantity in given:
        return _given(other, quantity, given[quantity])
    for found in _recognized(other.names, model, quantity):
        names = list(dict.fromkeys(found))
        if len(names) > 1:
            raise UsageError(
                f"{other.label}: {len(names)} columns may be {quantity}: {', '.join(names)}; choose by --column {quantity}=COLUMN"
            )
        if names:
            is_counts = "total_flux_adus" in names[0]
            return ReferenceColumn(names[0], GAMPEN_FLUX_UNIT if is_counts else None)
    # A magnitude follows from the flux, whose unit must be known then.
    flux = find_column(other, model, "flux_njy", {}) if quantity == "mag" else None
    return flux if flux and (flux.unit or unit_of_name(flux.name)) else None


def _given(other: OtherTable, quantity: str, text: str) -> ReferenceColumn:
    # The name of a column may hold a colon itself.
    if text in other.names:
        return ReferenceColumn(text)
    name, colon, unit = text.rpartition(":")
    if colon and name in other.names:
        return ReferenceColumn(name, unit)
    raise UsageError(
        f"--column {quantity}={text}: {other.label} has no column {name or text}; there are {', '.join(other.names)}"
    )


def _recognized(names: Sequence[str], model: str, quantity: str) -> Iterator[list[str]]:
    """Yield groups of columns that may be a quantity, the surest first; the columns of a group are equally good."""
    yield [quantity] if quantity in names else []
    if quantity in GAMPEN_NAMES:
        for statistic in GAMPEN_STATISTICS:
            pattern = re.compile(rf"(.+_)?preds_{re.escape(GAMPEN_NAMES[quantity])}_{statistic}")
            yield [name for name in names if pattern.fullmatch(name)]
    medians = {
        whose: columns[0.5]
        for (whose, what), columns in quantile_columns(names).items()
        if what == quantity and 0.5 in columns
    }
    yield [medians[model]] if model in medians else list(medians.values())
    wanted = (_plain(quantity), *OTHER_NAMES.get(quantity, ()))
    for one in wanted:
        yield [name for name in names if _plain(name) == one]


def _plain(name: str) -> str:
    return re.sub(r"[_\s-]", "", name.lower())
