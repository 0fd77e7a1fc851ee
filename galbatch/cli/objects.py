"""The commands galbatch objects check and from-butler: examine an object list, make one of a Butler's tables."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from galbatch.cli.printing import print_line, print_verbatim
from galbatch.core.texts import counted

__all__ = ["check", "from_butler"]


def check(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="object list (Parquet, FITS, CSV, VOTable or HATS catalog), or a run.toml that names one",
        ),
    ],
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
    id_type: Annotated[
        str | None, typer.Option("--id-type", help="how ids are read: as_stored, text or integer")
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", help="expression that chooses rows, such as 'mag_i < 23'")
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            "--region",
            help="part of the sky, as in run.toml: 'moc = \"a.fits\"', 'circle_deg = [150, 2, 0.5]', 'box_deg = [150, 151, 2, 3]'",
        ),
    ] = None,
) -> None:
    """Report which rows of a list a run would refuse, and which cuts are usual; exit code 1 if rows would be refused.

    Columns that are not given are guessed from the names that surveys use; those of a run.toml are taken as they are. The
    options go before its [objects]. The list is not changed.
    """
    from galbatch import config
    from galbatch.objects import TO_PASTE, check_objects, report_lines

    given: dict[str, Any] = {
        "id": id_column,
        "ra": ra_column,
        "dec": dec_column,
        "hdu": int(hdu) if hdu is not None and hdu.isdecimal() else hdu,
        "id_type": id_type,
        "where": where,
        "region": region and config.region_of_text(region),
    }
    given = {key: value for key, value in given.items() if value is not None}
    guess, area, feeding = tuple[str, ...](), None, None
    if file.lower().endswith(".toml"):
        from galbatch import execution  # loads Dask, which a list alone does without

        run = config.read_config(file)
        objects = run.objects.override(**given)
        area = execution.region_of_run(run.model_copy(update={"objects": objects}))
        feeding = execution.feeding_of_run(run)
    else:
        objects = config.ObjectsConfig(path=file).override(**given)
        guess = tuple(key for key in ("id", "ra", "dec") if key not in given)
    found = check_objects(objects, guess=guess, region=area, feeding=feeding)
    print_to_paste = False
    for line in report_lines(found):
        print_to_paste = print_to_paste or line == TO_PASTE
        (print_verbatim if print_to_paste else print_line)(line)
    raise typer.Exit(1 if found.refusals and objects.invalid == "refuse" else 0)


def from_butler(
    repo: Annotated[str, typer.Argument(metavar="REPO", help="Butler repository: path, URI or alias")],
    output: Annotated[str, typer.Argument(metavar="OUT", help="folder to write; it must not exist")],
    collections: Annotated[
        str, typer.Option(help="collections, separated by commas; the first has precedence")
    ],
    columns: Annotated[
        str, typer.Option(help="columns to copy, separated by commas, those of id and position first")
    ] = "objectId,coord_ra,coord_dec",
    dataset_type: Annotated[str, typer.Option(help="dataset type of the tables")] = "object",
    where: Annotated[
        str, typer.Option(help='condition in the Butler\'s own syntax, such as "tract IN (9812, 9813)"')
    ] = "",
) -> None:
    """Copy columns of a Butler's object tables into a folder of Parquet files, one for each tract.

    The folder is a value for [objects] path. Needs the package lsst.daf.butler, which comes with an LSST environment.
    """
    from galbatch.objects import objects_from_butler

    names = columns.split(",")
    n_tables, n_rows = objects_from_butler(
        repo,
        output,
        collections=collections.split(","),
        dataset_type=dataset_type,
        columns=names,
        where=where,
    )
    print_line(f"{counted(n_rows, 'object')} of {counted(n_tables, 'table')}: {output}")
