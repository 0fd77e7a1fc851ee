"""Lines and tables on a terminal of any width, broken between words, and as they are in a pipe."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.console import Console
from rich.text import Text

from galbatch.core.texts import continued, fill

__all__ = ["errors", "out", "print_command", "print_error", "print_line", "print_table", "print_verbatim"]

# rich would take brackets in paths for markup, and :a: for an emoji.
out = Console(highlight=False, markup=False, emoji=False)
errors = Console(stderr=True, highlight=False, markup=False, emoji=False)

GAP = "  "

LEAST_PROSE = 24
"""Characters that a column of prose needs: with fewer it stands below its row instead."""


def print_line(text: str) -> None:
    """Print text to stdout. On a terminal its lines break between words; in a pipe each stays one line, for grep."""
    _print(out, text)


def print_error(text: str) -> None:
    """Print text to stderr, as `print_line` does."""
    _print(errors, text)


def print_verbatim(text: str) -> None:
    """Print text that must stay as it is, such as TOML to paste, however narrow the terminal is."""
    out.print(text, soft_wrap=True)


def print_command(text: str) -> None:
    """Print a shell command; on a terminal it is continued by backslashes where it is too long, so that it can be pasted."""
    print_verbatim(continued(text, out.width) if out.is_terminal else text)


def _print(console: Console, text: str) -> None:
    console.print(fill(text, console.width) if console.is_terminal else text, soft_wrap=True)


def print_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = (), prose: bool = False
) -> None:
    """Print a table without a frame. On a terminal that is too narrow for it no word is cut, and no line is too long.

    The last column breaks between words if it is prose; where it has no room it stands below its row. Other tables are printed in
    blocks of columns, each of which begins with the first column; a column that does not fit beside it alone breaks as prose does.

    Parameters
    ----------
    heads : sequence of str
        Headings; empty if none is wanted.
    rows : sequence of sequences of str
        Cells, as many in each row as there are headings.
    right : collection of int
        Numbers of the columns that are aligned to the right.
    prose : bool
        Whether the last column is prose.
    """
    columns = [[head, *(row[place] for row in rows)] for place, head in enumerate(heads)]
    widths = [max(map(len, column)) for column in columns]
    width = out.width if out.is_terminal else sum(widths) + len(GAP) * len(widths)
    cells = [
        [text.rjust(size) if place in right else text.ljust(size) for text in column]
        for place, (column, size) in enumerate(zip(columns, widths, strict=True))
    ]
    if prose:
        _print_with_prose(cells[:-1], columns[-1], width)
        return
    for number, block in enumerate(_blocks(widths, width)):
        if number:
            print_verbatim("")
        if len(block) == 2 and widths[0] + len(GAP) + widths[block[1]] > width:
            _print_with_prose(cells[:1], columns[block[1]], width)
            continue
        _print_rows([GAP.join(row).rstrip() for row in zip(*(cells[place] for place in block), strict=True)])


def _blocks(widths: Sequence[int], width: int) -> list[list[int]]:
    """Return the columns of each block: the first column and as many others as fit, at least one."""
    blocks: list[list[int]] = []
    used = width + 1
    for place in range(1, len(widths)):
        if used + len(GAP) + widths[place] > width:
            blocks.append([0])
            used = widths[0]
        blocks[-1].append(place)
        used += len(GAP) + widths[place]
    return blocks or [[0]]


def _print_with_prose(cells: Sequence[Sequence[str]], prose: Sequence[str], width: int) -> None:
    rows = []
    for row, text in zip(zip(*cells, strict=True), prose, strict=True):
        begin = GAP.join([*row, ""])
        if len(begin) + len(text) <= width:
            rows.append(f"{begin}{text}".rstrip())
        elif width - len(begin) >= LEAST_PROSE:
            broken = fill(text, width - len(begin)).split("\n")
            rows.append(
                "\n".join([begin + broken[0], *(" " * len(begin) + line.strip() for line in broken[1:])])
            )
        else:
            below = fill(f"    {text}", width) if text else ""
            rows.append("\n".join(line for line in (begin.rstrip(), below) if line))
    _print_rows(rows)


def _print_rows(rows: Sequence[str]) -> None:
    """Print rows, of which the first has the headings, if there are any."""
    head, *others = rows
    if head.strip():
        out.print(Text(head, style="bold"), soft_wrap=True)
    for row in others:
        print_verbatim(row)
