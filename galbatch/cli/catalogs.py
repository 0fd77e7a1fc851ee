"""galbatch verify, report, cone and draws: what is done with a finished catalog."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from galbatch.cli.options import CatalogPath
from galbatch.cli.printing import counted, errors, print_line, print_result_tables

__all__ = ["cone", "draws", "report", "verify"]

AUDIT_PREFIX = "galbatch_audit_"  # of the catalog's properties
FEW_DRAWS = 20  # up to this number the draws themselves are printed: a summary of so few says nothing


def verify(
    catalog_path: CatalogPath,
    against: Annotated[
        Path | None,
        typer.Option(metavar="RUN.toml", help="also: every object once, fingerprints of this run"),
    ] = None,
) -> None:
    """Check a catalog; exit code 1 on problems.

    Strict HATS, sorted leaves, every object once, fingerprints, and the pass outputs that leaves say were kept. Of a good
    catalog with adaptive passes it shows what their audit found.
    """
    from galbatch import catalog, cluster, config, execution
    from galbatch.catalog import pass_outputs

    problems = catalog.verify(catalog_path) + pass_outputs.problems(catalog_path)
    if against is not None and not problems:
        parsed = config.read_config(against)
        with cluster.on_demand(parsed.cluster) as workers:
            problems = execution.verify_against(parsed, catalog_path, workers)
    for problem in problems:
        errors.print(problem)
    if problems:
        raise typer.Exit(1)
    print_line(f"{catalog_path}: good")
    for key, value in catalog.read_properties(catalog_path).items():
        if key.startswith(AUDIT_PREFIX):
            print_line(f"audit of {key.removeprefix(AUDIT_PREFIX)}: {value}")


def report(
    catalog_path: CatalogPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="page to write")] = Path("report.html"),
    truth: Annotated[Path | None, typer.Option(help="truth table of a simulated survey")] = None,
    store: Annotated[Path | None, typer.Option(help="cutout store, for the gallery")] = None,
) -> None:
    """Write a report page: plots, flags, a gallery.

    With a truth table also how well the truth is recovered; with a cutout store a gallery.
    """
    from galbatch.reporting import write_report

    write_report(
        catalog_path, str(output), truth=str(truth) if truth else None, store=str(store) if store else None
    )
    print_line(str(output))


def cone(
    catalog_path: CatalogPath,
    ra_deg: Annotated[float, typer.Argument(metavar="RA_DEG", help="right ascension of the center, deg")],
    dec_deg: Annotated[float, typer.Argument(metavar="DEC_DEG", help="declination of the center, deg")],
    radius_arcsec: Annotated[float, typer.Argument(metavar="RADIUS_ARCSEC", help="radius, arcsec", min=0)],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="write Parquet, CSV, FITS or VOTable instead of printing"),
    ] = None,
) -> None:
    """Print or save the objects within a circle.

    Negative declinations: put -- before the numbers.
    """
    from galbatch import catalog
    from galbatch.objects import write_table

    found = catalog.cone(catalog_path, ra_deg=ra_deg, dec_deg=dec_deg, radius_arcsec=radius_arcsec)
    if output is None:
        sys.stdout.write(found.to_pandas().to_csv(index=False))
        return
    write_table(str(output), found)
    print_line(f"{counted(found.num_rows, 'object')}: {output}")


def draws(
    catalog_path: CatalogPath,
    object_ids: Annotated[
        list[str],
        typer.Argument(metavar="OBJECT_ID...", help="ids of objects of the catalog, integers or text"),
    ],
    n_draws: Annotated[int, typer.Option("-n", metavar="N", help="draws of each object and model")] = 10_000,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="only this model of the catalog; otherwise all")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="table of all draws, Parquet, CSV, FITS or VOTable; - prints CSV",
        ),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="corner plot, .png, .pdf or .svg; of several objects or models a file each, FILE_<id>_<model>",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="seed of the draws; that of the run otherwise", min=0)
    ] = None,
) -> None:
    """Joint draws from the posteriors of objects, in physical units.

    Prints a summary, or the draws themselves up to 20; writes them as a table and as corner plots. Needs a catalog made with [posterior]
    keep_pass_outputs = true. The same seed gives the same draws, and the first ones are the same however many are asked for. Negative ids: put -- before them. Exit code 1 if
    there is nothing to draw of an object.
    """
    from galbatch.api import draws as drawing
    from galbatch.objects import check_table_suffix, write_table

    if output not in (None, "-"):
        check_table_suffix(output)
    if plot is not None:
        from galbatch import reporting

        reporting.check_corner(plot, n_draws)
    results = drawing.draw(catalog_path, object_ids, drawing.Request(n_draws, model, seed))
    found = [result for result in results if isinstance(result, drawing.Drawn)]
    without = [result for result in results if isinstance(result, drawing.NoDraws)]
    if found and (output == "-" or (output is None and n_draws <= FEW_DRAWS)):
        sys.stdout.write(drawing.as_table(found).to_pandas().to_csv(index=False))
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
        errors.print(f"object {missing.object_id}, {missing.model}: nothing to draw: {missing.reason}")
    # Draws of one model are enough: another model of the catalog may not have been for the object.
    raise typer.Exit(0 if {one.object_id for one in found} >= {one.object_id for one in without} else 1)
