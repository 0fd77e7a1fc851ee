"""Arguments and options that several commands share, and the parser of options that hold several numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from galbatch.errors import UsageError

__all__ = [
    "LOG_FORMATS",
    "NUMBERS_BEGIN_WITH_MINUS",
    "RENAMED_OPTIONS",
    "CatalogPath",
    "ClusterKind",
    "ColumnsTable",
    "CutoutStore",
    "IdColumn",
    "LabelsTable",
    "LogFormat",
    "ObjectIds",
    "RunToml",
    "Scheduler",
    "TableOutput",
    "WaitLock",
    "Workers",
    "parse_numbers",
    "parse_pairs",
    "refuse_options",
]

RENAMED_OPTIONS = {"--beside": "--compare-with"}
"""Maps each renamed option to its new name; old options are refused with an error that gives the new name."""

# Catalogs are text, not Path: pathlib would make one slash of the two in s3://.
RunToml = Annotated[Path, typer.Argument(metavar="RUN.toml", help="the run's config file")]
CatalogPath = Annotated[
    str, typer.Argument(metavar="CATALOG", help="folder of a HATS catalog made by galbatch")
]
ObjectIds = Annotated[
    list[str],
    typer.Argument(
        metavar="OBJECT_ID...",
        help="ids of objects of the catalog, integers or text, or names in its kept columns of text",
    ),
]
TableOutput = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="write Parquet, FITS, VOTable, ECSV or CSV instead of printing, by the suffix",
    ),
]
CutoutStore = Annotated[
    str | None,
    typer.Option(metavar="STORE", help="cutout store of the run; default: that which the catalog states"),
]
LabelsTable = Annotated[
    str | None,
    typer.Option(
        metavar="TABLE",
        help="table with a column of ids and the true parameters; with --store, or alone for a network on columns",
    ),
]
ColumnsTable = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="TABLE",
        help="table with a column of ids and the auxiliary inputs; default: they are in the table of labels",
    ),
]
IdColumn = Annotated[
    str, typer.Option("--id", metavar="COLUMN", help="column of the ids in the table of labels")
]
ClusterKind = Annotated[
    str | None,
    typer.Option(metavar="KIND", help="where workers come from; overrides [cluster] kind"),
]
Scheduler = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="join a running Dask scheduler, such as tcp://10.0.0.1:8786"),
]
WaitLock = Annotated[
    bool,
    typer.Option(
        "--wait-lock", help="wait for another run that writes the same outputs, instead of refusing"
    ),
]
LOG_FORMATS = ("text", "json")
"""Forms in which a run shows its progress where there is no terminal: human-readable lines, or one JSON object a line."""

LogFormat = Annotated[
    str,
    typer.Option(help="text (bars on a terminal, elsewhere a line a minute) or json (each event as a line)"),
]
Workers = Annotated[int | None, typer.Option(help="worker processes; overrides [cluster] workers", min=1)]


NUMBERS_BEGIN_WITH_MINUS = {"ignore_unknown_options": True}
"""Settings of commands whose arguments may be negative numbers, which would be taken for options."""


def refuse_options(command: str, words: Sequence[str]) -> None:
    """Refuse arguments that were meant as options: a command with `NUMBERS_BEGIN_WITH_MINUS` gets unknown ones as arguments.

    Raises
    ------
    UsageError
        A word begins with two dashes, or is a dash and a letter.
    """
    for word in words:
        if word.startswith("--") or (len(word) == 2 and word[0] == "-" and word[1].isalpha()):
            raise UsageError(f"{word}: no such option; galbatch {command} --help lists them")


def parse_numbers(option: str, text: str, expected: str) -> tuple[float, ...]:
    """Return the numbers in an option's text, which are separated by commas.

    Parameters
    ----------
    option : str
        Name of the option, for the error message.
    text : str
        Text such as ``2e-4,7e-4``; empty text holds no numbers.
    expected : str
        Description of a right value, for the error message.

    Raises
    ------
    UsageError
        A part of the text is not a number.
    """
    # Click has options with several values, but they take either a fixed number or the option again for each.
    try:
        return tuple(float(word) for word in text.split(",") if word.strip())
    except ValueError:
        raise UsageError(f"{option} {text}: expected {expected}") from None


def parse_pairs(option: str, texts: Sequence[str], expected: str) -> dict[str, str]:
    """Return the values of an option that may be given again, as ``NAME=VALUE``, by their names.

    Parameters
    ----------
    option : str
        Name of the option, for the error message.
    texts : sequence of str
        What the user gave, one text for each time.
    expected : str
        Description of a right text, for the error message.

    Raises
    ------
    UsageError
        A text has no ``=``, or nothing before or after it; or a name is given twice.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        name, value = (part.strip() for part in text.partition("=")[::2])
        if not name or not value:
            raise UsageError(f"{option} {text}: expected {expected}")
        if name in pairs:
            raise UsageError(f"{option} {text}: {name} is given twice; leave one of the two out")
        pairs[name] = value
    return pairs
