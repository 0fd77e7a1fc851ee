"""The command galbatch merge, which joins catalogs."""

from __future__ import annotations

from typing import Annotated

import typer

from galbatch.cli.printing import print_line
from galbatch.core.texts import counted

__all__ = ["merge"]


def merge(
    catalogs: Annotated[list[str], typer.Argument(metavar="CATALOG..", help="two complete catalogs or more")],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="CATALOG", help="folder of the new catalog")
    ],
) -> None:
    """Join catalogs of disjoint objects, or of other networks.

    They have no object in common and the same columns, or the same objects; catalogs that contradict each other are refused. They stay as they are.
    """
    from galbatch import api

    n_rows = api.merge(catalogs, output)
    print_line(f"{output}: {counted(n_rows, 'object')} of {counted(len(catalogs), 'catalog')}")
