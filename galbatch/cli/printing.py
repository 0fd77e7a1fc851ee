"""Functions by which commands print lines, tables, counts and sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from galbatch.models import ResultTable

__all__ = [
    "counted",
    "errors",
    "out",
    "plain_table",
    "print_line",
    "print_result_tables",
    "print_wide",
    "size",
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


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless the number is 1: ``1 object``, ``2 objects``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def size(n_bytes: int) -> str:
    """Return a number of bytes as text with a binary unit (KiB to TiB), such as ``1.50 GiB``."""
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.2f} {unit}"
    return f"{n_bytes / 2**10:.2f} KiB"
