"""The commands galbatch models list and show, which print the metadata of bundles."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from galbatch.cli.printing import out, print_line, print_markdown, print_table
from galbatch.errors import BundleError, UsageError

__all__ = ["list_bundles", "show"]


def list_bundles(
    folder: Annotated[
        str | None,
        typer.Argument(metavar="DIR", help="folder or s3:// prefix; its bundles (.pt) are listed, too"),
    ] = None,
) -> None:
    """List the bundles shipped with galbatch, and those in a folder.

    Files that are damaged or are not bundles are listed with the reason. Only metadata are read: nothing in a bundle is run.
    """
    from galbatch import models, storage

    found = models.demo_bundles()
    if folder is not None:
        files = storage.list_files(folder, suffix=".pt")
        if not files:
            # A misspelled prefix on S3 is an empty folder: without this error the list would look complete.
            raise UsageError(f"models list {folder}: there are no bundles (files *.pt) in it")
        found += [storage.join(folder, name) for name in files]
    heads = ("bundle", "name", "architecture", "bands", "grid", "parameters", "head", "sha256")
    rows: list[tuple[str, ...]] = []
    problems = []
    for spec in found:
        try:
            rows.append(_row(spec))
        except (BundleError, OSError) as error:
            rows.append((spec, "not usable", *[""] * (len(heads) - 2)))
            # Reasons are long: they follow below the table.
            problems.append(str(error))
    print_table(heads, rows)
    for problem in problems:
        print_line(f"not usable: {problem}")


def _row(spec: str) -> tuple[str, ...]:
    """Return the cells of one row of the list: the bundle at `spec`, a path or demo:NAME."""
    from galbatch import models

    metadata, sha256 = models.read_bundle_metadata(models.bundle_path(spec))
    members = f" x {metadata.members}" if metadata.members > 1 else ""
    return (
        spec,
        f"{metadata.name} {metadata.version}",
        metadata.architecture,
        " ".join(metadata.input.all_bands),
        " ".join(one.grid.label for one in metadata.input.images),
        " ".join(parameter.name for parameter in metadata.parameters),
        metadata.head.kind + members,
        sha256[:12],
    )


def show(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="bundle file, or demo:gampen, demo:sfnet")],
    full: Annotated[bool, typer.Option("--full", help="the whole card also on a terminal")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="all metadata as JSON, for programs")] = False,
) -> None:
    """Show a bundle's model card: input, parameters, training, calibration and intended use.

    A terminal shows a summary that fits on it, and with --full all of the card; a file or pipe gets the card as Markdown.
    Nothing in the bundle is run.
    """
    import dataclasses
    import json

    from galbatch import models

    metadata, sha256 = models.read_bundle_metadata(models.bundle_path(bundle))
    if as_json:
        content = {"sha256": sha256, **dataclasses.asdict(metadata)}
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
        return
    if out.is_terminal and not full:
        print_table(("", ""), models.card_summary(metadata, sha256), prose=True)
        print_line("\nresults, settings and the domain in full: --full")
        return
    card = models.card_text(metadata, sha256)
    if out.is_terminal:
        print_markdown(card)
    else:
        sys.stdout.write(card)
