"""The files in which a survey's tiles are sought: by glob or folder, or by the rows of a table of tiles."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from galbatch import storage
from galbatch.config import SurveyConfig
from galbatch.core.types import FileIdentity, Tile
from galbatch.core.urls import is_absolute
from galbatch.errors import ObjectListError, TileError
from galbatch.ingest.layouts import layout_of
from galbatch.objects import read_table

__all__ = ["TABLE_COLUMNS", "TileSource", "find_sources", "is_table", "listed_files", "tiles_in"]

TABLE_SUFFIXES = (".parquet", ".csv")
NUMBERS = ("psf_fwhm_arcsec", "zero_point_mag")
TABLE_COLUMNS = ("path", "band", "tile_id", *NUMBERS, "release", "background")
"""Columns of a table of tiles; all but `path` may be left out, and be empty in a row."""


@dataclass(frozen=True, slots=True)
class TileSource:
    """A file in which tiles are sought.

    `stated` is what a row of a table of tiles says of it, by the name of the column: empty for files found by
    glob or folder.
    """

    path: str
    identity: FileIdentity
    stated: tuple[tuple[str, Any], ...] = ()

    @property
    def key(self) -> str:
        """Key of the source in the tile index: path and row."""
        return f"{self.path} {json.dumps(self.stated)}" if self.stated else self.path


def is_table(tiles: str) -> bool:
    """Return whether ``[survey] tiles`` names a table of tiles."""
    return tiles.lower().endswith(TABLE_SUFFIXES)


def find_sources(survey: SurveyConfig) -> list[TileSource]:
    """Return the files that may hold tiles in the survey's bands, from one listing; none is opened.

    Raises
    ------
    TileError
        The table of tiles cannot be read, has wrong columns, or names files that are not there.
    """
    if is_table(survey.tiles):
        return _rows(survey)
    if survey.tiles.lower().endswith(".asdf"):
        raise TileError(
            f"[survey] tiles = {survey.tiles!r}: Roman's ASDF files are not read; write the images as FITS, with their WCS "
            "and their unit in BUNIT"
        )
    layout = layout_of(survey.layout)
    return [
        TileSource(path, identity)
        for path, identity in listed_files(survey).items()
        if layout.wants(path, survey)
    ]


def listed_files(survey: SurveyConfig) -> dict[str, FileIdentity]:
    """Return the files that ``[survey] tiles`` names by a path, a folder or a glob and that may be the layout's, by their paths."""
    suffixes = layout_of(survey.layout).suffixes
    found = storage.find_identities(survey.tiles, suffixes=suffixes)
    # `*_image*` matches checksums and previews, too; a pattern that ends otherwise says itself which files are meant.
    if survey.tiles.endswith(("*", "?", "]")):
        return {path: identity for path, identity in found.items() if path.lower().endswith(suffixes)}
    return found


def tiles_in(source: TileSource, survey: SurveyConfig, files: storage.FileAccessLog) -> list[Tile]:
    """Return the tiles of one file in the survey's bands, read from its headers alone.

    Parameters
    ----------
    files : records which other files were looked at

    Raises
    ------
    TileError
        The file is not what the layout says, or not what its row in the table of tiles says.
    """
    stated = dict(source.stated)
    read = layout_of(survey.layout).tiles_in(source.path, _as_stated(survey, stated), files)
    # Without an identity of its own a tile is what its image's file is.
    tiles = [
        tile if tile.identity else dataclasses.replace(tile, identity=files.identity(tile.image.path))
        for tile in (_with_packed_planes(tile, files.packed) for tile in read)
    ]
    if not stated:
        return tiles
    if not tiles:
        asked = f" in band {stated['band']}" if "band" in stated else ""
        raise TileError(
            f"{survey.tiles}: {source.path} holds no tile{asked} of layout {survey.layout}; correct the row, or take it out"
        )
    if "tile_id" not in stated:
        return tiles
    if len({tile.band for tile in tiles}) < len(tiles):
        raise TileError(
            f"{survey.tiles}: {source.path} holds {len(tiles)} tiles, tile_id {stated['tile_id']} can name one in each "
            "band; leave tile_id empty"
        )
    return [dataclasses.replace(tile, tile_id=str(stated["tile_id"])) for tile in tiles]


