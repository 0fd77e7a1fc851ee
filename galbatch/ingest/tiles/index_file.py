"""The file of a tile index: one row a tile, or a file without one, in Parquet; its columns, and what it depends on."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from galbatch import __version__, storage
from galbatch.config import SurveyConfig
from galbatch.core.types import CalibrationField, FileIdentity, Plane, PsfCells, Tile
from galbatch.errors import OutputError

__all__ = ["FileTiles", "load_index", "save_index"]

TILE_INDEX_VERSION = 6
"""Raised when what is read from headers changes."""

Looked = tuple[tuple[str, FileIdentity | None], ...]


@dataclass(frozen=True, slots=True)
class FileTiles:
    """The tiles of one source, and every file that was looked at for them (None: that was not there)."""

    key: str
    looked: Looked
    tiles: tuple[Tile, ...]

    def identified(self) -> Iterator[Tile]:
        """Yield the tiles with the identities of their planes' files, by which a reader sees that one was replaced."""
        known = dict(self.looked)
        for tile in self.tiles:
            paths = {plane.path for name in _PLANES if (plane := getattr(tile, name)) is not None}
            found = ((path, known.get(path)) for path in sorted(paths))
            yield dataclasses.replace(
                tile, files=tuple((path, one) for path, one in found if one is not None)
            )


# The fields of `Tile` as Arrow types, stated in full: a field that is missing here fails on writing, not on the next reading.
_IDENTITY = pa.struct([("size_bytes", pa.int64()), ("version", pa.string())])
_PLANE = pa.struct(
    [
        ("path", pa.string()),
        ("hdu", pa.int32()),
        ("dataset", pa.string()),
        ("index", pa.list_(pa.int32())),
        ("bytes_per_px", pa.int32()),
        ("block_px", pa.list_(pa.int32())),
        ("stored_bytes", pa.int64()),
        ("packed", pa.bool_()),
        ("asinh", pa.list_(pa.float64())),
    ]
)
_CALIBRATION = pa.struct(
    [
        ("x_range", pa.list_(pa.float64())),
        ("y_range", pa.list_(pa.float64())),
        ("coefficients", pa.list_(pa.list_(pa.float64()))),
    ]
)
_PSF_CELLS = pa.struct(
    [(name, pa.list_(pa.int32())) for name in ("first_px", "cell_px", "n_cells", "kernel_px")]
)
_TILE_FIELDS = {
    "tile_id": pa.string(),
    "band": pa.string(),
    "image": _PLANE,
    "shape_px": pa.list_(pa.int32()),
    "wcs_header": pa.string(),
    "grid_key": pa.string(),
    "njy_per_unit": pa.float64(),
    "pixel_scale_arcsec": pa.float64(),
    "corners_deg": pa.list_(pa.list_(pa.float64())),
    "mask": _PLANE,
    "more_masks": pa.list_(_PLANE),
    "mask_planes": pa.list_(pa.struct([("name", pa.string()), ("bit", pa.int32())])),
    "weight": _PLANE,
    "weight_kind": pa.string(),
    "psf_fwhm_arcsec": pa.float64(),
    "psf": _PLANE,
    "psf_cells": _PSF_CELLS,
    "electrons_per_njy": pa.float64(),
    "release": pa.string(),
    "background": pa.string(),
    "identity": _IDENTITY,
    "calibration": _CALIBRATION,
}
_LOOKED = pa.list_(pa.struct([("path", pa.string()), ("identity", _IDENTITY)]))
_SCHEMA = pa.schema([("key", pa.string()), ("looked", _LOOKED), *_TILE_FIELDS.items()])
_PLANES = ("image", "mask", "weight", "psf")


