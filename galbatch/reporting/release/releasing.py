"""Writing a release beside a catalog: checksums of all files, tables of columns, texts; and its verification."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter

import pyarrow as pa

from galbatch import catalog, storage
from galbatch.core.columns import parse_columns
from galbatch.core.texts import counted
from galbatch.errors import CatalogError
from galbatch.reporting.release.columns import (
    LINE,
    FixedColumn,
    byte_by_byte,
    column_table,
    felis_schema,
    fixed_columns,
    text_widths,
)
from galbatch.reporting.release.texts import citations, methods

__all__ = ["Released", "release_folder", "write_release"]

CHECKSUMS, TABLE, README = "SHA256SUMS", "catalog.dat", "ReadMe"
READ_AT_ONCE = 2**24


@dataclass(frozen=True)
class Released:
    """A release that was written.

    Attributes
    ----------
    folder : where it is
    n_files : number of the catalog's files that have a checksum
    n_bytes : their size
    left_out : columns that the table of fixed width cannot hold
    """

    folder: str
    n_files: int
    n_bytes: int
    left_out: tuple[str, ...]


def release_folder(catalog_path: str) -> str:
    """Return the folder of a catalog's release, which lies beside the catalog: readers of HATS list what lies inside."""
    return f"{storage.absolute(catalog_path)}_release"


def write_release(catalog_path: str, *, with_table: bool = False) -> Released:
    """Verify a catalog, and write its release beside it.

    ``SHA256SUMS`` has every file of the catalog, by its path below it (``sha256sum -c``); ``columns.md`` and ``felis.yaml`` describe the
    columns, ``ReadMe`` does so byte by byte as the CDS asks; ``methods.md`` and ``citations.md`` are texts for a paper.

    Parameters
    ----------
    catalog_path : str
        A complete catalog.
    with_table : bool
        Write the table of fixed width, too, which the ReadMe describes: some 15 bytes for each number.

    Returns
    -------
    Released

    Raises
    ------
    CatalogError
        The catalog is not complete, or `galbatch.catalog.check` finds a problem; nothing was written.
    OutputError
        There is no space, or no permission to write.
    """
    properties = catalog.read_properties(catalog_path)
    if properties.get("galbatch_complete") != "true":
        raise CatalogError(f"{catalog_path}: is not complete; run galbatch run until it is, then release it")
    if problems := catalog.check(catalog_path).problems:
        more = f"\nand {len(problems) - 5} more: galbatch verify lists them" if len(problems) > 5 else ""
        raise CatalogError(
            "\n".join(
                [f"{catalog_path}: is not released: {counted(len(problems), 'problem')}", *problems[:5]]
            )
            + more
        )
    schema, folder = catalog.read_schema(catalog_path), release_folder(catalog_path)
    models = list(dict.fromkeys(model for model, _ in parse_columns(schema.names).values()))
    networks = [name for model in models for name in catalog.networks_of(properties, model)]
    widths = _text_widths(catalog_path)
    fixed = fixed_columns(schema, widths)
    name, sums = properties["obs_collection"], list(_checksums(catalog_path))
    title = f"{name}: posteriors of galaxies"
    files = {
        CHECKSUMS: "".join(f"{sha256}  {path}\n" for path, _, sha256 in sums),
        "columns.md": column_table(schema),
        "felis.yaml": felis_schema(schema, widths, name=name, description=title),
        README: _readme(title, properties, fixed),
        "methods.md": methods(properties, networks, len(schema)),
        "citations.md": citations(properties, networks),
    }
    for file, text in files.items():
        storage.publish(storage.join(folder, file), text.encode())
    if with_table:
        storage.publish(storage.join(folder, TABLE), _fixed_table(catalog_path, fixed))
    there = {column.name for column in fixed}
    left_out = tuple(one for one in schema.names if one not in there)
    return Released(folder, len(sums), sum(size for _, size, _ in sums), left_out)


def _checksums(catalog_path: str) -> Iterator[tuple[str, int, str]]:
    """Yield path below the catalog, size and sha256 of each of its files, in the order of their paths."""
    for path in sorted(storage.list_files(catalog_path, suffix="")):
        digest, size = hashlib.sha256(), 0
        with storage.open_file(storage.join(catalog_path, path)) as file:
            while data := file.read(READ_AT_ONCE):
                digest.update(data)
                size += len(data)
        yield path, size, digest.hexdigest()


def _tables(catalog_path: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
    leaves = sorted(catalog.list_leaves(catalog_path), key=attrgetter("index_range"))
    yield from catalog.scan(catalog_path, leaves, columns=columns)


def _text_widths(catalog_path: str) -> dict[str, int]:
    texts = [field.name for field in catalog.read_schema(catalog_path) if pa.types.is_string(field.type)]
    widths: dict[str, int] = {}
    for table in _tables(catalog_path, texts) if texts else ():
        for name, width in text_widths(table).items():
            widths[name] = max(width, widths.get(name, 1))
    return widths


def _fixed_table(catalog_path: str, columns: list[FixedColumn]) -> bytes:
    found = io.StringIO()
    for table in _tables(catalog_path, [column.name for column in columns]):
        texts = [column.texts(table.column(column.name)) for column in columns]
        found.writelines(" ".join(row) + "\n" for row in zip(*texts, strict=True))
    return found.getvalue().encode()


def _readme(title: str, properties: Mapping[str, str], columns: list[FixedColumn]) -> str:
    """Return the ReadMe of the CDS: title, authors, summary of the files, and the description of the table byte by byte."""
    stated = {key: properties.get(f"galbatch_{key}", "") for key in ("authors", "bibcode", "doi", "license")}
    length = columns[-1].first + columns[-1].width - 1
    rule = "=" * LINE
    about = [
        f"={stated['bibcode']}" if stated["bibcode"] else "",
        f"doi:{stated['doi']}" if stated["doi"] else "",
    ]
    lines = [
        f"{title}",
        rule,
        title,
        f"     {stated['authors'] or 'authors are not stated'}",
        *(f"    <{text}>" if text.startswith("doi") else f"    {text}" for text in about if text),
        rule,
        "ADC_Keywords: Galaxies ; Morphology",
        "",
        "Description:",
        f"    Posteriors of {properties['hats_nrows']} objects. License: {stated['license'] or 'not stated'}.",
        "",
        "File Summary:",
        "-" * LINE,
        " FileName      Lrecl  Records   Explanations",
        "-" * LINE,
        f"ReadMe            {LINE}        .   This file",
        f"{TABLE:<14}{length:>6}{properties['hats_nrows']:>9}   The catalog",
        "-" * LINE,
        "",
    ]
    return "\n".join([*lines, byte_by_byte(columns, TABLE), rule, ""])
