"""The commands galbatch models train and calibrate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from galbatch.cli.options import ColumnsTable, IdColumn, LabelsTable, parse_numbers
from galbatch.cli.printing import out, print_error, print_line, print_result_tables
from galbatch.core.process import STOPPED_EXIT_CODE
from galbatch.errors import UsageError

if TYPE_CHECKING:
    from galbatch.learning import DataSource, TrainedBundle  # load torch

__all__ = ["calibrate", "show_written", "train"]


def train(
    architecture: Annotated[
        str,
        typer.Argument(
            metavar="gampen|sfnet|mlp|timm",
            help="gampen or sfnet; mlp: a dense network on columns alone; timm: an encoder of timm (an extra)",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="bundle to write, .pt; its card, .md, and training curve, .png, come next to it",
        ),
    ],
    settings: Annotated[
        Path | None,
        typer.Option(metavar="TRAIN.toml", help="settings that replace those of the recipe or of the parent"),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="CUTOUTS.zarr", help="train on the cutouts of a store instead of simulated galaxies"
        ),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TABLE",
            help="table with a column of ids and the true parameters; may be repeated: an object may have a label in each",
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            metavar="NUMBERS",
            help="weight in the loss of the objects of each table of labels, separated by commas, such as 0.2,1; default: all equal",
        ),
    ] = "",
    columns: ColumnsTable = None,
    id_column: IdColumn = "object_id",
    parent: Annotated[
        str | None,
        typer.Option("--from", metavar="BUNDLE", help="start from this bundle's weights (fine-tuning)"),
    ] = None,
    objects: Annotated[
        int | None, typer.Option(help="number of galaxies to simulate; default: the recipe's", min=200)
    ] = None,
    population: Annotated[
        str | None, typer.Option(help="population to simulate, paper or survey; default: the recipe's")
    ] = None,
    augment: Annotated[
        bool,
        typer.Option(
            "--augment",
            help="spoil part of the simulated images as real ones are: by close neighbors, sky offsets, other PSFs and flat cores",
        ),
    ] = False,
    epochs: Annotated[
        int | None, typer.Option(help="largest number of epochs; default: that of the settings", min=1)
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="seed of initial weights, split, order and dropout; default: that of the settings", min=0
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto (cuda if available)")] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="continue from the checkpoint OUTPUT.ckpt")
    ] = False,
    keep_checkpoint: Annotated[
        bool, typer.Option("--keep-checkpoint", help="do not delete the checkpoint at the end")
    ] = False,
    checkpoint_minutes: Annotated[
        float, typer.Option(help="minutes after which the state is kept within an epoch, too", min=0)
        # A full-width GaMPEN's state has 2 GB, which a disk writes in 10 s: 2 % of the time.
    ] = 10.0,
) -> None:
    """Train a network on cutouts or columns with labels, or on newly simulated galaxies, as the demo bundles were.

    The loss, transforms, split and default settings are those of the GaMPEN paper. The state is kept in OUTPUT.ckpt
    until the bundle is written. On a CPU, the same seed and number of threads give the same bits.
    """
    from galbatch import learning

    source = learning.DataSource(
        store,
        tuple(labels or ()),
        id_column,
        objects=objects,
        population=population,
        weights=parse_numbers("--weights", weights, "numbers separated by commas, such as 0.2,1"),
        columns=columns,
        spoiled=augment,
    )
    # Options of the command line replace single settings of the file; None means not given.
    options = {"epochs": epochs, "seed": seed}
    task = learning.prepare_training(
        architecture, output, source=source, parent=parent, settings=settings, options=options
    )
    try:
        written = learning.train_bundle(
            task,
            device=device,
            resume=resume,
            keep_checkpoint=keep_checkpoint,
            checkpoint_every_s=60 * checkpoint_minutes,
            console=out,
        )
    except KeyboardInterrupt:
        # The group's own message says "the same command continues": a training needs --resume besides.
        checkpoint = learning.checkpoint_path(output)
        what = f"add --resume to continue from {checkpoint}" if checkpoint.exists() else "no epoch was done"
        print_error(f"galbatch: stopped; {what}")
        raise typer.Exit(STOPPED_EXIT_CODE) from None
    # Of several processes that train together, the first one writes.
    if written is not None:
        show_written(written, output)


def show_written(written: TrainedBundle, output: Path) -> None:
    """Draw the training curve of a bundle that was written, and print which epoch was kept."""
    from galbatch import reporting

    metadata = written.trained.metadata
    title = f"{metadata.name} {metadata.version}"
    reporting.write_training_curve(written.trained.history, str(written.figure), title=title)
    # The weights kept are those of the epoch with the lowest validation loss, not of the last one.
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
            help="bundle file, or demo:gampen or demo:sfnet; of several bundles of one model, trained with different dropout rates, the best is taken",
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
        typer.Option(
            metavar="POPULATION", help="hold out newly simulated galaxies of this population: paper or survey"
        ),
    ] = None,
    objects: Annotated[
        int | None, typer.Option(help="number of galaxies to simulate; default: 4000", min=200)
    ] = None,
    seed: Annotated[
        int, typer.Option(help="seed of the simulation and of the split into two parts", min=0)
        # Not the seed of a training: the same galaxies would be drawn again, which is refused.
    ] = 303,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="CUTOUTS.zarr", help="hold out the cutouts of a store instead of simulated galaxies"
        ),
    ] = None,
    labels: LabelsTable = None,
    columns: ColumnsTable = None,
    id_column: IdColumn = "object_id",
    dropout: Annotated[
        str,
        typer.Option(
            metavar="RATES",
            help="dropout rates to try, separated by commas, such as 2e-4,7e-4; default: the bundle's own",
        ),
    ] = "",
    passes: Annotated[int, typer.Option(help="number of Monte Carlo dropout passes per object", min=2)] = 64,
    apply: Annotated[
        bool | None,
        typer.Option(
            "--apply/--no-apply",
            help="whether runs apply the correction; default: yes, except for converted networks",
        ),
    ] = None,
    compare_with: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BUNDLE",
            help="another bundle with the same parameters, whose residuals are shown for comparison; may be repeated",
        ),
    ] = None,
    magnitude: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="magnitude, a column of --labels or --columns, in whose bins results are shown, too",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="object list whose colors and magnitudes the results of redshifts are weighted to; with --target-columns",
        ),
    ] = None,
    target_columns: Annotated[
        str,
        typer.Option(
            metavar="COLUMNS",
            help="columns of both --labels (or --columns) and --target, separated by commas",
        ),
    ] = "",
    stopping_only: Annotated[
        bool,
        typer.Option(
            "--stopping-only",
            help="only measure when objects have enough passes, which needs no labels: --store alone, or --simulate",
        ),
    ] = False,
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="POPULATION",
            help="population of newly simulated galaxies on which the bundle is tested, too; may be repeated",
        ),
    ] = None,
) -> None:
    """Calibrate a bundle's posteriors, and measure how often its intervals hold the truth.

    Dropout rate and correction are chosen on one half of the held-out objects; results are reported for the other half. The correction
    is stored in the bundle; [[models]] calibrated switches it on or off. A stopping calibration is stored, too, by which runs know when an
    object has enough passes.
    """
    from galbatch import learning, models, reporting

    if stopping_only:
        if dropout or apply is not None or compare_with or also or magnitude or target:
            raise UsageError(
                "--stopping-only: --dropout, --apply, --compare-with, --also, --magnitude and --target mean nothing with it"
            )
        tables = () if labels is None else (labels,)
        _calibrate_stopping(
            bundles, output, learning.DataSource(store, tables, id_column, objects, simulate), seed
        )
        return

    rates = parse_numbers("--dropout", dropout, "numbers separated by commas, such as 2e-4,7e-4")
    settings = models.CalibrationSettings(
        dropout_rates=rates, apply=apply, passes=models.PassSettings(passes), seed=seed
    )
    wanted = tuple(name.strip() for name in target_columns.split(",") if name.strip())
    source = learning.DataSource(
        store,
        () if labels is None else (labels,),
        id_column,
        objects=objects,
        population=simulate,
        further=learning.FurtherColumns(magnitude, target, wanted),
        columns=columns,
    )
    task = learning.prepare_calibration(
        bundles, output, source=source, settings=settings, compare_with=compare_with or (), also=also or ()
    )
    written = learning.calibrate_bundle(task, console=out)
    found = written.calibration
    title = f"{found.metadata.name} {found.metadata.version}"
    reporting.write_calibration(found.before, found.after, str(written.figure), title=title)
    print_result_tables(found.summary_tables())
    print_line(f"\n{output}, {written.card} and {written.figure}")


def _calibrate_stopping(bundles: list[str], output: Path, source: DataSource, seed: int) -> None:
    """Write a bundle with a stopping calibration, and print from how many passes its objects may stop."""
    from galbatch import learning, models

    task = learning.prepare_stopping(
        bundles, output, source=source, settings=models.StoppingSettings(seed=seed)
    )
    written = learning.calibrate_stopping_only(task, console=out)
    info = written.metadata.stopping
    if info is not None:
        print_line(
            f"objects may stop from {info.start} passes on; actual over stated error of {info.n_objects} held-out objects: "
            f"{'unknown, too few stop' if info.actual_over_stated is None else f'{info.actual_over_stated:.2f}'}"
        )
    print_line(f"\n{output} and {written.card}")