def _settings(survey: SurveyConfig) -> dict[bytes, bytes]:
    """Return the settings that the tiles depend on besides the files, as metadata of the index's file."""
    # The catalog's path is left out of dumps, as all paths are for fingerprints; here another one is another question.
    asked = {**survey.model_dump(mode="json", exclude={"tiles", "name"}), "catalog": survey.stamps.catalog}
    text = json.dumps(asked, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {
        b"galbatch.tile_index": f"{TILE_INDEX_VERSION} {__version__}".encode(),
        b"galbatch.survey": digest.encode(),
    }


def load_index(path: str, survey: SurveyConfig) -> dict[str, FileTiles]:
    """Return the tiles that the index has, by source; none if there is none, or it is damaged or of other settings."""
    try:
        with storage.open_file(path) as file:
            parquet = pq.ParquetFile(file)
            metadata = parquet.schema_arrow.metadata or {}
            if any(metadata.get(key) != value for key, value in _settings(survey).items()):
                return {}
            rows = parquet.read().to_pylist()
        looked: dict[str, Looked] = {}
        tiles: dict[str, list[Tile]] = defaultdict(list)
        # A file without a tile has one row without tile_id, so that it is not opened again either.
        for row in rows:
            key = row["key"]
            looked[key] = tuple((look["path"], _identity(look["identity"])) for look in row["looked"])
            if row["tile_id"] is not None:
                tiles[key].append(_tile(row))
        return {key: FileTiles(key, looked[key], tuple(tiles[key])) for key in looked}
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        # It is derived: whatever is wrong with it, the headers are there to be read again.
        return {}


def save_index(path: str, survey: SurveyConfig, known: Iterable[FileTiles]) -> None:
    """Write the index; does nothing where nothing can be written."""
    rows: list[dict[str, Any]] = []
    for found in known:
        looked = [
            {"path": looked_at, "identity": identity and dataclasses.asdict(identity)}
            for looked_at, identity in found.looked
        ]
        shared = {"key": found.key, "looked": looked}
        rows += [shared | _row(tile) for tile in found.tiles] or [shared]
    table = pa.Table.from_pylist(rows, schema=_SCHEMA.with_metadata(_settings(survey)))
    # Encoded in memory and published in one step, so that a reader never meets half an index.
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    try:
        storage.publish(path, buffer.getvalue())
    except OutputError:
        # A plan may be asked for where nothing can be written; a run is refused there for its own outputs.
        return


def _row(tile: Tile) -> dict[str, Any]:
    """Return a tile as a row of the index."""
    row = {name: getattr(tile, name) for name in _TILE_FIELDS}
    row["mask_planes"] = [{"name": name, "bit": bit} for name, bit in tile.mask_planes.items()]
    row["identity"] = tile.identity and dataclasses.asdict(tile.identity)
    row["calibration"] = tile.calibration and dataclasses.asdict(tile.calibration)
    row["psf_cells"] = tile.psf_cells and dataclasses.asdict(tile.psf_cells)
    row |= {name: row[name] and _plane_row(row[name]) for name in _PLANES}
    row["more_masks"] = [_plane_row(plane) for plane in tile.more_masks]
    return row


def _plane_row(plane: Plane) -> dict[str, Any]:
    # HDUs have numbers, HDF5 datasets names: a column has one type, so they are two.
    number = plane.hdu if isinstance(plane.hdu, int) else None
    name_in_file = None if isinstance(plane.hdu, int) else plane.hdu
    return dataclasses.asdict(plane) | {"hdu": number, "dataset": name_in_file}


def _tile(row: Mapping[str, Any]) -> Tile:
    """Return the tile of a row of the index, with tuples where Arrow gives lists: tiles are hashed."""
    values = {name: row[name] for name in _TILE_FIELDS}
    values["shape_px"] = tuple(row["shape_px"])
    values["corners_deg"] = tuple(tuple(corner) for corner in row["corners_deg"])
    values["mask_planes"] = {plane["name"]: plane["bit"] for plane in row["mask_planes"]}
    values["identity"] = _identity(row["identity"])
    field = row["calibration"]
    if field is not None:
        rows = tuple(tuple(coefficients) for coefficients in field["coefficients"])
        values["calibration"] = CalibrationField(tuple(field["x_range"]), tuple(field["y_range"]), rows)
    cells = row["psf_cells"]
    if cells is not None:
        values["psf_cells"] = PsfCells(**{name: tuple(pair) for name, pair in cells.items()})
    values |= {name: row[name] and _plane_of(row[name]) for name in _PLANES}
    values["more_masks"] = tuple(map(_plane_of, row["more_masks"]))
    return Tile(**values)


def _plane_of(stored: Mapping[str, Any]) -> Plane:
    plane = {key: value for key, value in stored.items() if key != "dataset"}
    plane["hdu"] = stored["dataset"] if stored["hdu"] is None else stored["hdu"]
    plane["index"] = tuple(stored["index"])
    plane["asinh"] = None if stored["asinh"] is None else tuple(stored["asinh"])
    plane["block_px"] = None if stored["block_px"] is None else tuple(stored["block_px"])
    return Plane(**plane)


def _identity(stored: Mapping[str, Any] | None) -> FileIdentity | None:
    return None if stored is None else FileIdentity(stored["size_bytes"], stored["version"])
