"""The command galbatch compare, which sets a catalog beside another table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from galbatch.cli.options import CatalogPath, TableOutput, parse_pairs
from galbatch.cli.printing import print_comparison, print_line
from galbatch.errors import UsageError

if TYPE_CHECKING:
    from galbatch.reporting import CatalogComparison

__all__ = ["compare"]


def compare(
    catalog_path: CatalogPath,
    other: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="TABLE",
            help="published estimates, a truth table, another catalog: any table of objects",
        ),
    ],
    match: Annotated[str, typer.Option(metavar="id|sky", help="match rows by id, or on the sky")] = "id",
    radius: Annotated[
        str, typer.Option(metavar="RADIUS", help="with sky: largest separation in arcsec, or with its unit")
    ] = "1",
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="QUANTITY=COLUMN[:UNIT]",
            help="column of TABLE that is a quantity of the catalog, re_arcsec=R_e:arcmin; once for each; default: by its name",
        ),
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option("--id", metavar="COLUMN", help="column of the ids in TABLE; default: by its name"),
    ] = None,
    ra: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="right ascension in TABLE, deg; default: by its name")
    ] = None,
    dec: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="declination in TABLE, deg; default: by its name")
    ] = None,
    hdu: Annotated[
        str | None, typer.Option(metavar="HDU", help="number or name of the table in a file with several")
    ] = None,
    bins: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:5|:18,20,22]",
            help="bins by a quantity (as in TABLE) or a column of either, by number or edges; once for each; none: no bins; "
            "default: by magnitude, or size",
        ),
    ] = None,
    relative: Annotated[
        list[str] | None,
        typer.Option(
            metavar="QUANTITY",
            help="divide the differences of this quantity by TABLE's values; once for each",
        ),
    ] = None,
    outliers: Annotated[
        float,
        typer.Option(
            metavar="N", help="differences beyond this many NMADs from the bias are outliers", min=0
        ),
    ] = 5.0,
    flagged: Annotated[
        bool, typer.Option("--flagged", help="compare objects with flags of spoiled pixels, too")
    ] = False,
    output: TableOutput = None,
    plot: Annotated[
        str | None, typer.Option(metavar="FILE", help="figure to write: .png, .pdf or .svg")
    ] = None,
    redshifts: Annotated[
        str | None, typer.Option(metavar="FILE", help="table of the statistics of redshifts to write")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="object list whose colors and magnitudes the statistics of redshifts are weighted to; with --target-columns",
        ),
    ] = None,
    target_columns: Annotated[
        str,
        typer.Option(
            metavar="COLUMNS", help="columns of LIST and of the catalog or TABLE, separated by commas"
        ),
    ] = "",
) -> None:
    """Compare a catalog with another table: bias, scatter, outliers and coverage of each quantity, in all and in bins.

    Differences are the catalog's median minus TABLE's value. Prints a table, or writes it with -o, and a figure with --plot.
    """
    from galbatch import api, reporting
    from galbatch.objects import check_table_suffix

    # Names of files are checked first: large tables take minutes.
    for path in filter(None, (output, redshifts)):
        check_table_suffix(path)
    if plot is not None:
        reporting.check_picture(plot)
    given = parse_pairs("--column", column or [], "QUANTITY=COLUMN, such as re_arcsec=R_e")
    compared = reporting.compare(
        catalog_path,
        other,
        match=match,
        radius_arcsec=api.parse_radius(radius),
        columns=given,
        options=reporting.ComparisonOptions(
            id=id_column,
            ra=ra,
            dec=dec,
            hdu=int(hdu) if hdu and hdu.isdigit() else hdu,
            bins=None if bins is None else [word for word in bins if word != "none"],
            relative=relative or (),
            outlier_nmads=outliers,
            flagged=flagged,
            target=target,
            target_columns=[name.strip() for name in target_columns.split(",") if name.strip()],
        ),
    )
    print_comparison(compared)
    _write_comparison(compared, output=output, redshifts=redshifts, plot=plot)


def _write_comparison(
    compared: CatalogComparison, *, output: str | None, redshifts: str | None, plot: str | None
) -> None:
    """Write the tables and the figure of a comparison that are asked for, and say where they are."""
    from galbatch import reporting
    from galbatch.objects import write_table

    if redshifts is not None and not compared.redshifts:
        raise UsageError(f"--redshifts {redshifts}: none of the compared quantities is a redshift")
    if output is not None:
        write_table(output, compared.table())
        print_line(f"table: {output}")
    if redshifts is not None:
        write_table(redshifts, reporting.redshift_table(compared.redshifts))
        print_line(f"redshifts: {redshifts}")
    if plot is not None:
        reporting.write_comparison(plot, compared)
        print_line(f"figure: {plot}")
