"""ECSV: astropy's CSV files, whose comments before the names state types and units (Astropy Proposal for Enhancement 6)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
from astropy.table.meta import get_header_from_yaml

from galbatch.objects.tables.columns import errors_of_astropy
from galbatch.objects.tables.units import units_in_yaml

__all__ = ["EcsvHeader", "ecsv_header"]

FIRST_LINE = b"# %ECSV"

TYPES = {
    "bool": pa.bool_(),
    "string": pa.string(),
    "float16": pa.float32(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "float128": pa.float64(),
    **{
        f"{sign}int{bits}": getattr(pa, f"{sign}int{bits}")()
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}


@dataclass(frozen=True)
class EcsvHeader:
    """The statements of an ECSV file about its columns.

    Attributes
    ----------
    delimiter : between the columns
    types : of columns, as far as Arrow has them; arrays are text
    units, descriptions : of the columns that have one
    arrays : names of the columns whose cells are arrays, as JSON
    """

    delimiter: str
    types: Mapping[str, pa.DataType]
    units: Mapping[str, str]
    descriptions: Mapping[str, str]
    arrays: frozenset[str]

    def described(self, table: pa.Table) -> pa.Table:
        """Return columns of the file with their arrays as lists, and with units and descriptions in the field metadata."""
        for index, name in enumerate(table.column_names):
            column = table.column(name)
            if name in self.arrays:
                cells = [None if text is None else json.loads(text) for text in column.to_pylist()]
                column = pa.chunked_array([pa.array(cells)])
            stated = {"unit": self.units.get(name), "description": self.descriptions.get(name)}
            metadata = {key: value for key, value in stated.items() if value}
            table = table.set_column(index, pa.field(name, column.type, metadata=metadata), column)
        return table


def ecsv_header(data: bytes) -> tuple[EcsvHeader, bytes] | None:
    """Return the header of an ECSV file, and its line of names with the rows; None if it is another CSV file.

    Raises
    ------
    OSError
        The header is damaged.
    """
    if not data.startswith(FIRST_LINE):
        return None
    lines = []
    while data.startswith(b"#"):
        line, _, data = data.partition(b"\n")
        lines.append(line[1:].removeprefix(b" ").rstrip(b"\r"))
    yaml = b"\n".join(lines[1:])
    with errors_of_astropy():
        header = get_header_from_yaml(yaml.decode().splitlines())
        columns = {column["name"]: column for column in header["datatype"]}
        return EcsvHeader(
            delimiter=header.get("delimiter", " "),
            types={
                name: TYPES[column["datatype"]]
                for name, column in columns.items()
                if column["datatype"] in TYPES
            },
            units=units_in_yaml(yaml),
            descriptions={name: str(column.get("description") or "") for name, column in columns.items()},
            arrays=frozenset(
                name for name, column in columns.items() if str(column.get("subtype", "")).endswith("]")
            ),
        ), data
