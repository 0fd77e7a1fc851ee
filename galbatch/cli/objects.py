"""The command galbatch objects check, which examines an object list."""

from __future__ import annotations

from typing import Annotated

import typer

from galbatch.cli.printing import print_line

__all__ = ["check"]


def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="object list: Parquet, FITS, CSV or VOTable")],
    id_column: Annotated[
        str | None, typer.Option("--id", metavar="COLUMN", help="column of the object id")
    ] = None,
    ra_column: Annotated[
        str | None, typer.Option("--ra", metavar="COLUMN", help="column of the right ascension, deg")
    ] = None,
    dec_column: Annotated[
        str | None, typer.Option("--dec", metavar="COLUMN", help="column of the declination, deg")
    ] = None,
    hdu: Annotated[
        str | None,
        typer.Option("--hdu", metavar="HDU", help="number or name of the table in a file with several"),
    ] = None,
) -> None:
    """Report which rows of a list a run would refuse, and which cuts are usual; exit code 1 if rows would be refused.

    Columns that are not given are guessed from the names that surveys use. The list is not changed.
    """
    from galbatch.objects import check_objects, report_lines

    table = int(hdu) if hdu is not None and hdu.isdecimal() else hdu
    found = check_objects(file, id_column=id_column, ra_column=ra_column, dec_column=dec_column, hdu=table)
    for line in report_lines(found):
        print_line(line)
    raise typer.Exit(1 if found.refusals else 0)
