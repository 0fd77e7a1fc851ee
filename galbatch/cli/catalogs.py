"""The commands galbatch verify, report, cone and draws, which read a finished catalog."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from galbatch.cli.options import CatalogPath
from galbatch.cli.printing import counted, errors, print_line, print_result_tables

__all__ = ["cone", "draws", "report", "verify"]

# Up to this number the draws themselves are printed: quantiles of fewer than 20 values say little.
FEW_DRAWS = 20


def verify(
    catalog_path: CatalogPath,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN.toml", help="also check against this run: every object once, its fingerprints"
        ),
    ] = None,
    store: Annotated[
        str | None, typer.Option(metavar="STORE", help="also: every file of this cutout store")
    ] = None,
) -> None:
    """Check a catalog; exit code 1 on problems.

    Checks that it is valid HATS, that all files are as they were written, that leaves are sorted, every object occurs once,
    fingerprints agree and the pass outputs exist that leaves say were kept. Damage is recorded next to the output, and
    galbatch run or retry makes it again. For a good catalog with adaptive passes it prints the result of their audit.
    """
    from galbatch import catalog, cluster, config, execution

    problems = execution.verify_outputs(catalog_path, store)
    # A damaged catalog is not compared with the run: the differences would only repeat the damage.
    if against is not None and not problems:
        parsed = config.read_config(against)
        with cluster.on_demand(parsed.cluster) as workers:
            problems = execution.verify_against(parsed, catalog_path, workers)
    for problem in problems:
        errors.print(problem)
    if problems:
        raise typer.Exit(1)
    print_line(f"{catalog_path}: good")
    prefix = catalog.model_property("audit")
    for key, value in catalog.read_properties(catalog_path).items():
        if key.startswith(prefix):
            print_line(f"audit of {key.removeprefix(prefix)}: {value}")


def report(
    catalog_path: CatalogPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="HTML file to write")] = Path("report.html"),
    truth: Annotated[Path | None, typer.Option(help="truth table of a simulated survey")] = None,
    store: Annotated[Path | None, typer.Option(help="cutout store, for the gallery")] = None,
) -> None:
    """Write a report page with plots and flags.

    With --truth the page also shows how well the truth is recovered, with --store a gallery of cutouts.
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
        typer.Option("-o", "--output", help="write Parquet, FITS, VOTable, ECSV or CSV instead of printing"),
    ] = None,
) -> None:
    """Print or save the objects within a circle on the sky.

    Put -- before the numbers if the declination is negative.
    """
    from galbatch import catalog
    from galbatch.objects import write_table

    found = catalog.cone(catalog_path, ra_deg=ra_deg, dec_deg=dec_deg, radius_arcsec=radius_arcsec)
    if output is None:
        # CSV is for programs in a pipe: the console would wrap its lines at the terminal's width.
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
    Put -- before negative ids. Exit code 1 if an object has no model to draw from.
    """
    from galbatch.api import draws as drawing
    from galbatch.objects import check_table_suffix, write_table

    # Names of files are checked first: draws of many objects take minutes.
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
    # Draws of one model are enough: `where` may have left the object out of the others.
    raise typer.Exit(0 if {one.object_id for one in found} >= {one.object_id for one in without} else 1)
