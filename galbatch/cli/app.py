"""The command line: parse, call, print, exit code.

0: all done. 1: some partitions failed, or a check did. 2: bad usage, config or input; nothing was started.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core
from rich.console import Console
from rich.table import Table

from galbatch import __version__
from galbatch.errors import GalbatchError, UsageError

__all__ = ["app", "main"]


class Commands(typer.core.TyperGroup):
    """Tells those who stop a command what that means; typer would end without a word."""

    def invoke(self, ctx: Any) -> Any:
        """See `TyperGroup`."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            Console(stderr=True, soft_wrap=True).print(
                "galbatch: stopped; what is done stays, the same command goes on from there"
            )
            raise typer.Exit(130) from None


app = typer.Typer(
    name="galbatch",
    cls=Commands,
    help="Survey-scale Bayesian inference on galaxy images: tiles and objects in, a HATS catalog of posteriors out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
models_app = typer.Typer(
    help="List, show, train and convert model bundles.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(models_app, name="models")
convert_app = typer.Typer(
    help="Make bundles of weights that others published.", no_args_is_help=True, rich_markup_mode=None
)
models_app.add_typer(convert_app, name="convert")
tiles_app = typer.Typer(help="Make tables of tiles.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(tiles_app, name="tiles")
objects_app = typer.Typer(help="Look at object lists.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(objects_app, name="objects")

out = Console()
WIDEST = 1000  # characters of a table
AUDIT_PREFIX = "galbatch_audit_"  # of the catalog's properties
FEW_DRAWS = 20  # up to here they are printed themselves: a summary of so few tells nothing
RunToml = Annotated[Path, typer.Argument(metavar="RUN.toml", help="the run's config file")]
CatalogPath = Annotated[
    str, typer.Argument(metavar="CATALOG", help="folder of a HATS catalog made by galbatch")
]
LabelsTable = Annotated[
    str | None, typer.Option(metavar="TABLE", help="with --store: table with an id and the true parameters")
]
IdColumn = Annotated[str, typer.Option("--id", metavar="COLUMN", help="column of the labels' ids")]
Workers = Annotated[int | None, typer.Option(help="worker processes; overrides [cluster] workers", min=1)]


def main() -> None:
    """Entry point: errors go to stderr, without traceback unless ``--debug`` is given."""
    debug = "--debug" in sys.argv
    try:
        app(prog_name="galbatch")
    except GalbatchError as error:
        if debug:
            raise
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"galbatch: {error}")
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except (
        OSError
    ) as error:  # of an input or output as a whole; those of a partition are collected by the run
        if debug:
            raise
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(
            f"galbatch: {error}; disk or network failed: what is done stays, the same command goes on from there"
        )
        sys.exit(1)


def _show_version(value: bool) -> None:
    if value:
        out.print(f"galbatch {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of errors")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="show the version")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    objects: Annotated[int, typer.Option(help="galaxies to simulate", min=16)] = 2000,
    out_folder: Annotated[Path, typer.Option("--out", help="folder for everything the demo makes")] = Path(
        "demo"
    ),
    workers: Annotated[int, typer.Option(help="worker processes", min=1)] = 2,
) -> None:
    """Simulate a survey and run everything on it.

    Verifies the catalog and writes a report; needs no data, no GPU, no network. Run again, it goes on from where it stopped.
    """
    from galbatch.demo import run_demo

    _exit_with(run_demo(out_folder, n_objects=objects, workers=workers, console=out))


@app.command()
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
    layout: Annotated[
        str, typer.Option(help="files as of hsc, lsst, legacysurvey, generic, stamps or galaxiesml")
    ] = "hsc",
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
    out.print(
        f"{survey.n_objects} galaxies in {patches} patch{'es' if patches > 1 else ''} and band"
        f"{'s' if len(survey.bands) > 1 else ''} {', '.join(survey.bands)}: {out_folder}",
        soft_wrap=True,
        markup=False,
    )
    out.print(f"In run.toml:\n\n{survey.run_toml}", soft_wrap=True, markup=False, highlight=False)


@app.command()
def plan(run_toml: RunToml) -> None:
    """Dry run: partitions, bytes, memory, time.

    Reads the inputs, times a few cutouts and passes on this machine, and writes nothing but the tile index.
    """
    from galbatch import cluster, config
    from galbatch.execution import rates, run

    parsed = config.read_config(run_toml)
    with cluster.on_demand(parsed.cluster) as workers:
        made = run.prepare(parsed, workers)
    out.print(
        _plan_table(parsed, made, rates.measure_rates(parsed, made), rates.measure_memory(parsed, made))
    )
    for partition in made.oversize[:5]:
        out.print(
            f"larger than the limits, and not to be split further: {partition.name} ({_counted(partition.n_objects, 'object')})"
        )
    if len(made.oversize) > 5:
        out.print(f"and {len(made.oversize) - 5} more")
    for note in made.notes:
        out.print(f"note: {note}", soft_wrap=True, highlight=False, markup=False)


@app.command(name="run")
def run_command(
    run_toml: RunToml,
    stage: Annotated[str, typer.Option(help="ingest (cutouts only), infer (from cutouts) or all")] = "all",
    workers: Workers = None,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="local, local-cuda or scheduler; overrides [cluster] kind"),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="join a running Dask scheduler, such as tcp://10.0.0.1:8786"),
    ] = None,
) -> None:
    """Do what is left: cutouts, posteriors, catalog.

    Stop it at any time and run it again: what is done stays.
    """
    from galbatch import cluster as clusters
    from galbatch import config, dashboard
    from galbatch.execution import run

    if stage not in ("ingest", "infer", "all"):
        raise UsageError(f"--stage {stage}: expected ingest, infer or all")
    parsed = config.read_config(run_toml).with_cluster(workers=workers, kind=cluster, scheduler=scheduler)
    clusters.require(parsed.cluster)
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    with clusters.on_demand(parsed.cluster, tell=errors.print) as pool:
        made = run.prepare(parsed, pool)
        for note in made.notes:
            errors.print(f"note: {note}")
        # Foreign outputs and folders that cannot be written are refused before workers are started, unless many
        # headers had to be read on them.
        run.progress(parsed, made)
        run.check_outputs(parsed, stage)  # type: ignore[arg-type]
        out.print(f"dashboard: {dashboard.watch(pool.client)}", soft_wrap=True, highlight=False)
        with dashboard.ProgressBars.on(out) as bars:
            result = run.execute(parsed, made, pool.client, stage=stage, sink=bars)  # type: ignore[arg-type]
    _print_result(result, stage)
    _exit_with(1 if result.failed else 0)


