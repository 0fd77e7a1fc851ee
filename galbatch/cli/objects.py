"""galbatch objects: what is done with an object list."""

from __future__ import annotations

from typing import Annotated

import typer

from galbatch.cli.printing import print_line

__all__ = ["check"]


def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="object list: Parquet, FITS, CSV or VOTable")],
    id_column: Annotated[str | None, typer.Option("--id", metavar="COLUMN", help="column of the id")] = None,
    ra_column: Annotated[
        str | None, typer.Option("--ra", metavar="COLUMN", help="column of the right ascension, deg")
    ] = None,
    dec_column: Annotated[
        str | None, typer.Option("--dec", metavar="COLUMN", help="column of the declination, deg")
    ] = None,
) -> None:
    """Say what a run would refuse of a list, and which cuts are usual; exit code 1 if it would refuse rows.

    Columns that are not named are guessed by the names that surveys use. Nothing is changed or applied.
    """
    from galbatch.objects import check_objects, report_lines

    found = check_objects(file, id_column=id_column, ra_column=ra_column, dec_column=dec_column)
    for line in report_lines(found):
        print_line(line)
    raise typer.Exit(1 if found.refusals else 0)
