"""The commands galbatch demo and galbatch simulate, which need no data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from galbatch.cli.printing import out, print_line, print_verbatim

__all__ = ["demo", "simulate"]


def demo(
    objects: Annotated[int, typer.Option(help="number of galaxies to simulate", min=16)] = 2000,
    out_folder: Annotated[Path, typer.Option("--out", help="folder for all files of the demo")] = Path(
        "demo"
    ),
    workers: Annotated[int, typer.Option(help="number of worker processes", min=1)] = 2,
) -> None:
    """Simulate a small survey, make its catalog, verify it and write a report.

    Needs no data, no GPU and no internet. The same command continues a demo that was stopped.
    """
    from galbatch.demo import run_demo

    raise typer.Exit(run_demo(out_folder, n_objects=objects, workers=workers, console=out))


def simulate(
    out_folder: Annotated[
        str, typer.Argument(metavar="OUT", help="folder or s3:// prefix to write the survey into")
    ],
    objects: Annotated[int, typer.Option(help="number of galaxies to simulate", min=1)] = 2000,
    patches: Annotated[int, typer.Option(help="number of overlapping patches in the tract", min=1)] = 4,
    bands: Annotated[str, typer.Option(help="bands, from g, r and i, such as gri or g,r,i")] = "gr",
    population: Annotated[
        str,
        typer.Option(
            help="paper (isolated galaxies of Table 1 of the GaMPEN paper) or survey (magnitude counts, neighbors, stars, "
            "correlated noise)"
        ),
    ] = "paper",
    layout: Annotated[str, typer.Option(help="layout of the files: any value of [survey] layout")] = "hsc",
    seed: Annotated[int, typer.Option(help="seed of all random numbers", min=0)] = 1,
) -> None:
    """Simulate a survey with known truth, in any of the file layouts that galbatch reads.

    Writes tiles or stamps, objects.parquet and truth.parquet, and prints the sections of run.toml for them.
    """
    from galbatch import api

    survey = api.simulate(
        out_folder,
        n_objects=objects,
        patches=patches,
        # Names of simulated bands have one letter, so "gri" and "g,r,i" mean the same.
        bands=tuple(bands.replace(",", "")),
        population=population,
        layout=layout,
        seed=seed,
    )
    print_line(
        f"{survey.n_objects} galaxies in {patches} patch{'es' if patches > 1 else ''} and band"
        f"{'s' if len(survey.bands) > 1 else ''} {', '.join(survey.bands)}: {out_folder}"
    )
    print_verbatim(f"In run.toml:\n\n{survey.run_toml}")
