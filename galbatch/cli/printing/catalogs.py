"""How commands print what is in a catalog: rows, flags, objects, tables of results and comparisons."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from galbatch.cli.printing.lines import print_line, print_table
from galbatch.core.texts import counted

if TYPE_CHECKING:
    import pyarrow as pa

    from galbatch.api import FlagText, ObjectValues
    from galbatch.models import ResultTable
    from galbatch.reporting import CatalogComparison, ComparedQuantity, ComparedRedshift

__all__ = [
    "print_comparison",
    "print_csv",
    "print_flags",
    "print_object",
    "print_result_tables",
    "print_rows",
    "with_error",
]


def print_csv(rows: pa.Table) -> None:
    """Print rows as CSV, for programs in a pipe: a console would wrap the lines at the terminal's width."""
    import pandas as pd

    from galbatch.objects import csv_table

    # With NumPy's types a null would make floats of the integers in its column, which lose digits of long ids.
    sys.stdout.write(csv_table(rows).to_pandas(types_mapper=pd.ArrowDtype).to_csv(index=False))


def print_rows(rows: pa.Table, columns: Sequence[str]) -> None:
    """Print rows on a terminal, the columns in blocks that fit its width; each block begins with the ids.

    Parameters
    ----------
    rows : pyarrow.Table
    columns : sequence of str
        The columns to print, in this order.
    """
    first = next(name for name in ("object_id", *columns) if name in rows.column_names)
    columns = list(dict.fromkeys([first, *columns]))
    cells = zip(*(_cells(rows, name) for name in columns), strict=True)
    print_table(columns, list(cells), right=range(1, len(columns)))


def _cells(rows: pa.Table, name: str) -> list[str]:
    unit = (rows.schema.field(name).metadata or {}).get(b"unit", b"")
    # 1e-5 deg are 0.04 arcsec.
    digits = ".5f" if unit == b"deg" else ".6g"
    values = rows.column(name).to_pylist()
    return [
        "" if value is None else f"{value:{digits}}" if isinstance(value, float) else str(value)
        for value in values
    ]


def print_flags(flags: Sequence[FlagText], indent: str = "  ") -> None:
    """Print the texts of flags, a line each; "no flag" if there are none."""
    for flag in flags:
        print_line(f"{indent}{flag.value} {flag.name} ({flag.flag_class}): {flag.text}")
    if not flags:
        print_line(f"{indent}no flag")


def print_object(found: ObjectValues, place: str) -> None:
    """Print an object of a catalog: position, flags, kept columns, and a table for each model.

    Parameters
    ----------
    found : ObjectValues
    place : str
        The position in hours and degrees.
    """
    print_line(f"object {found.object_id}")
    print_line(f"position: {found.ra_deg:.6f} {found.dec_deg:+.6f} deg, {place}, ICRS")
    print_line("flags:")
    print_flags(found.flags)
    for name, value, unit in found.kept:
        print_line(f"{name}: {_cell(value)}{f' {unit}' if unit else ''}")
    for model in found.models:
        passes = counted(model.n_passes, "pass", "passes")
        error = "" if model.mc_error is None else f", Monte Carlo error {model.mc_error:.2g} posterior std"
        print_line(f"\n{model.model}: {passes}{error}; flags:")
        print_flags(model.flags)
        table = model.quantities
        if table.rows:
            # Names and units are text, all between are numbers.
            rows = [list(map(_cell, row)) for row in table.rows]
            print_table(table.columns, rows, right=range(1, len(table.columns) - 1))
        for quantity, label in model.labels:
            print_line(f"{quantity}: {label}")


def print_result_tables(tables: Sequence[ResultTable]) -> None:
    """Print tables of results, each below its caption."""
    for result in tables:
        print_line(f"\n{result.caption}:")
        # The first column holds names, all others numbers.
        rows = [list(map(_cell, row)) for row in result.rows]
        print_table(result.columns, rows, right=range(1, len(result.columns)))


def print_comparison(compared: CatalogComparison) -> None:
    """Print the counts of a comparison's rows and a table for each quantity, with errors behind ±."""
    found = compared.matching
    print_line(f"matched: {counted(len(found), 'object')}")
    print_line(f"only in {compared.catalog}: {found.n_only_here}")
    print_line(f"only in {compared.other}: {found.n_only_there}")
    print_line(f"ambiguous, left out: {found.n_ambiguous_here} and {found.n_ambiguous_there}")
    if compared.n_flagged:
        print_line(f"spoiled pixels, left out: {counted(compared.n_flagged, 'matched object')}")
    for one in compared.quantities:
        quantity = one.comparison.quantity
        unit = "relative" if one.is_relative else one.unit
        print_line(f"\n{quantity.model} {quantity.parameter} and {one.column}{f' ({unit})' if unit else ''}:")
        cells = _comparison_cells(one)
        print_table(list(cells), list(zip(*cells.values(), strict=True)), right=range(1, len(cells)))
    for redshift in compared.redshifts:
        print_line(
            f"\n{redshift.model} {redshift.quantity} as a redshift, dz = (z_phot - z_spec) / (1 + z_spec):"
        )
        cells = _redshift_cells(redshift)
        print_table(list(cells), list(zip(*cells.values(), strict=True)), right=range(1, len(cells)))


def _redshift_cells(one: ComparedRedshift) -> dict[str, list[str]]:
    """Return the cells of a redshift's table, by their headings; without columns that have no value."""
    heads = {
        "bias": "bias",
        "sigma_nmad": "NMAD",
        "outliers_15": "> 0.15",
        "outliers_05": "> 0.05",
        "sigma_iqr": "IQR σ",
        "pit_mean": "PIT mean",
        "pit_std": "PIT σ",
        "cde_loss": "CDE loss",
        "crps": "CRPS",
        "log_score": "ln p",
    }
    rows = [(text, found.measured, found.measured.named()) for text, found in one.rows()]
    cells = {"": [text for text, *_ in rows], "n": [str(measured.n) for _, measured, _ in rows]}
    for name, head in heads.items():
        values = [named[name] for *_, named in rows]
        if any(math.isfinite(value) for value, _ in values):
            cells[head] = [with_error(*value) if math.isfinite(value[0]) else "" for value in values]
    return cells


def _comparison_cells(one: ComparedQuantity) -> dict[str, list[str]]:
    heads = {"bias": "bias", "std": "std", "nmad": "NMAD"}
    shares = {"outliers": "outliers %", "coverage68": "in 68 %", "coverage95": "in 95 %"}
    rows = list(one.rows())
    names = [
        f"{row['bins']} {row['bin_low']:.4g} to {row['bin_high']:.4g}" if row["bins"] else "all"
        for row in rows
    ]
    cells = {"": names, "n": [str(row["n"]) for row in rows]}
    for columns, scale in ((heads, 1.0), (shares, 100.0)):
        for name, head in columns.items():
            cells[head] = [with_error(row[name], row[f"{name}_error"], scale) for row in rows]
    return cells


def with_error(value: float | None, error: float | None, scale: float = 1.0) -> str:
    """Return a value and its error, both times `scale`, with two digits of the error: ``0.103±0.012``; empty without a value."""
    if value is None:
        return ""
    if not error or not math.isfinite(error):
        return f"{scale * value:.3g}"
    decimals = max(0, 1 - math.floor(math.log10(scale * error)))
    # Adding 0.0 turns -0.0 into 0.0.
    return f"{round(scale * value, decimals) + 0.0:.{decimals}f}±{scale * error:.{decimals}f}"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
