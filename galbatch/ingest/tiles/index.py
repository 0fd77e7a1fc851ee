"""The tile index: what the headers of a survey's files said, kept as Parquet, so that only changed files are read again.

A row is a tile, or a file without one. A file's rows are used again as long as every file that was looked at for
them (its own, masks and weights beside it, catalogs; also those that were not there) is what it was.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from galbatch import __version__, storage
from galbatch.config import SurveyConfig
from galbatch.core.types import FileIdentity, Plane, Tile
from galbatch.errors import OutputError
from galbatch.ingest.tiles.sources import TileSource, tiles_in

__all__ = ["BATCH_FILES", "FileTiles", "MapFiles", "are_many", "index_paths", "tiles_of"]

TILE_INDEX_VERSION = 1
"""Raised when what is read from headers changes."""

MANY_FILES, MANY_FILES_ON_S3 = 200, 25
"""From so many on headers are read on the workers, and kept: a local file takes some 5 ms, one on S3 some 100 ms."""

BATCH_FILES = 50
"""Files whose headers one task reads."""

MapFiles = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
"""Maps a function over items, in their order; on workers or, as the built-in `map`, here."""

Looked = tuple[tuple[str, FileIdentity | None], ...]


@dataclass(frozen=True, slots=True)
class FileTiles:
    """The tiles of one source, and every file that was looked at for them (None: that was not there)."""

    key: str
    looked: Looked
    tiles: tuple[Tile, ...]


def index_paths(index: str, surveys: Sequence[SurveyConfig]) -> list[str]:
    """Path of each survey's tile index; `index` is what they begin with, such as ``cutouts.zarr_tiles``."""
    if len(surveys) == 1:
        return [f"{index}.parquet"]
    return [f"{index}_{survey.name or number}.parquet" for number, survey in enumerate(surveys)]


def are_many(sources: Sequence[TileSource]) -> bool:
    """Whether reading their headers takes long enough for workers and an index."""
    n_remote = sum(storage.reads_by_request(source.path) for source in sources)
    return len(sources) >= MANY_FILES or n_remote >= MANY_FILES_ON_S3


def tiles_of(
    sources: Sequence[TileSource],
    survey: SurveyConfig,
    *,
    index: str | None = None,
    map_files: MapFiles | None = None,
) -> list[Tile]:
    """Tiles of the sources; headers are read where the index does not know them.

    Parameters
    ----------
    index : path of the index's file; used, and written where something changed, if the sources are many
    map_files : where to read headers of many files

    Raises
    ------
    TileError
        A file is not what its layout says. What was read before it is in the index.
    """
    if index is None or not are_many(sources):
        read = _read(sources, survey, map_files)
        return [tile for found in read for tile in found.tiles]
    stored = _load(index, survey)
    kept = _unchanged(stored, sources)
    new = [source for source in sources if source.key not in kept]
    known = dict(kept)
    try:
        for found in _read(new, survey, map_files):
            known[found.key] = found
    finally:
        if new or len(kept) < len(stored):
            _save(index, survey, known.values())
    return [tile for source in sources for tile in known[source.key].tiles]


# --- headers ---------------------------------------------------------------------------------------------


def _read(
    sources: Sequence[TileSource], survey: SurveyConfig, map_files: MapFiles | None
) -> Iterator[FileTiles]:
    batches = [sources[i : i + BATCH_FILES] for i in range(0, len(sources), BATCH_FILES)]
    run = map_files if map_files is not None and are_many(sources) else map
    for found in run(functools.partial(_read_batch, survey), batches):
        yield from found


def _read_batch(survey: SurveyConfig, sources: Sequence[TileSource]) -> list[FileTiles]:
    """The headers of some files; a task of its own."""
    read = []
    known: dict[str, FileIdentity | None] = {source.path: source.identity for source in sources}
    for source in sources:
        files = storage.FileAccessLog(known)
        tiles = tiles_in(source, survey, files)
        # The files of a batch often share what lies beside them: a catalog, or that there is none.
        known = files.known
        looked = {source.path: source.identity} | files.recorded
        read.append(FileTiles(source.key, tuple(sorted(looked.items())), tuple(tiles)))
    return read


def _unchanged(known: Mapping[str, FileTiles], sources: Sequence[TileSource]) -> dict[str, FileTiles]:
    """Those of the sources for which nothing has changed."""
    now: dict[str, FileIdentity | None] = {source.path: source.identity for source in sources}
    candidates = [known[source.key] for source in sources if source.key in known]
    others = {path for found in candidates for path, _ in found.looked if path not in now}
    now |= storage.identities(sorted(others))
    return {
        found.key: found
        for found in candidates
        if all(now[path] == identity for path, identity in found.looked)
    }


