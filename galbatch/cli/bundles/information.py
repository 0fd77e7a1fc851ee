"""The command galbatch models information, which says what images add to numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from galbatch.cli.options import IdColumn, LabelsTable
from galbatch.cli.printing import out, print_line, print_table, with_error
from galbatch.errors import UsageError

__all__ = ["information"]


def information(
    image: Annotated[
        str | None, typer.Option(metavar="BUNDLE", help="network that takes the image alone")
    ] = None,
    numbers: Annotated[
        str | None, typer.Option(metavar="BUNDLE", help="network that takes the numbers alone")
    ] = None,
    both: Annotated[str | None, typer.Option(metavar="BUNDLE", help="network that takes both")] = None,
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

    Prints the informations of image, numbers and both about the label, the conditional ones, and their split by two measures of redundancy.
    """
    from galbatch import learning, models, reporting
    from galbatch.objects import check_table_suffix, write_table

    check_table_suffix(output)
    bundles = {"image": image, "numbers": numbers, "both": both}
    paths = {name: path for name, path in bundles.items() if path is not None}
    if (scores is None) == (not paths) or 0 < len(paths) < 3:
        raise UsageError("models information: give --image, --numbers and --both, or --scores")
    if scores is not None:
        found = learning.read_scores(scores, bins=[name for name in (magnitude, size) if name is not None])
        title = Path(scores).name
    else:
        further = learning.FurtherColumns(magnitude, size=size)
        source = learning.DataSource(store, () if labels is None else (labels,), id_column, further=further)
        settings = models.PassSettings(passes)
        task = learning.prepare_information(paths, source, parameter=parameter, passes=settings)
        found = learning.measure_information(task, console=out)
        title = task.parameter
    bins = learning.split_information(found)
    heads = ["nats", *(f"{one.name} {one.low:.3g} to {one.high:.3g}" if one.name else "all" for one in bins)]
    rows = [(name, *(with_error(*one.named()[name]) for one in bins)) for name in bins[0].named()]
    print_table(heads, rows, right=range(1, len(heads)))
    write_table(output, reporting.information_table(bins))
    print_line(f"table: {output}")
    if plot is not None:
        reporting.write_information(bins, plot, title=title)
        print_line(f"figure: {plot}")
