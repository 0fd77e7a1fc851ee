"""Arguments and options that several commands share, and the text of options that hold numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from galbatch.errors import UsageError

__all__ = ["RENAMED_OPTIONS", "CatalogPath", "IdColumn", "LabelsTable", "RunToml", "Workers", "parse_numbers"]

RENAMED_OPTIONS = {"--beside": "--compare-with"}
"""New name of each renamed option; an old one is refused with an error that names the new one."""

RunToml = Annotated[Path, typer.Argument(metavar="RUN.toml", help="the run's config file")]
CatalogPath = Annotated[
    str, typer.Argument(metavar="CATALOG", help="folder of a HATS catalog made by galbatch")
]
LabelsTable = Annotated[
    str | None, typer.Option(metavar="TABLE", help="with --store: table with an id and the true parameters")
]
IdColumn = Annotated[str, typer.Option("--id", metavar="COLUMN", help="column of the labels' ids")]
Workers = Annotated[int | None, typer.Option(help="worker processes; overrides [cluster] workers", min=1)]


def parse_numbers(option: str, text: str, expected: str) -> tuple[float, ...]:
    """Return the numbers of an option's text, separated by commas.

    Parameters
    ----------
    option : its name, for the message
    text : such as ``2e-4,7e-4``; empty text holds no numbers
    expected : what the message says should have been given

    Raises
    ------
    UsageError
        A word is no number.
    """
    try:
        return tuple(float(word) for word in text.split(",") if word.strip())
    except ValueError:
        raise UsageError(f"{option} {text}: expected {expected}") from None
