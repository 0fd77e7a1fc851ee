"""The commands galbatch catalog margin, index, moc, hips and qp, which make what other tools need of a finished catalog."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from galbatch.cli.options import CatalogPath
from galbatch.cli.printing import print_line
from galbatch.core.texts import counted

__all__ = ["hips", "index", "margin", "moc", "qp"]


def margin(
    catalog_path: CatalogPath,
    radius: Annotated[
        str,
        typer.Option(
            metavar="RADIUS", help="in arcsec, or with its unit; at least that of your crossmatches"
        ),
    ] = "10arcsec",
) -> None:
    """Make a margin, so that crossmatches lose no pair.

    Without it pairs across the borders of partitions are lost. It is put into the HATS collection beside the catalog, CATALOG_collection: open that with LSDB. hats-import makes it
    (pip install "galbatch[lsdb]").
    """
    from galbatch import api, catalog, cluster

    radius_arcsec = api.parse_radius(radius)
    with cluster.threads(os.cpu_count() or 1) as client:
        name, n_rows = catalog.make_margin(catalog_path, radius_arcsec=radius_arcsec, client=client)
    print_line(f"{catalog.collection_path(catalog_path)}: {name}, {counted(n_rows, 'row')}")


def index(catalog_path: CatalogPath) -> None:
    """Make an index of the ids, so that objects are found fast.

    show, cutout, draws and LSDB's id_search use it instead of the ids of all leaves. It is put into the HATS collection beside the catalog, CATALOG_collection.
    """
    from galbatch import catalog

    n_rows = catalog.make_index(catalog_path)
    print_line(f"{catalog.collection_path(catalog_path)}: index of {counted(n_rows, 'id')}")


def moc(
    catalog_path: CatalogPath,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="FILE", help="MOC to write: .fits or .json")
    ] = "footprint.fits",
    order: Annotated[
        int,
        typer.Option(
            help="HEALPix order of its pixels; those of order 10 are 3.4 arcmin wide", min=0, max=29
        ),
    ] = 10,
) -> None:
    """Write the footprint as a MOC, for Aladin and others.

    Its pixels are those that have objects.
    """
    from galbatch import catalog

    area_deg2 = catalog.write_footprint(catalog_path, output, healpix_order=order)
    print_line(f"{output}: {area_deg2:.4g} square degrees have objects, in pixels of order {order}")


def hips(
    catalog_path: CatalogPath,
    column: Annotated[str, typer.Argument(metavar="COLUMN", help="a column of numbers")],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="FOLDER", help="folder to write, which must not exist")
    ] = "hips",
    pixel: Annotated[
        str, typer.Option(metavar="WIDTH", help="of the map's pixels, in arcsec or with its unit")
    ] = "10arcsec",
) -> None:
    """Write a column as a HiPS for Aladin: means in pixels.

    The tiles are FITS, made by reproject from a map of the whole catalog.
    """
    from galbatch import api

    n_files = api.write_hips(catalog_path, column, output, pixel_arcsec=api.parse_radius(pixel))
    print_line(f"{output}: {counted(n_files, 'file')}")


def qp(
    catalog_path: CatalogPath,
    output: Annotated[str, typer.Option("-o", "--output", metavar="FILE", help="ensemble to write, .hdf5")],
    column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="column of densities; default: the only one")
    ] = None,
) -> None:
    """Write the densities as an ensemble of qp, which RAIL reads.

    A catalog has densities where run.toml has [[models.densities]]. Objects without one are left out and counted. qp makes it (pip install "galbatch[qp]").
    """
    from galbatch import api

    written = api.write_qp(catalog_path, output, column=column)
    left_out = f", {counted(written.n_left_out, 'object')} without one left out" if written.n_left_out else ""
    print_line(f"{output}: {written.column.name} of {counted(written.n_objects, 'object')}{left_out}")
