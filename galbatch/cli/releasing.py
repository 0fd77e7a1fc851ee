"""The commands galbatch merge and release, which join catalogs and make one ready to be published."""

from __future__ import annotations

from typing import Annotated

import typer

from galbatch.cli.options import CatalogPath
from galbatch.cli.printing import print_line
from galbatch.core.texts import counted, size

__all__ = ["merge", "release"]


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


def release(
    catalog_path: CatalogPath,
    table: Annotated[
        bool, typer.Option("--table", help="also write the table of fixed width that the ReadMe describes")
    ] = False,
) -> None:
    """Verify a catalog and write what a publication needs.

    Beside it, in CATALOG_release: checksums of all files, tables of the columns (Markdown, Felis for TAP, ReadMe of the CDS), a paragraph on methods, and what to cite.
    """
    from galbatch import reporting

    released = reporting.write_release(catalog_path, with_table=table)
    print_line(
        f"{released.folder}: {counted(released.n_files, 'file')} of the catalog, {size(released.n_bytes)}"
    )
    if released.left_out:
        print_line(f"not in the table of fixed width: {', '.join(released.left_out)}")
