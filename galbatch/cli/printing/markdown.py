"""Model cards on a terminal. rich's Markdown would cut words in narrow columns of its tables."""

from __future__ import annotations

import itertools
import re

from rich.text import Text

from galbatch.cli.printing.lines import out, print_line, print_table

__all__ = ["print_markdown"]

CELL_BORDER = re.compile(r"(?<!\\)\|")


def print_markdown(text: str) -> None:
    """Print the Markdown of a model card: headings in bold, tables as `print_table`, all else as lines."""
    for is_table, lines in itertools.groupby(
        text.rstrip("\n").split("\n"), lambda line: line.startswith("|")
    ):
        if is_table:
            heads, _, *rows = [_cells(line) for line in lines]
            print_table(heads, rows)
            continue
        for line in lines:
            title = line.lstrip("#").strip() if line.startswith("#") else ""
            if title:
                out.print(Text(title, style="bold"), soft_wrap=True)
            else:
                print_line(line)


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in CELL_BORDER.split(line)[1:-1]]
