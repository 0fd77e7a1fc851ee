"""Functions by which commands print lines and tables."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from galbatch.core.texts import counted

if TYPE_CHECKING:
    import pyarrow as pa

    from galbatch.api import FlagText, ObjectValues
    from galbatch.models import ResultTable
    from galbatch.reporting import CatalogComparison, ComparedQuantity

__all__ = [
    "errors",
    "out",
    "plain_table",
    "print_blocks",
    "print_comparison",
    "print_csv",
    "print_flags",
    "print_line",
    "print_object",
    "print_result_tables",
    "print_rows",
    "print_table",
    "print_wide",
]

# rich would take brackets in paths for markup, and :a: for an emoji. Errors are not wrapped, so that grep finds whole lines.
out = Console(highlight=False, markup=False, emoji=False)
errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)
# In characters, wider than any table here: with the width of a terminal (80 in a pipe) rich would cut the cells.
WIDTH_CHARACTERS = 1000


def print_line(text: str) -> None:
    """Print a line to stdout without breaking it, however narrow the terminal is."""
    out.print(text, soft_wrap=True)


def plain_table(*heads: str, show_header: bool = True) -> Table:
    """Return an empty table without a frame, with the given column headings."""
    return Table(*heads, box=None, pad_edge=False, show_header=show_header)


def print_wide(table: Table) -> None:
    """Print a table without wrapping or cutting its lines, however narrow the terminal is."""
    # A console of its own: `print(width=...)` never exceeds the width of the console that prints.
    Console(width=WIDTH_CHARACTERS, highlight=False, markup=False, emoji=False).print(table, crop=False)


def print_table(table: Table) -> None:
    """Print a table whose texts wrap between words on a terminal; in a pipe each row is one line."""
    if out.is_terminal:
        out.print(table)
    else:
        print_wide(table)


def print_csv(rows: pa.Table) -> None:
    """Print rows as CSV, for programs in a pipe: a console would wrap the lines at the terminal's width."""
    import pandas as pd

    # With NumPy's types a null would make floats of the integers in its column, which lose digits of long ids.
    sys.stdout.write(rows.to_pandas(types_mapper=pd.ArrowDtype).to_csv(index=False))


def print_rows(rows: pa.Table, columns: Sequence[str]) -> None:
    """Print rows on a terminal, the columns in blocks that fit its width; each block begins with the ids.

    Parameters
    ----------
    rows : pyarrow.Table
    columns : sequence of str
        The columns to print, in this order.
    """
    first = next(name for name in ("object_id", *columns) if name in rows.column_names)
    print_blocks({name: _cells(rows, name) for name in dict.fromkeys([first, *columns])})


def print_blocks(columns: Mapping[str, Sequence[str]]) -> None:
    """Print columns of cells, by their headings, in blocks that fit the width of the terminal; each block begins with the first column."""
    first, *left = columns
    widths = {name: max(map(len, [name, *cells])) + 2 for name, cells in columns.items()}
    while True:
        table = plain_table(first)
        used = widths[first]
        block: list[str] = []
        # At least one column, however wide, or the loop would not end.
        while left and (not block or used + widths[left[0]] - 2 <= out.width):
            used += widths[left[0]]
            block.append(left.pop(0))
        for name in block:
            table.add_column(name, justify="right", no_wrap=True)
        for row in zip(*(columns[name] for name in (first, *block)), strict=True):
            table.add_row(*row)
        print_wide(table)
        if not left:
            return
        print_line("")


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
        table = plain_table()
        for number, head in enumerate(model.quantities.columns):
            table.add_column(
                head,
                justify="right" if 0 < number < len(model.quantities.columns) - 1 else "left",
                no_wrap=True,
            )
        for row in model.quantities.rows:
            table.add_row(*map(_cell, row))
        if model.quantities.rows:
            print_wide(table)
        for quantity, label in model.labels:
            print_line(f"{quantity}: {label}")


def print_result_tables(tables: Sequence[ResultTable]) -> None:
    """Print tables of results, each below its caption."""
    for result in tables:
        print_line(f"\n{result.caption}:")
        table = plain_table()
        for number, head in enumerate(result.columns):
            # The first column holds names, all others numbers.
            table.add_column(head, justify="right" if number else "left", no_wrap=True)
        for row in result.rows:
            table.add_row(*map(_cell, row))
        print_wide(table)


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
        print_blocks(_comparison_cells(one))


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
    if not error:
        return f"{scale * value:.3g}"
    decimals = max(0, 1 - math.floor(math.log10(scale * error)))
    # Adding 0.0 turns -0.0 into 0.0.
    return f"{round(scale * value, decimals) + 0.0:.{decimals}f}±{scale * error:.{decimals}f}"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