@app.command()
def status(run_toml: RunToml) -> None:
    """Show what is done, failed (with reasons) and left."""
    from galbatch import cluster, config
    from galbatch.execution import run

    parsed = config.read_config(run_toml)
    with cluster.on_demand(parsed.cluster) as workers:
        made = run.prepare(parsed, workers)
    state = run.progress(parsed, made)
    n_partitions = len(made.partitions)
    table = Table("", "partitions", "objects", box=None, pad_edge=False)
    done = [p for p in made.partitions if p.partition.name in state.inferred]
    cut = [p for p in made.partitions if p.partition.name in state.ingested]
    for label, parts in (
        ("all", list(made.partitions)),
        ("cutouts done", cut),
        ("catalog done", done),
        ("left", state.left),
    ):
        table.add_row(label, str(len(parts)), str(sum(p.partition.n_objects for p in parts)))
    out.print(table)
    for name, reason in sorted(state.failed.items()):
        out.print(f"failed: {name}: {reason}", soft_wrap=True, highlight=False, markup=False)
    if len(done) < n_partitions:
        out.print(f"to go on: galbatch run {run_toml}", soft_wrap=True, highlight=False, markup=False)


@app.command()
def clean(
    run_toml: RunToml,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Delete the run's outputs; asks first.

    The only command that deletes any: the cutout store, the catalog, its pass outputs and the tile index, and nothing else that lies in their folders.
    """
    from galbatch import config, storage
    from galbatch.catalog import pass_outputs
    from galbatch.execution import run

    parsed = config.read_config(run_toml)
    if not yes:
        outputs = [parsed.cutouts.store, parsed.catalog.path]
        kept = pass_outputs.pass_outputs_path(parsed.catalog.path)
        outputs += [kept] if storage.exists(kept) else []
        typer.confirm(f"delete {', '.join(outputs[:-1])} and {outputs[-1]}?", abort=True)
    removed = run.clean(parsed)
    out.print(
        f"removed {len(removed)} entr{'ies' if len(removed) > 1 else 'y'}" if removed else "nothing to remove"
    )


@app.command()
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
    from galbatch import catalog, cluster, config
    from galbatch.catalog import pass_outputs
    from galbatch.execution import run

    problems = catalog.verify(catalog_path) + pass_outputs.problems(catalog_path)
    if against is not None and not problems:
        parsed = config.read_config(against)
        with cluster.on_demand(parsed.cluster) as workers:
            problems = run.verify_against(parsed, catalog_path, workers)
    for problem in problems:
        Console(stderr=True).print(problem, soft_wrap=True, highlight=False, markup=False)
    if not problems:
        out.print(f"{catalog_path}: good", soft_wrap=True, highlight=False, markup=False)
        for line in _audits(catalog.read_properties(catalog_path)):
            out.print(line, soft_wrap=True, highlight=False, markup=False)
    _exit_with(1 if problems else 0)


def _audits(properties: dict[str, str]) -> list[str]:
    """What the audit of adaptive passes found, a line for each network."""
    return [
        f"audit of {key.removeprefix(AUDIT_PREFIX)}: {value}"
        for key, value in properties.items()
        if key.startswith(AUDIT_PREFIX)
    ]


@app.command()
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
    out.print(str(output), soft_wrap=True, highlight=False)


@app.command()
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
    from galbatch.objects import tables

    found = catalog.cone(catalog_path, ra_deg=ra_deg, dec_deg=dec_deg, radius_arcsec=radius_arcsec)
    if output is not None:
        tables.write_table(str(output), found)
        out.print(f"{_counted(found.num_rows, 'object')}: {output}", soft_wrap=True, markup=False)
        return
    sys.stdout.write(found.to_pandas().to_csv(index=False))


@app.command()
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
    from galbatch.objects import tables

    if output not in (None, "-"):
        tables.check_suffix(output)
    if plot is not None:
        from galbatch import reporting

        reporting.check_corner(plot, n_draws)
    request = drawing.Request(n_draws, model, seed)
    results = drawing.draw(catalog_path, object_ids, request)
    found = [result for result in results if isinstance(result, drawing.Drawn)]
    without = [result for result in results if isinstance(result, drawing.NoDraws)]
    if found and (output == "-" or (output is None and n_draws <= FEW_DRAWS)):
        sys.stdout.write(drawing.as_table(found).to_pandas().to_csv(index=False))
    else:
        for one in found:
            _print_draws(one)
    if found and output not in (None, "-"):
        tables.write_table(output, drawing.as_table(found))
        out.print(
            f"{_counted(n_draws, 'draw')} each: {output}", soft_wrap=True, highlight=False, markup=False
        )
    if plot is not None:
        for one, path in zip(found, drawing.plot_paths(plot, found), strict=True):
            reporting.write_corner(path, one)
            out.print(f"corner plot: {path}", soft_wrap=True, highlight=False, markup=False)
    for missing in without:
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(
            f"object {missing.object_id}, {missing.model}: nothing to draw: {missing.reason}"
        )
    # Of a model that was not for the object there is nothing to expect.
    _exit_with(0 if {one.object_id for one in found} >= {one.object_id for one in without} else 1)


def _print_draws(drawn: Any) -> None:
    """Summary of the draws of one object and model."""
    from galbatch.api import draws as drawing

    summary, correlations = drawing.summary_tables(drawn)
    _print_results([summary, correlations] if correlations.rows else [summary])


@objects_app.command("check")
def objects_check_command(
    file: Annotated[str, typer.Argument(metavar="FILE", help="object list: Parquet, FITS, CSV or VOTable")],
    id_column: Annotated[str | None, typer.Option("--id", metavar="COLUMN", help="column of the id")] = None,
    ra_column: Annotated[
        str | None, typer.Option("--ra", metavar="COLUMN", help="column of the right ascension, deg")
    ] = None,
    dec_column: Annotated[
        str | None, typer.Option("--dec", metavar="COLUMN", help="column of the declination, deg")
    ] = None,
) -> None:
    """Say what a run would refuse of a list, and which cuts are usual; exit code 1 if it would refuse rows.

    Columns that are not named are guessed by the names that surveys use. Nothing is changed or applied.
    """
    from galbatch.objects import check as objects_check

    check = objects_check.check_objects(file, id_column=id_column, ra_column=ra_column, dec_column=dec_column)
    for line in objects_check.report_lines(check):
        out.print(line, soft_wrap=True, highlight=False, markup=False)
    _exit_with(1 if check.refusals else 0)


@tiles_app.command("from-butler")
def tiles_from_butler_command(
    repo: Annotated[str, typer.Argument(metavar="REPO", help="Butler repository: path, URI or alias")],
    output: Annotated[str, typer.Argument(metavar="OUT", help="table to write: .parquet or .csv")],
    collections: Annotated[str, typer.Option(help="collections, separated by commas, the first goes first")],
    bands: Annotated[str, typer.Option(help="bands, separated by commas, such as g,r,i")],
    dataset_type: Annotated[str, typer.Option(help="dataset type of the coadds")] = "deep_coadd",
    where: Annotated[
        str, typer.Option(help="the Butler's own expression, such as \"skymap = 'hsc_rings_v1'\"")
    ] = "",
) -> None:
    """Write a table of tiles from a Butler repository.

    Needs lsst.daf.butler, so an LSST environment; the table is for [survey] tiles.
    """
    from galbatch import ingest
    from galbatch.objects import tables

    table = ingest.tiles_from_butler(
        repo,
        collections=collections.split(","),
        dataset_type=dataset_type,
        bands=bands.split(","),
        where=where,
    )
    tables.write_table(output, table)
    out.print(f"{_counted(table.num_rows, 'tile')}: {output}", soft_wrap=True, highlight=False, markup=False)


@models_app.command("list")
def models_list(
    folder: Annotated[
        str | None,
        typer.Argument(metavar="DIR", help="folder or s3:// prefix whose bundles (.pt) are listed too"),
    ] = None,
) -> None:
    """List the bundles shipped with galbatch, and those in a folder.

    Files that are no bundles, or are damaged, are listed with what is wrong with them.
    """
    from galbatch import models, storage

    found = models.demo_bundles()
    if folder is not None:
        files = storage.list_files(folder, suffix=".pt")
        if not files:
            raise UsageError(f"models list {folder}: there are no bundles (files *.pt) in it")
        found += [storage.join(folder, name) for name in files]
    heads = ("bundle", "name", "architecture", "bands", "grid", "parameters", "head", "sha256")
    table = Table(*heads, box=None, pad_edge=False)
    problems = [problem for problem in (_list_bundle(table, spec) for spec in found) if problem]
    # Wider than any terminal: lines are cut nowhere, so that a pipe gets them whole. Names may hold brackets.
    Console(width=WIDEST, highlight=False, markup=False, emoji=False).print(table, crop=False)
    for problem in problems:
        out.print(f"not usable: {problem}", soft_wrap=True, highlight=False, markup=False)


def _list_bundle(table: Table, spec: str) -> str | None:
    """Add a row for a bundle; returns what is wrong with it, if anything is."""
    from galbatch import models
    from galbatch.errors import BundleError

    try:
        bundle = models.load_bundle(models.bundle_path(spec), keep=False)
    except (BundleError, OSError) as error:
        table.add_row(spec, "not usable")
        return str(error)
    metadata = bundle.metadata
    members = f" x {metadata.members}" if metadata.members > 1 else ""
    table.add_row(
        spec,
        f"{metadata.name} {metadata.version}",
        metadata.architecture,
        " ".join(bundle.bands),
        bundle.grid.label,
        " ".join(parameter.name for parameter in metadata.parameters),
        metadata.head.kind + members,
        bundle.sha256[:12],
    )
    return None


@models_app.command("show")
def models_show(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="bundle file, or demo:gampen, demo:sfnet")],
    as_json: Annotated[bool, typer.Option("--json", help="all metadata as JSON, for programs")] = False,
) -> None:
    """Show a bundle's card: what it is, how it was made, how well it does, what it is for.

    On a terminal the card is laid out; into a file or a pipe it goes as Markdown.
    """
    import dataclasses
    import json

    from rich.markdown import Markdown

    from galbatch import models

    loaded = models.load_bundle(models.bundle_path(bundle))
    if as_json:
        content: dict[str, Any] = {"sha256": loaded.sha256, **dataclasses.asdict(loaded.metadata)}
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
        return
    card = models.card_text(loaded.metadata, loaded.sha256)
    if out.is_terminal:
        out.print(Markdown(card))
    else:
        sys.stdout.write(card)


@models_app.command("train")
def models_train(
    architecture: Annotated[str, typer.Argument(metavar="gampen|sfnet", help="gampen or sfnet")],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="bundle to write, .pt; its card, .md, and training curve, .png, come beside it",
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
    resume: Annotated[bool, typer.Option("--resume", help="go on from the checkpoint OUTPUT.ckpt")] = False,
    keep_checkpoint: Annotated[
        bool, typer.Option("--keep-checkpoint", help="leave the checkpoint there when all is done")
    ] = False,
) -> None:
    """Train a network on cutouts with labels, or on freshly simulated galaxies as the demo bundles are.

    The loss, transforms, split and default settings are the GaMPEN paper's. The state after each epoch is kept in OUTPUT.ckpt until the
    bundle is there. On a CPU a seed gives the same bits again at the same number of threads.
    """
    from galbatch.learning import train as fit

    source = fit.Source(store, labels, id_column, objects=objects, population=population)
    options = {"epochs": epochs, "seed": seed}
    task = fit.prepare(architecture, output, source=source, parent=parent, settings=settings, options=options)
    try:
        outcome = fit.train_bundle(
            task, device=device, resume=resume, keep_checkpoint=keep_checkpoint, console=out
        )
    except KeyboardInterrupt:
        raise typer.Exit(_stopped(fit.checkpoint_path(output))) from None
    best = outcome.trained.metadata.training
    out.print(
        f"kept epoch {best['best_epoch']}, validation loss {best['validation_loss']:.4f}\n"
        f"{output}, {outcome.card} and {outcome.curve}",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


def _stopped(checkpoint: Path) -> int:
    """Say how to go on with a training that was stopped."""
    what = f"add --resume to go on from {checkpoint}" if checkpoint.exists() else "no epoch was done"
    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"galbatch: stopped; {what}")
    return 130


Weights = Annotated[Path, typer.Option(metavar="FILE", help="published weights")]
BundleOutput = Annotated[Path, typer.Option("-o", "--output", metavar="BUNDLE", help="bundle to write")]


@convert_app.command("gampen")
def models_convert_gampen(
    weights: Weights,
    scaling: Annotated[
        Path, typer.Option(metavar="DIR", help="folder with info.csv and splits/<slug>-train.csv")
    ],
    slug: Annotated[str, typer.Option(help="split the labels' scaler was fitted on, such as balanced-dev2")],
    dropout: Annotated[
        float, typer.Option(help="dropout rate of the network, such as 4e-4", min=0, max=0.99)
    ],
    band: Annotated[str, typer.Option(help="band of the images")],
    output: BundleOutput,
    size_px: Annotated[
        int | None,
        typer.Option(help="side of the cutouts, of networks that are not of the released sizes", min=33),
    ] = None,
    pixel_scale_arcsec: Annotated[
        float, typer.Option(help="pixels of the images, arcsec", min=0.001)
    ] = 0.168,
    zero_point_mag: Annotated[float, typer.Option(help="AB zero point of the images and fluxes")] = 27.0,
    release: Annotated[str, typer.Option(help="data release of the training images")] = "pdr2",
    background: Annotated[str, typer.Option(help="what was done to their sky")] = "global sky",
    name: Annotated[str | None, typer.Option(help="of the bundle; gampen-<band> otherwise")] = None,
) -> None:
    """GaMPEN's released weights.

    A state dict, and the folder of tables that the labels' scaler follows from.
    """
    from galbatch import models

    conversion = models.GampenConversion(
        str(scaling),
        slug,
        dropout,
        band,
        size_px=size_px,
        pixel_scale_arcsec=pixel_scale_arcsec,
        zero_point_mag=zero_point_mag,
        release=release,
        background=background,
        name=name,
    )
    _print_converted(output, *models.convert_gampen(str(weights), str(output), conversion))


@convert_app.command("sfnet")
def models_convert_sfnet(
    weights: Weights,
    mean: Annotated[str, typer.Option(metavar="R,G,B", help="mean of each channel that was subtracted")],
    std: Annotated[str, typer.Option(metavar="R,G,B", help="standard deviation of each channel")],
    output: BundleOutput,
    mean_from: Annotated[
        str, typer.Option(metavar="TEXT", help="where mean and std come from, for the bundle's record")
    ] = "not stated",
    k: Annotated[
        int | None, typer.Option(help="features kept, where the file's name does not say", min=1)
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="bpt_lines or oh_p50 (metallicity), where the file's name does not say")
    ] = None,
    layer: Annotated[
        str,
        typer.Option(
            help="viewer's colors it was trained on: sdss (as released), legacy; none: pixels as they are"
        ),
    ] = "sdss",
    bands: Annotated[
        str | None,
        typer.Option(metavar="R,G,B", help="bands that become the channels; the layer's otherwise"),
    ] = None,
    size_px: Annotated[int, typer.Option(help="side of the cutouts", min=32)] = 144,
    pixel_scale_arcsec: Annotated[float, typer.Option(help="their pixels, arcsec", min=0.001)] = 0.262,
    zero_point_mag: Annotated[
        float | None, typer.Option(help="AB zero point of the pixels' unit, with --layer none")
    ] = None,
    name: Annotated[str | None, typer.Option(help="of the bundle; sfnet-<target> otherwise")] = None,
) -> None:
    """SFNet's released weights.

    A state dict, or the whole pickled module: it is read by an allow-list, and nothing in it is run. The mean and standard
    deviation that the network was trained with are in neither and must be given.
    """
    from galbatch import models

    of_colors = _three_numbers("--mean", mean), _three_numbers("--std", std)
    conversion = models.SfnetConversion(
        *of_colors,
        normalization_from=mean_from,
        layer=layer,
        bands=tuple(bands.split(",")) if bands else None,
        k=k,
        target=target,
        size_px=size_px,
        pixel_scale_arcsec=pixel_scale_arcsec,
        zero_point_mag=zero_point_mag,
        name=name,
    )
    _print_converted(output, *models.convert_sfnet(str(weights), str(output), conversion))


@convert_app.command("script")
def models_convert_script(
    weights: Annotated[Path, typer.Option(metavar="FILE", help="TorchScript file with forward(images)")],
    description: Annotated[
        Path, typer.Option(metavar="TOML", help="its input, head, parameters, dropout rate and stretch")
    ],
    output: BundleOutput,
) -> None:
    """A foreign TorchScript network.

    Its forward(images) is wrapped as the description says. TorchScript is a program: convert only files you trust.
    """
    from galbatch import models

    _print_converted(output, *models.convert_script(str(weights), str(description), str(output)))


def _three_numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"{option} {text}: expected three numbers with commas between, red, green, blue"
        ) from None
    if len(numbers) != 3:
        raise UsageError(f"{option} {text}: expected three numbers, red, green, blue; found {len(numbers)}")
    return numbers


def _print_converted(output: Path, sha256: str, metadata: Any) -> None:
    grid = f"{metadata.input.size_px} px at {metadata.input.pixel_scale_arcsec:g} arcsec"
    out.print(
        f"{output}: {metadata.name}, {', '.join(metadata.input.bands)}, {grid}; "
        f"{', '.join(parameter.name for parameter in metadata.parameters)}; sha256 {sha256[:12]}..",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
    if metadata.head.kind == "point" and metadata.dropout_rate == 0:
        out.print(
            "it has no dropout and no widths: the catalog gives values alone and flags them NO_POSTERIOR",
            soft_wrap=True,
            highlight=False,
        )


@models_app.command("calibrate")
def models_calibrate(
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
            help="bundle to write, .pt; its card, .md, and figure, _calibration.png, come beside it",
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
    beside: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BUNDLE",
            help="another bundle of the same parameters, whose residuals are shown beside; may be repeated",
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
    from galbatch import models
    from galbatch.config import PosteriorConfig
    from galbatch.learning import calibrate
    from galbatch.learning import train as fit

    settings = models.CalibrationSettings(
        dropout_rates=_rates(dropout), apply=apply, posterior=PosteriorConfig(passes=passes), seed=seed
    )
    source = fit.Source(store, labels, id_column, objects=objects, population=simulate)
    task = calibrate.prepare(
        bundles, output, source=source, settings=settings, beside=beside or (), also=also or ()
    )
    written = calibrate.calibrate_bundle(task, console=out)
    _print_results(written.calibration.tables_for_people())
    out.print(
        f"\n{output}, {written.card} and {written.figure}", soft_wrap=True, highlight=False, markup=False
    )


def _rates(text: str) -> tuple[float, ...]:
    """Numbers separated by commas."""
    try:
        return tuple(float(word) for word in text.split(",") if word.strip())
    except ValueError:
        raise UsageError(
            f"--dropout {text}: expected numbers separated by commas, such as 2e-4,7e-4"
        ) from None


def _exit_with(code: int) -> None:
    if code:
        raise typer.Exit(code)


def _print_result(result: Any, stage: str) -> None:
    if stage != "ingest":
        rate = result.n_inferred / result.seconds if result.seconds else 0.0
        out.print(f"{result.n_inferred} of {result.n_objects} objects in the catalog, {rate:.1f} galaxies/s")
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    for name, reason in sorted(result.failed.items()):
        errors.print(f"failed: {name}: {reason}")


def _print_results(tables: Any) -> None:
    """Print models.ResultTables, each below its caption; never cut, however narrow the terminal."""
    for result in tables:
        out.print(f"\n{result.caption}:", soft_wrap=True, highlight=False, markup=False)
        table = Table(box=None, pad_edge=False)
        for number, head in enumerate(result.columns):
            table.add_column(head, justify="right" if number else "left", no_wrap=True)
        for row in result.rows:
            table.add_row(
                *(
                    "" if cell is None else f"{cell:g}" if isinstance(cell, float) else str(cell)
                    for cell in row
                )
            )
        needed = out.measure(table, options=out.options.update(max_width=WIDEST)).maximum
        out.print(table, width=needed, crop=False, soft_wrap=True)


def _plan_table(config: Any, made: Any, rates: Any, inference: Any) -> Table:
    table = Table("", "", box=None, pad_edge=False, show_header=False)
    takes = made.projection
    sizes = sorted(part.partition.n_objects for part in made.partitions)
    rows = [
        ("objects", f"{len(made.objects)}, {made.rejected.num_rows} rejected"),
        ("tiles", f"{len(made.tiles)} in {_counted(len({tile.band for tile in made.tiles}), 'band')}"),
        *((f"cutouts {g.grid.label}", f"{g.n_cutouts} in {' '.join(g.bands)}") for g in made.grids),
        *((f"network {m.name}", _counted(m.n_selected, "object")) for m in made.models),
        ("partitions", f"{len(sizes)}, of {_span(sizes)}"),
        ("bytes read", f"{_size(takes.read_bytes)} of tiles"),
        (
            "read amplification",
            f"{made.read_amplification:.2f} (bytes read over bytes of the cutouts' pixels)",
        ),
        *([("S3 requests", f"{takes.requests} to read tiles")] if made.is_remote else []),
        ("bytes written", f"{_size(takes.write_bytes)} of cutouts"),
        (
            "memory to cut",
            f"{_size(made.worker_memory_bytes(config.cutouts.planes, store=config.cutouts.store))} a worker",
        ),
        ("memory to infer", f"{_size(inference.host_bytes)} a worker{_on_gpu(inference.device_bytes)}"),
        *rates.rows(made, config),
    ]
    for label, value in rows:
        table.add_row(label, value)
    return table


def _on_gpu(n_bytes: int) -> str:
    return f", and {_size(n_bytes)} on its GPU" if n_bytes else ""


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _span(sizes: list[int]) -> str:
    least, most = sizes[0], _counted(sizes[-1], "object")
    return most if least == sizes[-1] else f"{least} to {most}"


def _size(n_bytes: int) -> str:
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.2f} {unit}"
    return f"{n_bytes / 2**10:.2f} KiB"


if __name__ == "__main__":
    main()
