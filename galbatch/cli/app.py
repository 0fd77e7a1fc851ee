"""The command line's entry point: the tree of commands, and how errors become messages and exit codes.

Exit codes: 0, everything was done. 1, some partitions or a check failed. 2, bad usage, config or input; nothing was
started. 75, stopped by SIGTERM or SIGINT (Ctrl-C): the same command continues.

Each command imports what it needs inside its function, so that ``galbatch --help`` does not load torch or Dask.
"""

from __future__ import annotations

import io
import sys
from typing import Annotated, Any

import typer
import typer.core

from galbatch import __version__
from galbatch.cli import (
    browsing,
    catalogs,
    collections,
    comparing,
    doctor,
    objects,
    releasing,
    running,
    simulating,
    tiles,
)
from galbatch.cli.bundles import converting, information, listing, training
from galbatch.cli.options import NUMBERS_BEGIN_WITH_MINUS, RENAMED_OPTIONS
from galbatch.cli.printing import print_error, print_line
from galbatch.core.process import STOPPED_EXIT_CODE, signals_interrupt
from galbatch.errors import GalbatchError, Stopped, UsageError

__all__ = ["app", "main"]


class Commands(typer.core.TyperGroup):
    """The outermost group of commands: it refuses renamed options and prints a message when a signal stops a command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # This group sees the words of the whole command line first. Left to the command, the error would be "no such option"
        # without the new name. Options may be written as --option=value, too.
        for word in args:
            option = word.partition("=")[0]
            if option in RENAMED_OPTIONS:
                raise UsageError(f"{option}: renamed; write {RENAMED_OPTIONS[option]}")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            with signals_interrupt(typer.Exit):
                return super().invoke(ctx)
        except KeyboardInterrupt:
            # typer would end silently.
            print_error("galbatch: stopped; what is done stays, the same command continues from there")
            raise typer.Exit(STOPPED_EXIT_CODE) from None


def _group(help_text: str, **options: Any) -> typer.Typer:
    # Without rich markup, brackets in help texts, such as [survey], are printed.
    return typer.Typer(help=help_text, no_args_is_help=True, rich_markup_mode=None, **options)


app = _group(
    "Survey-scale Bayesian inference on galaxy images: tiles and objects in, a HATS catalog of posteriors out.",
    name="galbatch",
    cls=Commands,
    # typer's own tracebacks print local variables, which may hold credentials.
    pretty_exceptions_enable=False,
)
# The order of these lines is the order in --help: first what makes a run, then what reads its catalog.
app.command()(simulating.demo)
app.command()(simulating.simulate)
app.command()(doctor.doctor)
app.command()(running.plan)
app.command()(running.run)
app.command()(running.retry)
app.command()(running.status)
app.command()(running.clean)
app.command()(releasing.area)
app.command()(releasing.inject)
app.command()(releasing.merge)
app.command()(releasing.release)
app.command()(catalogs.verify)
app.command()(catalogs.report)
app.command()(browsing.browse)
app.command(context_settings=NUMBERS_BEGIN_WITH_MINUS)(catalogs.cone)
app.command(context_settings=NUMBERS_BEGIN_WITH_MINUS)(catalogs.show)
app.command()(catalogs.columns)
app.command()(catalogs.flags)
app.command()(comparing.compare)
app.command(context_settings=NUMBERS_BEGIN_WITH_MINUS)(catalogs.cutout)
app.command(context_settings=NUMBERS_BEGIN_WITH_MINUS)(catalogs.draws)
app.command(context_settings=NUMBERS_BEGIN_WITH_MINUS)(catalogs.similar)

catalog_app = _group("Make what other tools need of a catalog: margin, index of ids, footprint.")
app.add_typer(catalog_app, name="catalog")
catalog_app.command()(collections.margin)
catalog_app.command()(collections.index)
catalog_app.command()(collections.moc)
catalog_app.command()(collections.hips)
catalog_app.command()(collections.qp)

models_app = _group("List, show, train and convert model bundles.")
app.add_typer(models_app, name="models")
models_app.command("list")(listing.list_bundles)
models_app.command("show")(listing.show)
models_app.command("train")(training.train)
models_app.command("calibrate")(training.calibrate)
models_app.command("information")(information.information)

convert_app = _group("Make bundles of weights that others published.")
models_app.add_typer(convert_app, name="convert")
convert_app.command()(converting.gampen)
convert_app.command()(converting.sfnet)
convert_app.command()(converting.script)

tiles_app = _group("Make tables of tiles.")
app.add_typer(tiles_app, name="tiles")
tiles_app.command("from-butler")(tiles.from_butler)

objects_app = _group("Check and make object lists.")
app.add_typer(objects_app, name="objects")
objects_app.command("check")(objects.check)
objects_app.command("from-butler")(objects.from_butler)


def main() -> None:
    """Run the command in ``sys.argv``; errors are printed on stderr, without a traceback unless ``--debug`` is given."""
    # An error while arguments are parsed comes before _options is called, so --debug is looked up in sys.argv.
    debug = "--debug" in sys.argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Cards have letters such as a Greek sigma: a terminal of ASCII shows ? for them.
            stream.reconfigure(errors="replace")
    try:
        app(prog_name="galbatch")
    except Stopped as error:
        print_error(f"galbatch: {error}")
        sys.exit(STOPPED_EXIT_CODE)
    except GalbatchError as error:
        if debug:
            raise
        print_error(f"galbatch: {error}")
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except OSError as error:
        # An input or output as a whole cannot be used. I/O errors of single partitions do not come here: a run
        # collects them and continues.
        if debug:
            raise
        print_error(
            f"galbatch: {error}; disk or network failed: what is done stays, the same command continues from there"
        )
        sys.exit(1)


def _show_version(value: bool) -> None:
    if value:
        print_line(f"galbatch {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    # Declared for --help and so that they are accepted before the command's name; the values are used elsewhere.
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of errors")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="show the version")
    ] = False,
) -> None:
    pass


if __name__ == "__main__":
    main()