def _with_packed_planes(tile: Tile, packed: set[str]) -> Tile:
    """Return the tile with planes that know whether their files were found to be packed."""
    planes = {name: getattr(tile, name) for name in ("image", "mask", "weight", "psf")}
    changes: dict[str, Any] = {
        name: dataclasses.replace(plane, packed=True)
        for name, plane in planes.items()
        if plane is not None and plane.path in packed
    }
    return dataclasses.replace(tile, **changes) if changes else tile


def _as_stated(survey: SurveyConfig, stated: Mapping[str, Any]) -> SurveyConfig:
    """Return the survey for one file: values in its row of the table replace the keys of [survey]."""
    changes: dict[str, Any] = {name: stated[name] for name in ("release", "background") if name in stated}
    bands = survey.bands
    if "band" in stated:
        bands = (stated["band"],)
        # A stamp takes its band from [survey.stamps] where neither its cards nor its name have one.
        changes["stamps"] = survey.stamps.model_copy(update={"band": stated["band"]})
    if "psf_fwhm_arcsec" in stated:
        changes["psf_fwhm_arcsec"] = dict.fromkeys(bands, stated["psf_fwhm_arcsec"])
    if "zero_point_mag" in stated:
        changes["zero_point_mag"] = stated["zero_point_mag"]
    return survey.model_copy(update={"bands": bands, **changes})


def _rows(survey: SurveyConfig) -> list[TileSource]:
    """Return the files of a table of tiles in the survey's bands."""
    table = _table(survey.tiles)
    folder = survey.tiles.rpartition("/")[0]
    wanted = []
    for row in table.to_pylist():
        stated = {
            name: float(value) if name in NUMBERS else str(value)
            for name, value in row.items()
            if _is_stated(value)
        }
        if stated.get("band", survey.bands[0]) in survey.bands:
            path = str(stated.pop("path", ""))
            path = path if is_absolute(path) else storage.join(folder, path)
            wanted.append((path, tuple(sorted(stated.items()))))
    # All at once: on an object store this is one listing of the folder instead of a request for each file.
    found = storage.identities([path for path, _ in wanted])
    missing = [path for path, _ in wanted if found[path] is None]
    if missing:
        raise TileError(
            f"{survey.tiles}: {len(missing)} of {len(wanted)} files are not there: {', '.join(missing[:3])}; fetch them, or "
            "take their rows out"
        )
    # A row that says nothing but the path is still a row: its file must hold a tile.
    return [
        TileSource(path, identity, stated or (("path", path),))
        for path, stated in wanted
        if (identity := found[path]) is not None
    ]


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
    _require_values(path, table)
    n_with_path = sum(map(_is_stated, table.column("path").to_pylist()))
    if not len(table) or n_with_path < len(table):
        raise TileError(f"{path}: {n_with_path} of {len(table)} rows have a path; all need one")
    return table


def _require_values(path: str, table: pa.Table) -> None:
    """Raise unless columns hold numbers or text as expected, and PSF widths are positive where a row has one."""
    for field in table.schema:
        integer = pa.types.is_integer(field.type)
        number = integer or pa.types.is_floating(field.type)
        # Columns without any value have no type in CSV; ids that are numbers stay what they say.
        good = number if field.name in NUMBERS else pa.types.is_string(field.type)
        if not (good or pa.types.is_null(field.type) or (field.name == "tile_id" and integer)):
            expected = "numbers" if field.name in NUMBERS else "text"
            raise TileError(f"{path}: column {field.name} holds {field.type}, expected {expected}")
    widths = table.column("psf_fwhm_arcsec").to_pylist() if "psf_fwhm_arcsec" in table.column_names else []
    wrong = [
        (row, value) for row, value in enumerate(widths) if _is_stated(value) and not 0 < value < math.inf
    ]
    if wrong:
        raise TileError(
            f"{path}: column psf_fwhm_arcsec: {len(wrong)} of {len(table)} rows have no width, such as row "
            f"{wrong[0][0]}: {wrong[0][1]}; correct them, or leave them empty"
        )


def _is_stated(value: Any) -> bool:
    """Return whether a cell has a value: CSV gives empty text, Parquet null, pandas NaN where there is none."""
    return value is not None and value != "" and not (isinstance(value, float) and math.isnan(value))
