"""The command galbatch models information, which says what images add to numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from galbatch.cli.bundles.training import show_written
from galbatch.cli.options import IdColumn, LabelsTable
from galbatch.cli.printing import out, print_error, print_line, print_table, with_error
from galbatch.core.process import STOPPED_EXIT_CODE
from galbatch.errors import UsageError

if TYPE_CHECKING:
    from galbatch.learning import DataSource  # loads torch

__all__ = ["information"]

CHECKPOINT_EVERY_S = 600.0  # As galbatch models train.


def information(
    image: Annotated[
        str | None, typer.Option(metavar="BUNDLE", help="network that takes the image alone")
    ] = None,
    numbers: Annotated[
        str | None, typer.Option(metavar="BUNDLE", help="network that takes the numbers alone")
    ] = None,
    both: Annotated[str | None, typer.Option(metavar="BUNDLE", help="network that takes both")] = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            metavar="TRAIN.toml",
            help="train the networks that are not given, with these settings; tables [image], [numbers] and [both] have what is of one alone",
        ),
    ] = None,
    architecture: Annotated[
        str, typer.Option(help="network of the images that is trained, gampen, sfnet or timm")
    ] = "gampen",
    networks: Annotated[
        Path, typer.Option(metavar="FOLDER", help="where trained networks are written, as image.pt and so on")
    ] = Path("networks"),
    device: Annotated[str, typer.Option(help="train on cpu, cuda, or auto (cuda if available)")] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="continue from the checkpoint of a training that was stopped")
    ] = False,
    scores: Annotated[
        str | None,
        typer.Option(
            metavar="TABLE",
            help="log scores instead of networks: columns image, numbers, both, label and those of --magnitude and --size",
        ),
    ] = None,
    store: Annotated[
        str | None, typer.Option(metavar="CUTOUTS.zarr", help="store of the held-out objects")
    ] = None,
    labels: LabelsTable = None,
    id_column: IdColumn = "object_id",
    parameter: Annotated[
        str | None, typer.Option(metavar="NAME", help="parameter of the networks; default: the only one")
    ] = None,
    magnitude: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="magnitude in whose bins results are shown, too")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="size in whose bins results are shown, too")
    ] = None,
    passes: Annotated[int, typer.Option(help="number of passes per object", min=1)] = 64,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="FILE", help="table to write, by the suffix")
    ] = "information.ecsv",
    plot: Annotated[str | None, typer.Option(metavar="FILE.png", help="figure to write")] = None,
) -> None:
    """Say what images add to numbers, in nats, from the log scores of three networks on held-out objects.

    The networks are given, or trained by --settings on one split of the same objects. Prints the informations of image, numbers and both about
    the label, the conditional ones, and their split by two measures of redundancy.
    """
    from galbatch import learning, models, reporting
    from galbatch.objects import check_table_suffix, write_table

    check_table_suffix(output)
    bundles = {"image": image, "numbers": numbers, "both": both}
    paths = {name: path for name, path in bundles.items() if path is not None}
    _check_sources(scores, settings, n_given=len(paths))
    if scores is not None:
        found = learning.read_scores(scores, bins=[name for name in (magnitude, size) if name is not None])
        title = Path(scores).name
    else:
        further = learning.FurtherColumns(magnitude, size=size)
        source = learning.DataSource(store, () if labels is None else (labels,), id_column, further=further)
        if settings is not None:
            options = {"architecture": architecture, "device": device, "resume": resume}
            paths = _train_others(paths, settings, networks, source=source, options=options)
        task = learning.prepare_information(
            paths, source, parameter=parameter, passes=models.PassSettings(passes)
        )
        found = learning.measure_information(task, console=out)
        title = task.label_text
    bins = learning.split_information(found)
    heads = ["nats", *(f"{one.name} {one.low:.3g} to {one.high:.3g}" if one.name else "all" for one in bins)]
    rows = [(name, *(with_error(*one.named()[name]) for one in bins)) for name in bins[0].named()]
    print_table(heads, rows, right=range(1, len(heads)))
    write_table(output, reporting.information_table(bins))
    print_line(f"table: {output}")
    if plot is not None:
        reporting.write_information(bins, plot, title=title)
        print_line(f"figure: {plot}")


def _check_sources(scores: str | None, settings: Path | None, *, n_given: int) -> None:
    """Raise a UsageError unless exactly one source of log scores is given: a table, three networks, or settings for those that lack."""
    if scores is not None and (n_given or settings is not None):
        raise UsageError(
            "--scores: of networks that ran before; take out --image, --numbers, --both and --settings"
        )
    if scores is None and settings is None and n_given < 3:
        raise UsageError(
            "models information: give --image, --numbers and --both, or --settings to train those that are not given, or --scores"
        )
    if settings is not None and n_given == 3:
        raise UsageError("--settings: --image, --numbers and --both are given, so nothing is left to train")


def _train_others(
    given: Mapping[str, str], settings: Path, folder: Path, *, source: DataSource, options: Mapping[str, Any]
) -> dict[str, str]:
    """Train the networks that are not given, and return the paths of all three."""
    from galbatch import learning

    task = learning.prepare_information_training(
        settings, folder, source=source, architecture=options["architecture"], taken=given
    )
    paths = dict(given)
    training = learning.train_for_information(
        task,
        device=options["device"],
        resume=options["resume"],
        checkpoint_every_s=CHECKPOINT_EVERY_S,
        console=out,
    )
    try:
        for name, written in training:
            # Of several processes that train together, the first one writes and compares.
            if written is not None:
                paths[name] = str(task.tasks[name].output)
                show_written(written, task.tasks[name].output)
    except KeyboardInterrupt:
        done = "".join(f" --{name} {path}" for name, path in paths.items() if name not in given)
        print_error(f"galbatch: stopped; the same command continues with --resume{done}")
        raise typer.Exit(STOPPED_EXIT_CODE) from None
    if len(paths) < 3:
        raise typer.Exit
    return paths