# --- the file --------------------------------------------------------------------------------------------

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
    ]
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
    "mask_planes": pa.list_(pa.struct([("name", pa.string()), ("bit", pa.int32())])),
    "weight": _PLANE,
    "weight_kind": pa.string(),
    "psf_fwhm_arcsec": pa.float64(),
    "psf": _PLANE,
    "release": pa.string(),
    "background": pa.string(),
    "identity": _IDENTITY,
}
_LOOKED = pa.list_(pa.struct([("path", pa.string()), ("identity", _IDENTITY)]))
_SCHEMA = pa.schema([("key", pa.string()), ("looked", _LOOKED), *_TILE_FIELDS.items()])
_PLANES = ("image", "mask", "weight", "psf")


def _settings(survey: SurveyConfig) -> dict[bytes, bytes]:
    """What the tiles depend on besides the files, as the file's metadata."""
    # The catalog's path is left out of dumps, as all paths are for fingerprints; here another one is another question.
    asked = {**survey.model_dump(mode="json", exclude={"tiles", "name"}), "catalog": survey.stamps.catalog}
    text = json.dumps(asked, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {
        b"galbatch.tile_index": f"{TILE_INDEX_VERSION} {__version__}".encode(),
        b"galbatch.survey": digest.encode(),
    }


def _load(path: str, survey: SurveyConfig) -> dict[str, FileTiles]:
    """What the index knows, by source; nothing if there is none, or it is damaged or of other settings."""
    try:
        with storage.open_file(path) as file:
            parquet = pq.ParquetFile(file)
            metadata = parquet.schema_arrow.metadata or {}
            if any(metadata.get(key) != value for key, value in _settings(survey).items()):
                return {}
            rows = parquet.read().to_pylist()
        return _files_of(rows)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        # It is derived: whatever is wrong with it, the headers are there to be read again.
        return {}


def _files_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, FileTiles]:
    looked: dict[str, Looked] = {}
    tiles: dict[str, list[Tile]] = defaultdict(list)
    for row in rows:
        key = row["key"]
        looked[key] = tuple((look["path"], _identity(look["identity"])) for look in row["looked"])
        if row["tile_id"] is not None:
            tiles[key].append(_tile(row))
    return {key: FileTiles(key, looked[key], tuple(tiles[key])) for key in looked}


def _save(path: str, survey: SurveyConfig, known: Iterable[FileTiles]) -> None:
    rows = [row for found in known for row in _rows_of(found)]
    table = pa.Table.from_pylist(rows, schema=_SCHEMA.with_metadata(_settings(survey)))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    try:
        storage.publish(path, buffer.getvalue())
    except OutputError:
        # A plan may be asked for where nothing can be written; a run is refused there for its own outputs.
        return


def _rows_of(found: FileTiles) -> Iterator[dict[str, Any]]:
    looked = [
        {"path": path, "identity": identity and dataclasses.asdict(identity)}
        for path, identity in found.looked
    ]
    for tile in found.tiles or (None,):
        yield {"key": found.key, "looked": looked, **(_row(tile) if tile is not None else {})}


def _row(tile: Tile) -> dict[str, Any]:
    row = {name: getattr(tile, name) for name in _TILE_FIELDS}
    row["mask_planes"] = [{"name": name, "bit": bit} for name, bit in tile.mask_planes.items()]
    row["identity"] = tile.identity and dataclasses.asdict(tile.identity)
    for name in _PLANES:
        plane = row[name]
        if plane is not None:
            number = plane.hdu if isinstance(plane.hdu, int) else None
            name_in_file = None if isinstance(plane.hdu, int) else plane.hdu
            row[name] = dataclasses.asdict(plane) | {"hdu": number, "dataset": name_in_file}
    return row


def _tile(row: Mapping[str, Any]) -> Tile:
    values = {name: row[name] for name in _TILE_FIELDS}
    values["shape_px"] = tuple(row["shape_px"])
    values["corners_deg"] = tuple(tuple(corner) for corner in row["corners_deg"])
    values["mask_planes"] = {plane["name"]: plane["bit"] for plane in row["mask_planes"]}
    values["identity"] = _identity(row["identity"])
    for name in _PLANES:
        values[name] = _plane(row[name])
    return Tile(**values)


def _plane(stored: Mapping[str, Any] | None) -> Plane | None:
    if stored is None:
        return None
    values = {name: value for name, value in stored.items() if name != "dataset"}
    values["hdu"] = stored["dataset"] if stored["hdu"] is None else stored["hdu"]
    values["index"] = tuple(stored["index"])
    values["block_px"] = None if stored["block_px"] is None else tuple(stored["block_px"])
    return Plane(**values)


def _identity(stored: Mapping[str, Any] | None) -> FileIdentity | None:
    return None if stored is None else FileIdentity(stored["size_bytes"], stored["version"])
