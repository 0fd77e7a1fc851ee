"""galbatch demo and galbatch simulate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from galbatch.cli.printing import out, print_line

__all__ = ["demo", "simulate"]


def demo(
    objects: Annotated[int, typer.Option(help="galaxies to simulate", min=16)] = 2000,
    out_folder: Annotated[Path, typer.Option("--out", help="folder for everything the demo makes")] = Path(
        "demo"
    ),
    workers: Annotated[int, typer.Option(help="worker processes", min=1)] = 2,
) -> None:
    """Simulate a survey and run everything on it.

    Verifies the catalog and writes a report; needs no data, no GPU, no network. Run again, it continues where it stopped.
    """
    from galbatch.demo import run_demo

    raise typer.Exit(run_demo(out_folder, n_objects=objects, workers=workers, console=out))


def simulate(
    out_folder: Annotated[Path, typer.Argument(metavar="OUT", help="folder to write the survey into")],
    objects: Annotated[int, typer.Option(help="galaxies to simulate", min=1)] = 2000,
    patches: Annotated[int, typer.Option(help="overlapping patches of the one tract", min=1)] = 4,
    bands: Annotated[str, typer.Option(help="bands of g, r and i, such as gri or g,r,i")] = "gr",
    population: Annotated[
        str,
        typer.Option(
            help="paper (Table 1 of the GaMPEN paper, each galaxy alone) or survey (magnitude counts, neighbors, stars, "
            "correlated noise)"
        ),
    ] = "paper",
    layout: Annotated[str, typer.Option(help="files as of any layout that [survey] layout names")] = "hsc",
    seed: Annotated[int, typer.Option(help="seed of the whole survey", min=0)] = 1,
) -> None:
    """Simulate a survey with known truth, in any layout that is read.

    Writes tiles or stamps, objects.parquet and truth.parquet, and prints what run.toml says of them.
    """
    from galbatch.simulation import simulate_survey

    survey = simulate_survey(
        str(out_folder),
        n_objects=objects,
        patches=patches,
        bands=tuple(bands.replace(",", "")),
        population=population,
        layout=layout,
        seed=seed,
    )
    print_line(
        f"{survey.n_objects} galaxies in {patches} patch{'es' if patches > 1 else ''} and band"
        f"{'s' if len(survey.bands) > 1 else ''} {', '.join(survey.bands)}: {out_folder}"
    )
    print_line(f"In run.toml:\n\n{survey.run_toml}")
