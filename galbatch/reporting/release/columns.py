"""The columns of a released catalog: as a table in Markdown, as a Felis schema, and byte by byte for the CDS."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from galbatch.core.columns import ID, OWN_COLUMNS

__all__ = ["FixedColumn", "byte_by_byte", "column_table", "felis_schema", "fixed_columns", "text_widths"]

FELIS_TYPES = {
    pa.bool_(): "boolean",
    pa.int8(): "short",
    pa.int16(): "short",
    pa.int32(): "int",
    pa.int64(): "long",
    pa.float32(): "float",
    pa.float64(): "double",
}
"""Felis' name of each type; https://felis.lsst.io. Columns of text have their own length; others are left out."""

# Width and format of Python and of Fortran: 9 digits give a float32 back, 17 a float64. Integers take sign and digits.
FIXED_FORMATS = {
    pa.int8(): (4, "4d", "I4"),
    pa.int16(): (6, "6d", "I6"),
    pa.int32(): (11, "11d", "I11"),
    pa.int64(): (20, "20d", "I20"),
    pa.float32(): (15, "15.8E", "E15.8"),
    pa.float64(): (24, "24.16E", "E24.16"),
}

LINE = 80
"""Characters of a line of a ReadMe, as the CDS asks: https://cds.unistra.fr/doc/catstd.htx"""


def described(field: pa.Field, key: str) -> str:
    """Return an entry of a column's field metadata: unit, description or ucd; "" if it has none."""
    return (field.metadata or {}).get(key.encode(), b"").decode()


def column_table(schema: pa.Schema) -> str:
    """Return the columns as a table in Markdown."""
    rows = [
        f"| `{field.name}` | {field.type} | {described(field, 'unit')} | {described(field, 'ucd')} | "
        f"{described(field, 'description').replace('|', '/')} |"
        for field in schema
    ]
    return "\n".join(["| column | type | unit | UCD | meaning |", "|---|---|---|---|---|", *rows]) + "\n"


def felis_schema(schema: pa.Schema, widths: dict[str, int], *, name: str, description: str) -> str:
    """Return the Felis schema of the catalog, from which a TAP service is made; JSON, which is YAML as well.

    Parameters
    ----------
    schema : pyarrow.Schema
    widths : dict of str
        Number of characters of the longest value of each column of text.
    name, description : str
        Of the schema.
    """
    columns = []
    own = {column.name for column in OWN_COLUMNS}
    for field in schema:
        if field.type not in FELIS_TYPES and field.name not in widths:
            continue
        kind: dict[str, object] = {"datatype": FELIS_TYPES.get(field.type, "string")}
        if field.name in widths:
            kind |= {"length": max(widths[field.name], 1)}
        stated = {
            "description": described(field, "description") or field.name,
            "ivoa:ucd": described(field, "ucd"),
            "ivoa:unit": described(field, "unit"),
        }
        known = {key: value for key, value in stated.items() if value}
        columns.append(
            {
                "name": field.name,
                "@id": f"#catalog.{field.name}",
                **kind,
                "nullable": field.name not in own,
                **known,
            }
        )
    table = {
        "name": "catalog",
        "@id": "#catalog",
        "description": description,
        "primaryKey": f"#catalog.{ID.name}",
        "columns": columns,
    }
    return (
        json.dumps({"name": name, "@id": f"#{name}", "description": description, "tables": [table]}, indent=1)
        + "\n"
    )


@dataclass(frozen=True)
class FixedColumn:
    """A column of a table of fixed width, as the CDS keeps catalogs.

    Attributes
    ----------
    name, unit, description : the column's
    first, width : its first byte, from 1, and number of bytes
    form : how Python writes a value
    fortran : how Fortran names that, which is the format of the ReadMe
    """

    name: str
    unit: str
    description: str
    first: int
    width: int
    form: str
    fortran: str

    def texts(self, values: pa.ChunkedArray) -> list[str]:
        """Return the values as text of the column's width; a missing value is blank."""
        if self.fortran.startswith("A"):
            return [(value or "").ljust(self.width) for value in values.to_pylist()]
        blank = " " * self.width
        return [
            blank if value is None or value != value else format(value, self.form)
            for value in values.to_pylist()
        ]

    def lines(self) -> Iterator[str]:
        """Yield the column's lines of a byte-by-byte description."""
        last = self.first + self.width - 1
        place = f"{last:>8}" if self.width == 1 else f"{self.first:>4}-{last:>3}"
        head = f"{place} {self.fortran:<7}{self.unit or '---':<9}{self.name} "
        # A question mark says that a value can be missing.
        text = f"? {self.description}" if self.fortran[0] in "EI" else self.description
        yield from textwrap.wrap(
            text,
            LINE,
            initial_indent=head,
            subsequent_indent=" " * 27,
            break_on_hyphens=False,
            break_long_words=False,
        )


def fixed_columns(schema: pa.Schema, widths: dict[str, int]) -> list[FixedColumn]:
    """Return the columns as those of a table of fixed width; lists, dates and other types that it cannot hold are left out."""
    columns: list[FixedColumn] = []
    first = 1
    for field in schema:
        if field.name in widths:
            width = max(widths[field.name], 1)
            form, fortran = "", f"A{width}"
        elif field.type in FIXED_FORMATS:
            width, form, fortran = FIXED_FORMATS[field.type]
        else:
            continue
        description = described(field, "description") or "as in the object list"
        unit = described(field, "unit")
        columns.append(FixedColumn(field.name, unit, description, first, width, form, fortran))
        first += width + 1
    return columns


def text_widths(table: pa.Table) -> dict[str, int]:
    """Return the number of bytes of the longest value of each column of text."""
    return {
        field.name: pc.max(pc.binary_length(table.column(field.name))).as_py() or 1
        for field in table.schema
        if pa.types.is_string(field.type)
    }


def byte_by_byte(columns: Sequence[FixedColumn], file: str) -> str:
    """Return the byte-by-byte description of a table of fixed width."""
    rule = "-" * LINE
    body = [line for column in columns for line in column.lines()]
    head = f"{'Bytes':>8} {'Format':<7}{'Units':<9}Label     Explanations"
    return "\n".join([f"Byte-by-byte Description of file: {file}", rule, head, rule, *body, rule, ""])
