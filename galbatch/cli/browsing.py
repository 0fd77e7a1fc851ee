"""The command that shows a catalog in the browser: browse."""

from __future__ import annotations

from typing import Annotated

import typer

from galbatch.cli.options import CatalogPath, CutoutStore
from galbatch.cli.printing import out, print_line

__all__ = ["browse"]


def browse(
    catalog_path: CatalogPath,
    store: CutoutStore = None,
    where: Annotated[
        str | None,
        typer.Option(metavar="EXPRESSION", help="only rows that this is true for, as in [objects] where"),
    ] = None,
    selection: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="list of ids that the page's button writes, by its suffix; later ones get a number",
        ),
    ] = "selection.csv",
    port: Annotated[int, typer.Option(help="port on 127.0.0.1; 0: any free one", min=0, max=65535)] = 0,
    no_open: Annotated[
        bool, typer.Option("--no-open", help="print the page's address only, and open no browser")
    ] = False,
) -> None:
    """Look through a catalog in the browser, until Ctrl-C.

    The page has a map of the sky and a scatter of two columns, with flags as filters. A click shows the object: cutout in all
    bands, values, flags, and its posterior if the run kept the pass outputs. What a box or lasso selects is saved as a list
    of ids. It is served on this machine alone; over SSH, forward the port: ssh -L 5006:127.0.0.1:5006 HOST, with --port 5006.
    """
    from galbatch import api, reporting

    catalog = api.open_catalog(catalog_path)
    server = reporting.serve_catalog(
        catalog if where is None else catalog.where(where), store=store, selection=selection, port=port
    )

    def opened(url: str) -> None:
        print_line(f"{url}\nCtrl-C ends the page")
        if out.is_terminal and not no_open:
            typer.launch(url)

    server.run(opened)
    print_line("ended")
