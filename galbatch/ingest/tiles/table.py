"""The table of tiles: its columns, what a row says of a file, and the planes that it names in other files."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from galbatch import storage
from galbatch.config import SurveyConfig
from galbatch.core.types import FileIdentity, Tile, WeightKind
from galbatch.core.urls import is_absolute
from galbatch.errors import ObjectListError, TileError
from galbatch.ingest.headers import add_plane
from galbatch.ingest.layouts import matching_band, with_mask_bits
from galbatch.ingest.pixels import open_fits
from galbatch.objects import read_table
from galbatch.storage import FileAccessLog

__all__ = ["TABLE_COLUMNS", "TileRow", "read_rows", "with_planes"]

Role = Literal["mask", "weight", "psf"]
ROLES: tuple[Role, ...] = typing.get_args(Role)

NUMBERS = ("psf_fwhm_arcsec", "zero_point_mag")
HDUS = ("hdu", *(f"{role}_hdu" for role in ROLES))
# Of these, integers are as good as text: ids, numbers of HDUs, WISE's bands.
TEXT_OR_INTEGER = ("band", "tile_id", *HDUS)
TABLE_COLUMNS = (
    *("path", "band", "tile_id", *NUMBERS, "release", "background", "hdu"),
    *("mask", "mask_hdu", "weight", "weight_hdu", "weight_kind", "psf", "psf_hdu"),
)
"""Columns of a table of tiles; all but `path` may be left out, and be empty in a row."""


@dataclass(frozen=True, slots=True)
class TileRow:
    """A row of a table of tiles: the file, and what else the row says of it, by the name of the column."""

    path: str
    stated: tuple[tuple[str, Any], ...]

    @property
    def paths(self) -> list[str]:
        """The file, and those of its planes that the row names."""
        return [self.path, *(str(value) for name, value in self.stated if name in ROLES)]


def read_rows(survey: SurveyConfig) -> list[TileRow]:
    """Return the rows of the table of tiles that are of the survey's bands, with full paths and the bands' names in run.toml.

    Raises
    ------
    TileError
        The table cannot be read, has wrong columns, or values that cannot be.
    """
    folder = survey.tiles.rpartition("/")[0]
    rows = []
    for row in _table(survey.tiles).to_pylist():
        stated = {name: _value(name, value, folder) for name, value in row.items() if _is_stated(value)}
        if "\0" in str(stated["path"]):
            raise TileError(
                f"{survey.tiles}: path {stated['path']!r} has a null byte; the table is damaged: make it again"
            )
        if "band" in stated:
            band = matching_band(stated["band"], survey.bands)
            if band is None:
                continue
            stated["band"] = band
        if "hdu" in stated and survey.layout != "generic":
            raise TileError(f"{survey.tiles}: column hdu is read for layout generic only; take it out")
        # Sorted, as the text of a row is a part of its key in the tile index: columns may come in any order.
        rows.append(TileRow(stated.pop("path"), tuple(sorted(stated.items()))))
    return rows


def _value(name: str, value: Any, folder: str) -> Any:
    """Return a cell's value: a number, the number or name of an HDU, a full path, or text."""
    if name in NUMBERS:
        return float(value)
    # pandas makes integers beside empty cells floats.
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    if name in HDUS:
        return int(text) if text.isdecimal() else text
    if name == "path" or name in ROLES:
        return text if is_absolute(text) else storage.join(folder, text)
    return text


