"""galbatch models train and calibrate: bundles that are made or made better here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from galbatch.cli.options import IdColumn, LabelsTable, parse_numbers
from galbatch.cli.printing import errors, out, print_line, print_result_tables

__all__ = ["calibrate", "train"]


def train(
    architecture: Annotated[str, typer.Argument(metavar="gampen|sfnet", help="gampen or sfnet")],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="bundle to write, .pt; its card, .md, and training curve, .png, come next to it",
        ),
    ],
    settings: Annotated[
        Path | None, typer.Option(metavar="TRAIN.toml", help="settings, over the recipe's or the parent's")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(metavar="CUTOUTS.zarr", help="train on the cutouts of a store instead of simulating"),
    ] = None,
    labels: LabelsTable = None,
    id_column: IdColumn = "object_id",
    parent: Annotated[
        str | None,
        typer.Option("--from", metavar="BUNDLE", help="start from this bundle's weights (fine-tuning)"),
    ] = None,
    objects: Annotated[
        int | None, typer.Option(help="galaxies to simulate; the recipe's number", min=200)
    ] = None,
    population: Annotated[
        str | None, typer.Option(help="population to simulate, paper or survey; the recipe's")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="epochs, at most; the settings' number", min=1)] = None,
    seed: Annotated[
        int | None, typer.Option(help="seed of weights, split, order and dropout; the settings'", min=0)
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda if there is one")] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="continue from the checkpoint OUTPUT.ckpt")
    ] = False,
    keep_checkpoint: Annotated[
        bool, typer.Option("--keep-checkpoint", help="leave the checkpoint there when all is done")
    ] = False,
) -> None:
    """Train a network on cutouts with labels, or on freshly simulated galaxies as the demo bundles are.

    The loss, transforms, split and default settings are the GaMPEN paper's. The state after each epoch is kept in OUTPUT.ckpt until the
    bundle is there. On a CPU a seed gives the same bits again at the same number of threads.
    """
    from galbatch import learning, reporting

    source = learning.DataSource(store, labels, id_column, objects=objects, population=population)
    options = {"epochs": epochs, "seed": seed}
    task = learning.prepare_training(
        architecture, output, source=source, parent=parent, settings=settings, options=options
    )
    try:
        written = learning.train_bundle(
            task, device=device, resume=resume, keep_checkpoint=keep_checkpoint, console=out
        )
    except KeyboardInterrupt:
        checkpoint = learning.checkpoint_path(output)
        what = f"add --resume to continue from {checkpoint}" if checkpoint.exists() else "no epoch was done"
        errors.print(f"galbatch: stopped; {what}")
        raise typer.Exit(130) from None
    metadata = written.trained.metadata
    title = f"{metadata.name} {metadata.version}"
    reporting.write_training_curve(written.trained.history, str(written.figure), title=title)
    best = metadata.training
    print_line(
        f"kept epoch {best['best_epoch']}, validation loss {best['validation_loss']:.4f}\n"
        f"{output}, {written.card} and {written.figure}"
    )


def calibrate(
    bundles: Annotated[
        list[str],
        typer.Argument(
            metavar="BUNDLE...",
            help="bundle file, or demo:gampen, demo:sfnet; several of one model, trained at different dropout rates: the best is taken",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="bundle to write, .pt; its card, .md, and figure, _calibration.png, come next to it",
        ),
    ],
    simulate: Annotated[
        str | None,
        typer.Option(metavar="POPULATION", help="hold out freshly simulated galaxies: paper or survey"),
    ] = None,
    objects: Annotated[int | None, typer.Option(help="galaxies to simulate; 4000", min=200)] = None,
    seed: Annotated[
        int, typer.Option(help="seed of the simulation and of the split into two parts", min=0)
    ] = 303,
    store: Annotated[
        str | None,
        typer.Option(metavar="CUTOUTS.zarr", help="hold out the cutouts of a store instead of simulating"),
    ] = None,
    labels: LabelsTable = None,
    id_column: IdColumn = "object_id",
    dropout: Annotated[
        str,
        typer.Option(
            metavar="RATES",
            help="dropout rates to try, separated by commas, such as 2e-4,7e-4; the bundle's own",
        ),
    ] = "",
    passes: Annotated[int, typer.Option(help="Monte Carlo dropout passes per object", min=2)] = 64,
    apply: Annotated[
        bool | None,
        typer.Option(
            "--apply/--no-apply", help="whether runs apply the correction; yes, but for converted networks"
        ),
    ] = None,
    compare_with: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BUNDLE",
            help="another bundle of the same parameters, whose residuals are shown for comparison; may be repeated",
        ),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="POPULATION",
            help="show how the bundle does on freshly simulated galaxies of it, too; may be repeated",
        ),
    ] = None,
) -> None:
    """Make a bundle's intervals cover what they say, and measure how well they do.

    Half of the held-out objects choose dropout rate and correction, the other half is reported. The correction is stored in the bundle;
    [[models]] calibrated switches it on or off.
    """
    from galbatch import learning, models, reporting

    rates = parse_numbers("--dropout", dropout, "numbers separated by commas, such as 2e-4,7e-4")
    settings = models.CalibrationSettings(
        dropout_rates=rates, apply=apply, passes=models.PassSettings(passes), seed=seed
    )
    source = learning.DataSource(store, labels, id_column, objects=objects, population=simulate)
    task = learning.prepare_calibration(
        bundles, output, source=source, settings=settings, compare_with=compare_with or (), also=also or ()
    )
    written = learning.calibrate_bundle(task, console=out)
    found = written.calibration
    title = f"{found.metadata.name} {found.metadata.version}"
    reporting.write_calibration(found.before, found.after, str(written.figure), title=title)
    print_result_tables(found.summary_tables())
    print_line(f"\n{output}, {written.card} and {written.figure}")
