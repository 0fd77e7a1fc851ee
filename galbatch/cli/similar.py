"""The command galbatch similar, which finds the objects nearest to one in a network's embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from galbatch.cli.options import CatalogPath, CutoutStore, TableOutput, refuse_options
from galbatch.cli.printing import out, print_csv, print_error, print_line, print_rows
from galbatch.core.texts import counted
from galbatch.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["similar"]


def similar(
    catalog_path: CatalogPath,
    object_id: Annotated[str, typer.Argument(metavar="ID", help="the object that the others are like")],
    n: Annotated[int, typer.Option("-n", min=1, help="number of objects to find")] = 20,
    model: Annotated[
        str | None, typer.Option(help="model whose embedding is compared; default: the only one")
    ] = None,
    metric: Annotated[str, typer.Option(help="euclidean or cosine")] = "euclidean",
    store: CutoutStore = None,
    picture: Annotated[
        str | None,
        typer.Option(metavar="FILE.png", help="picture of the object and those found, in rows of seven"),
    ] = None,
    output: TableOutput = None,
) -> None:
    """Find the objects nearest to one in a network's embedding.

    Every object of the catalog is compared, so the result is exact. The catalog has an embedding where run.toml says embedding = true in [[models]].
    """
    from galbatch import api
    from galbatch.objects import check_table_suffix, write_table

    refuse_options("similar", [object_id])
    if output is not None:
        check_table_suffix(output)
    found = api.find_similar(catalog_path, object_id, n, model=model, metric=metric)
    if output is not None:
        write_table(output, found)
        print_line(f"{counted(found.num_rows, 'object')}: {output}")
    elif out.is_terminal:
        print_rows(found, found.column_names)
    else:
        print_csv(found)
    if picture is None and (output is not None or not out.is_terminal):
        return
    path = picture or api.thumbnail_path(catalog_path, f"similar_{object_id}")
    try:
        _write_picture(path, catalog_path, object_id, found, store=store)
        print_error(f"picture: {path}")
    except UsageError as error:
        # A picture that was not asked for is no reason to fail.
        if picture is not None or store is not None:
            raise
        print_error(f"picture: none ({error})")


def _write_picture(
    path: str, catalog_path: str, object_id: str, found: pa.Table, *, store: str | None
) -> None:
    """Write the cutouts of an object and of those that were found, with their distances, as one picture."""
    from galbatch import api

    ids = [object_id, *map(str, found.column("object_id").to_pylist())]
    cutouts = api.find_cutouts(catalog_path, store or api.store_beside(catalog_path), ids)
    labels = [object_id, *(f"{distance:.3g}" for distance in found.column("distance").to_pylist())]
    api.write_montage(path, cutouts, labels)
