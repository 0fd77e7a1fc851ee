"""The commands that read a finished catalog: verify, report, cone, show, similar, columns, flags, cutout and draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from galbatch.cli.options import (
    CatalogPath,
    CutoutStore,
    ObjectIds,
    TableOutput,
    parse_pairs,
    refuse_options,
)
from galbatch.cli.printing import (
    out,
    print_csv,
    print_error,
    print_flags,
    print_line,
    print_object,
    print_result_tables,
    print_rows,
    print_table,
)
from galbatch.core.texts import counted
from galbatch.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from galbatch.api import Cutout

__all__ = ["columns", "cone", "cutout", "draws", "flags", "report", "show", "similar", "verify"]

# Up to this number the draws themselves are printed: quantiles of fewer than 20 values say little.
FEW_DRAWS = 20


def verify(
    catalog_path: Annotated[
        str | None,
        typer.Argument(
            metavar="[CATALOG]",
            help="folder of a HATS catalog made by galbatch; may be left out with --store",
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN.toml", help="also check against this run: every object once, its fingerprints"
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(metavar="STORE", help="also: every file of this cutout store; alone: the store only"),
    ] = None,
) -> None:
    """Check a catalog, or with --store alone a cutout store; exit code 1 on problems.

    Checks that it is valid HATS, that all files are as they were written, that leaves are sorted, every object occurs once,
    fingerprints agree and the pass outputs exist that leaves say were kept. Damage is recorded next to the output, and
    galbatch run or retry makes it again. For a good catalog with adaptive passes it prints the result of their audit.
    """
    from galbatch import api

    found = api.verify(catalog_path, against=against, store=store)
    for problem in found.problems:
        print_error(problem)
    if not found.is_good:
        raise typer.Exit(1)
    print_line(f"{found.catalog_path}: good")
    for model, text in found.audits.items():
        print_line(f"audit of {model}: {text}")
    for line in found.doubts:
        print_error(line)


def report(
    catalog_path: CatalogPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="HTML file to write")] = Path("report.html"),
    truth: Annotated[
        Path | None,
        typer.Option(
            help="table of known values: object_id and columns named as the parameters, such as the truth of a simulated survey"
        ),
    ] = None,
    store: Annotated[Path | None, typer.Option(help="cutout store, for the gallery")] = None,
    bundle: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL=FILE",
            help="bundle of a sparse network, which is loaded and run to show where its features fire; may be repeated",
        ),
    ] = None,
    magnitude: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="column of the catalog or of --truth by which redshifts are binned, besides z_phot",
        ),
    ] = None,
) -> None:
    """Write a report page with plots and flags.

    With --truth the page also shows how well known values are recovered, of redshifts with the statistics of the field; with --store a
    gallery of cutouts.
    """
    from galbatch.reporting import report as write

    bundles = parse_pairs("--bundle", bundle or [], "MODEL=FILE, such as sfnet=sfnet.pt")
    print_line(write(catalog_path, output, truth=truth, store=store, bundles=bundles, magnitude=magnitude))


def cone(
    catalog_path: CatalogPath,
    place: Annotated[
        list[str],
        typer.Argument(
            metavar="POSITION RADIUS",
            help="center: degrees, sexagesimal, or the id or name of an object; then the radius in arcsec, or with its unit",
        ),
    ],
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME", help="columns, separated by commas; default: all, on a terminal some"
        ),
    ] = None,
    output: TableOutput = None,
) -> None:
    """Print or save the objects within a circle on the sky, the nearest first.

    The center is two angles (150.1 -2.2, 10:00:24.2 -02:13:05, 10h00m24.2s -02d13m05s) or the id of an object of the catalog, or its name in a kept column of text;
    the radius is in arcsec, or has its unit (1arcmin). On a terminal a table is printed, in a pipe CSV.
    """
    from galbatch import api, catalog
    from galbatch.core.columns import SEPARATION
    from galbatch.objects import check_table_suffix, write_table

    refuse_options("cone", place)
    if len(place) < 2:
        raise UsageError(f"cone {' '.join(place)}: expected a position and then RADIUS_ARCSEC")
    if output is not None:
        check_table_suffix(output)
    center_words, radius = api.split_radius(place)
    radius_arcsec = api.parse_radius(radius)
    ra_deg, dec_deg = api.parse_position(catalog_path, center_words)
    names = None if columns is None else [name.strip() for name in columns.split(",")]
    found = catalog.cone(
        catalog_path, ra_deg=ra_deg, dec_deg=dec_deg, radius_arcsec=radius_arcsec, columns=names
    )
    if not found.num_rows:
        center = f"{ra_deg:.5f} {dec_deg:+.5f} ({api.sexagesimal(ra_deg, dec_deg)})"
        print_error(f"no object within {radius_arcsec:g} arcsec of {center}")
    if output is not None:
        write_table(output, found)
        print_line(f"{counted(found.num_rows, 'object')}: {output}")
    elif not out.is_terminal:
        print_csv(found)
    elif found.num_rows:
        shown = names or api.short_columns(found.schema.names, width=out.width)
        print_rows(found, [SEPARATION.name, *shown])
        if names is None:
            more = found.num_columns - len(shown) - 2
            print_line(f"{counted(more, 'more column')}: name some by --columns, or write all by -o FILE")


def show(
    catalog_path: CatalogPath,
    object_ids: ObjectIds,
    store: CutoutStore = None,
    thumbnail: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.png",
            help="where to write the picture of the cutout (one object only); default: a temporary folder",
        ),
    ] = None,
    output: TableOutput = None,
) -> None:
    """Print objects: position, flags with their texts, each model's medians with intervals and units, and a picture's path.

    The picture is that of the cutout in the store; without a store there is none. With -o the rows are written as a table instead, with all columns.
    """
    from galbatch import api, catalog
    from galbatch.objects import check_table_suffix, write_table

    refuse_options("show", object_ids)
    if output is not None:
        check_table_suffix(output)
    if thumbnail is not None and len(object_ids) > 1:
        raise UsageError(f"--thumbnail {thumbnail}: expected one object, found {len(object_ids)}")
    _note_index(catalog_path)
    rows = catalog.read_objects(catalog_path, object_ids)
    if output is not None:
        write_table(output, rows)
        print_line(f"{counted(rows.num_rows, 'object')}: {output}")
        return
    # What was asked for by name is looked at before anything is printed.
    asked = store is not None or thumbnail is not None
    pictures = _cutouts(catalog_path, store, object_ids) if asked else []
    for row in range(rows.num_rows):
        found = api.object_values(rows.slice(row, 1))
        print_object(found, api.sexagesimal(found.ra_deg, found.dec_deg))
        path = thumbnail or api.thumbnail_path(catalog_path, found.object_id)
        try:
            picture = pictures[row] if asked else _cutouts(catalog_path, None, [str(found.object_id)])[0]
            api.write_thumbnail(path, picture)
            print_line(f"picture: {path}")
        except UsageError as error:
            if asked:
                raise
            print_line(f"picture: none ({error})")


def _note_index(catalog_path: str) -> None:
    """Tell how to find objects faster, if the catalog has no current index of ids."""
    from galbatch import catalog

    if note := catalog.index_note(catalog_path):
        print_error(f"note: {note}")


def _cutouts(catalog_path: str, store: str | None, object_ids: Sequence[str]) -> list[Cutout]:
    from galbatch import api

    return api.find_cutouts(catalog_path, store or api.store_of(catalog_path), object_ids)


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
    cutouts = api.find_cutouts(catalog_path, store or api.store_of(catalog_path), ids)
    labels = [object_id, *(f"{distance:.3g}" for distance in found.column("distance").to_pylist())]
    api.write_montage(path, cutouts, labels)


def columns(
    catalog_path: CatalogPath,
    pattern: Annotated[
        str | None,
        typer.Argument(metavar="PATTERN", help="show the columns whose names contain this text only"),
    ] = None,
) -> None:
    """Print the columns of a catalog: name, type, unit and meaning."""
    from galbatch import catalog

    schema = catalog.read_schema(catalog_path)
    names = [name for name in schema.names if pattern is None or pattern in name]
    if not names:
        raise UsageError(
            f"{catalog_path}: no column's name contains {pattern}; there are {catalog.listed_columns(catalog_path, schema.names)}"
        )
    rows = []
    for field in map(schema.field, names):
        stated = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
        rows.append((field.name, str(field.type), stated.get("unit", ""), stated.get("description", "")))
    print_table(("column", "type", "unit", "meaning"), rows, prose=True)


def flags(
    catalog_path: CatalogPath,
    value: Annotated[
        int | None,
        typer.Argument(
            metavar="VALUE", help="a value of a column of flags; default: count every flag", min=0
        ),
    ] = None,
    column: Annotated[
        str | None, typer.Option(metavar="NAME", help="this column of flags only; default: all")
    ] = None,
) -> None:
    """Print what a value of the flags means, or how many objects have each flag."""
    from galbatch import api, catalog
    from galbatch.core.columns import flag_columns

    schema = catalog.read_schema(catalog_path)
    known = flag_columns(schema.names)
    if column is not None and column not in known:
        raise UsageError(f"--column {column}: the columns of flags are {', '.join(known)}")
    for name in known if column is None else [column]:
        print_line(f"{name}{'' if value is None else f' {value}'}:")
        if value is not None:
            print_flags(api.flag_texts(schema.field(name), value))
            continue
        counts = api.flag_counts(catalog_path, name)
        rows = [(str(number), str(flag.value), flag.name, flag.text) for number, flag in counts]
        print_table(("objects", "value", "flag", "meaning"), rows, prose=True)


def cutout(
    catalog_path: CatalogPath,
    object_ids: ObjectIds,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE.fits",
            help="FITS file to write: image, mask and variance per band",
        ),
    ] = None,
    store: CutoutStore = None,
    png: Annotated[
        str | None, typer.Option(metavar="FILE.png", help="picture to write (one object only)")
    ] = None,
    north_up: Annotated[
        bool,
        typer.Option("--north-up", help="turn the cutouts: north up, east left, the object at the center"),
    ] = False,
    like: Annotated[
        str | None, typer.Option(metavar="OTHER.fits", help="put the cutouts on the pixels of another image")
    ] = None,
) -> None:
    """Write the cutouts of objects as FITS, with their WCS, or as a picture, or both.

    Each band is an HDU IMAGE_<BAND>, with MASK_<BAND> and VARIANCE_<BAND> if the store has them; of several objects EXTVER
    counts. --north-up and --like resample with the flux conserved, by reproject.
    """
    from galbatch import api

    refuse_options("cutout", object_ids)
    if output is None and png is None:
        raise UsageError("cutout: expected -o FILE.fits or --png FILE.png, or both")
    if north_up and like is not None:
        raise UsageError("--north-up and --like exclude each other")
    if png is not None and len(object_ids) > 1:
        raise UsageError(f"--png {png}: expected one object, found {len(object_ids)}")
    _note_index(catalog_path)
    found = _cutouts(catalog_path, store, object_ids)
    if north_up:
        found = [api.north_up(one) for one in found]
    elif like is not None:
        found = [api.on_image(one, like) for one in found]
    if png is not None:
        api.write_thumbnail(png, found[0])
    if output is not None:
        api.write_cutouts(output, found)
    print_line(f"{counted(len(found), 'cutout')}: {', '.join(filter(None, (output, png)))}")


def draws(
    catalog_path: CatalogPath,
    object_ids: ObjectIds,
    n_draws: Annotated[
        int, typer.Option("-n", metavar="N", help="number of draws per object and model")
    ] = 10_000,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="draw from this model only; default: all models of the catalog"),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="write all draws as a table: Parquet, FITS, VOTable, ECSV or CSV; - prints CSV",
        ),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="corner plot to write: .png, .pdf or .svg; for several objects or models one file each, FILE_<id>_<model>",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="seed of the draws; default: the run's seed", min=0)
    ] = None,
) -> None:
    """Make joint draws from the posteriors of objects, in physical units.

    Prints a summary, or the draws themselves if there are at most 20; writes them as a table and as corner plots. Needs a catalog
    made with [posterior] keep_pass_outputs = true. The same seed gives the same draws, and the first ones do not depend on -n.
    Exit code 1 if an object has no model to draw from.
    """
    from galbatch.api import draws as drawing
    from galbatch.objects import check_table_suffix, write_table

    refuse_options("draws", object_ids)
    # Names of files are checked first: draws of many objects take minutes.
    if output not in (None, "-"):
        check_table_suffix(output)
    if plot is not None:
        from galbatch import reporting

        reporting.check_corner(plot, n_draws)
    _note_index(catalog_path)
    results = drawing.draw(catalog_path, object_ids, drawing.Request(n_draws, model, seed))
    found = [result for result in results if isinstance(result, drawing.Drawn)]
    without = [result for result in results if isinstance(result, drawing.NoDraws)]
    if found and (output == "-" or (output is None and n_draws <= FEW_DRAWS)):
        print_csv(drawing.as_table(found))
    else:
        for one in found:
            summary, correlations = drawing.summary_tables(one)
            print_result_tables([summary, correlations] if correlations.rows else [summary])
    if found and output not in (None, "-"):
        write_table(output, drawing.as_table(found))
        print_line(f"{counted(n_draws, 'draw')} each: {output}")
    if plot is not None:
        for one, path in zip(found, drawing.plot_paths(plot, found), strict=True):
            reporting.write_corner(path, one)
            print_line(f"corner plot: {path}")
    for missing in without:
        print_error(f"object {missing.object_id}, {missing.model}: nothing to draw: {missing.reason}")
    # Draws of one model are enough: `where` may have left the object out of the others.
    raise typer.Exit(0 if {one.object_id for one in found} >= {one.object_id for one in without} else 1)