def with_planes(tile: Tile, stated: Mapping[str, Any], survey: SurveyConfig, files: FileAccessLog) -> Tile:
    """Return the tile with the mask, weight and PSF map that its row in the table of tiles names.

    A row may name a file, an HDU, or both; without a file it is one of the image's own, without an HDU the file's
    first image. Which HDUs were chosen counts for the tile's identity.

    Raises
    ------
    TileError
        A plane cannot be read, is of another shape than the image, or the meaning of its values is unknown.
    """
    for role in ROLES:
        if role not in stated and f"{role}_hdu" not in stated:
            continue
        path, hdu = stated.get(role, tile.image.path), stated.get(f"{role}_hdu")
        if role == "weight":
            tile = dataclasses.replace(tile, weight_kind=_weight_kind(tile, stated, survey))
        tile = add_plane(tile, role, path, files, hdu=hdu)
        if role == "mask" and tile.mask is not None:
            with open_fits(path, files) as hdus:
                tile = with_mask_bits(tile, survey, hdus)
    chosen = {name: stated[name] for name in (*HDUS, "weight_kind") if name in stated}
    if not chosen or tile.identity is None:
        return tile
    # Another HDU of unchanged files is another tile: without this, an old output would be taken for one of it.
    version = hashlib.sha256(f"{tile.identity.version} {json.dumps(chosen)}".encode()).hexdigest()[:32]
    return dataclasses.replace(tile, identity=FileIdentity(tile.identity.size_bytes, version))


def _weight_kind(tile: Tile, stated: Mapping[str, Any], survey: SurveyConfig) -> WeightKind:
    """Return the kind of a row's weights: as the row says, else as [survey.generic] does."""
    if "weight_kind" in stated:
        kind: WeightKind = stated["weight_kind"]
        return kind
    if survey.layout == "generic":
        return survey.generic.weight_kind
    raise TileError(
        f"{tile.where}: {survey.tiles} names a weight and not what it is; add the column weight_kind, one of "
        f"{', '.join(typing.get_args(WeightKind))}"
    )


def _table(path: str) -> pa.Table:
    """Return the table of tiles, with all columns and values checked."""
    try:
        table = read_table(path)
    except ObjectListError as error:
        raise TileError(f"[survey] tiles: {error}") from None
    known = ", ".join(TABLE_COLUMNS)
    if "path" not in table.column_names:
        raise TileError(
            f"{path}: a table of tiles needs a column path; there are {', '.join(table.column_names)}; known are {known}"
        )
    unknown = [name for name in table.column_names if name not in TABLE_COLUMNS]
    if unknown:
        near = difflib.get_close_matches(unknown[0], TABLE_COLUMNS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise TileError(f"{path}: unknown columns {', '.join(unknown)}; {hint}known are {known}")
    _require_kinds(path, table)
    _require_values(path, table)
    n_with_path = sum(map(_is_stated, table.column("path").to_pylist()))
    if not len(table) or n_with_path < len(table):
        raise TileError(f"{path}: {n_with_path} of {len(table)} rows have a path; all need one")
    return table


def _require_kinds(path: str, table: pa.Table) -> None:
    """Raise unless columns hold numbers or text as expected."""
    for field in table.schema:
        integer = pa.types.is_integer(field.type)
        number = integer or pa.types.is_floating(field.type)
        text = pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        # Columns without any value have no type in CSV; ids that are numbers stay what they say.
        good = number if field.name in NUMBERS else text or (number and field.name in TEXT_OR_INTEGER)
        if not (good or pa.types.is_null(field.type)):
            expected = "numbers" if field.name in NUMBERS else "text"
            raise TileError(f"{path}: column {field.name} holds {field.type}, expected {expected}")


def _require_values(path: str, table: pa.Table) -> None:
    """Raise unless PSF widths are positive, and kinds of weights are known, where a row has one."""
    for name, what in (("psf_fwhm_arcsec", "width"), ("weight_kind", "weight kind")):
        values = table.column(name).to_pylist() if name in table.column_names else []
        wrong = [
            (row, value)
            for row, value in enumerate(values)
            if _is_stated(value)
            and not (value in typing.get_args(WeightKind) if isinstance(value, str) else 0 < value < math.inf)
        ]
        if wrong:
            raise TileError(
                f"{path}: column {name}: {len(wrong)} of {len(table)} rows have no {what}, such as row "
                f"{wrong[0][0]}: {wrong[0][1]}; correct them, or leave them empty"
            )


def _is_stated(value: Any) -> bool:
    """Return whether a cell has a value: CSV gives empty text, Parquet null, pandas NaN where there is none."""
    return value is not None and value != "" and not (isinstance(value, float) and math.isnan(value))
