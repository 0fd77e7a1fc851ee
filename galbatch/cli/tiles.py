"""The command galbatch tiles from-butler, which makes a table of tiles."""

from __future__ import annotations

from typing import Annotated

import typer

from galbatch.cli.printing import print_line
from galbatch.core.texts import counted

__all__ = ["from_butler"]


def from_butler(
    repo: Annotated[str, typer.Argument(metavar="REPO", help="Butler repository: path, URI or alias")],
    output: Annotated[str, typer.Argument(metavar="OUT", help="table to write: .parquet or .csv")],
    collections: Annotated[
        str, typer.Option(help="collections, separated by commas; the first has precedence")
    ],
    bands: Annotated[str, typer.Option(help="bands, separated by commas, such as g,r,i")],
    dataset_type: Annotated[str, typer.Option(help="dataset type of the coadds")] = "deep_coadd",
    where: Annotated[
        str, typer.Option(help="condition in the Butler's own syntax, such as \"skymap = 'hsc_rings_v1'\"")
    ] = "",
) -> None:
    """Write a table of tiles from a Butler repository.

    The table is a value for [survey] tiles. Needs the package lsst.daf.butler, which comes with an LSST environment.
    """
    # The Butler is asked once, here: workers of a run read the table and need no LSST environment.
    from galbatch import ingest
    from galbatch.objects import write_table

    table = ingest.tiles_from_butler(
        repo,
        collections=collections.split(","),
        dataset_type=dataset_type,
        bands=bands.split(","),
        where=where,
    )
    write_table(output, table)
    print_line(f"{counted(table.num_rows, 'tile')}: {output}")
