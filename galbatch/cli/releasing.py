"""The commands of a collaboration: galbatch area, inject, merge and release."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from galbatch.cli.options import CatalogPath, parse_pairs
from galbatch.cli.printing import print_line, print_table
from galbatch.core.texts import counted, size
from galbatch.errors import UsageError

if TYPE_CHECKING:
    from galbatch.reporting import EvidenceRow

__all__ = ["area", "inject", "merge", "release"]


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

    merged = api.merge(catalogs, output, notify=print_line)
    print_line(f"{output}: {counted(merged.n_rows, 'object')} of {counted(len(catalogs), 'catalog')}")
    if merged.without_pass_outputs:
        some = " and ".join(merged.without_pass_outputs)
        print_line(f"it has no pass outputs, so that draws cannot be made of it: {some} kept none")


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


def area(
    run_toml: Annotated[Path, typer.Argument(metavar="RUN.toml", help="config file of the run")],
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="RANDOMS.parquet", help="write the random points, Parquet"),
    ] = None,
    points: Annotated[
        int,
        typer.Option(help="points to draw about the tiles; a million give the area to 0.1 percent", min=1000),
    ] = 1_000_000,
    seed: Annotated[int, typer.Option(help="seed of the points", min=0)] = 1,
) -> None:
    """Measure the area that the tiles cover under the masks, and write random points that are distributed evenly in it.

    The footprint is that of the tiles' outlines in all bands, in [objects] region, and where each of [[masks]] with `good` wants objects. Only
    headers of tiles are read.
    """
    from galbatch import api, config

    found = api.area_of_run(config.read_config(run_toml), n_points=points, seed=seed)
    print_line(f"area: {found.square_deg:.6g} +- {found.error_square_deg:.2g} square degrees")
    print_line(f"without masks: {found.unmasked_square_deg:.6g} square degrees")
    print_line(f"random points: {len(found.points)} of {found.n_drawn} drawn")
    if output is not None:
        found.write(output)
        print_line(output)


def inject(
    run_toml: Annotated[Path, typer.Argument(metavar="RUN.toml", help="config file of the run")],
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            help="folder for the galaxies' cutouts and catalog; default: <[catalog] path>_injection",
        ),
    ] = None,
    galaxies: Annotated[
        int, typer.Option(help="galaxies to inject at random places", min=10, max=2**20)
    ] = 500,
    population: Annotated[
        str, typer.Option(help="population that they are drawn from: survey or paper")
    ] = "survey",
    at: Annotated[
        str | None,
        typer.Option(
            "--at", metavar="TABLE", help="places instead of random ones: a table with ra_deg and dec_deg"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="seed of places and galaxies", min=0)] = 1,
    band: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BAND=LIKE",
            help="how bright galaxies are in a band other than g, r and i: y=i-0.2 is 0.2 mag brighter than in i; may be given again",
        ),
    ] = None,
    electrons_per_njy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BAND=NUMBER",
            help="electrons counted for one nJy in a band, from which the galaxies' photon noise follows; default: GAIN of the tiles; may be given again",
        ),
    ] = None,
) -> None:
    """Add galaxies of known truth to the run's own coadds, run its networks on them, and report how well they are found.

    The table of bias, scatter, coverage, completeness and flags is written beside the catalog, into its properties and the report. The tiles are
    only read.
    """
    from galbatch import config, dashboard, reporting, simulation

    lights = parse_pairs("--band", band or [], "BAND=LIKE, such as y=i-0.2")
    electrons = parse_pairs("--electrons-per-njy", electrons_per_njy or [], "BAND=NUMBER, such as y=1.5")
    parsed = config.read_config(run_toml)
    settings = reporting.InjectionSettings(
        galaxies,
        population,
        seed,
        at,
        bands={name: simulation.BandLight.parse(text) for name, text in lights.items()},
        electrons_per_njy={name: _positive(text) for name, text in electrons.items()},
    )
    folder = output or f"{parsed.catalog.path.rstrip('/')}_injection"
    sink = dashboard.TextLines(print_line)
    evidence = reporting.inject(parsed, settings, folder=folder, sink=sink)
    heads = ("network", "parameter", "galaxies", "complete", "bias", "scatter", "68 % covers", "95 % covers")
    wanted = [row for row in evidence.rows if row.binned_by in ("", "magnitude")]
    print_table(heads, [_cells(row) for row in wanted])
    for model, flags in {row.model: row.frequent_flags for row in evidence.all_galaxies}.items():
        print_line(f"{model}: the most frequent flags: {flags or 'none'}")
    if evidence.without_photon_noise:
        bands = ", ".join(evidence.without_photon_noise)
        print_line(
            f"without photon noise of the galaxies in {bands}: the tiles state no GAIN, and --electrons-per-njy was not given"
        )
    print_line(f"{folder}; {reporting.evidence_path(parsed.catalog.path)}")


def _positive(text: str) -> float:
    """Return a number above 0 that a text states."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise UsageError(f"--electrons-per-njy: {text!r}: expected a number above 0")
    return number


def _cells(row: EvidenceRow) -> tuple[str, ...]:
    """Return the cells of a printed row; the bin stands behind the parameter."""
    numbers = ["" if value is None else f"{value:.3g}" for value in (row.bias, row.scatter)]
    shares = ["" if value is None else f"{100 * value:.0f} %" for value in (row.coverage68, row.coverage95)]
    what = f"{row.parameter}, mag {row.bin}" if row.binned_by else row.parameter
    return row.model, what, str(row.n), f"{100 * row.completeness:.0f} %", *numbers, *shares
