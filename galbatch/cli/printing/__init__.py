"""Functions by which commands print lines, tables and what is in a catalog, on terminals of any width and in pipes."""

from galbatch.cli.printing.catalogs import (
    print_comparison,
    print_csv,
    print_flags,
    print_object,
    print_result_tables,
    print_rows,
    with_error,
)
from galbatch.cli.printing.lines import (
    out,
    print_command,
    print_error,
    print_line,
    print_table,
    print_verbatim,
)
from galbatch.cli.printing.markdown import print_markdown

__all__ = [
    "out",
    "print_command",
    "print_comparison",
    "print_csv",
    "print_error",
    "print_flags",
    "print_line",
    "print_markdown",
    "print_object",
    "print_result_tables",
    "print_rows",
    "print_table",
    "print_verbatim",
    "with_error",
]
