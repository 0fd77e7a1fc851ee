"""The tile index: what the headers of a survey's files said, kept as Parquet, so that only changed files are read again.

A row is a tile, or a file without one. A file's rows are used again as long as every file that was looked at for
them (its own, those of masks, weights and catalogs; also those that were missing) is unchanged.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from galbatch import storage
from galbatch.config import SurveyConfig
from galbatch.core.types import FileIdentity, Tile
from galbatch.ingest.tiles.index_file import FileTiles, load_index, save_index
from galbatch.ingest.tiles.sources import TileSource, tiles_in

__all__ = ["BATCH_FILES", "MapFiles", "are_many", "index_paths", "tiles_of"]

MANY_FILES, MANY_FILES_ON_S3 = 200, 25
"""From these numbers of files on, headers are read on the workers, and kept: a local file takes some 5 ms, one on S3 some 100 ms."""

BATCH_FILES = 50
"""Files whose headers one task reads."""

MapFiles = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
"""Maps a function over items, in their order; on workers or, as the built-in `map`, here."""


def index_paths(index: str, surveys: Sequence[SurveyConfig]) -> list[str]:
    """Return the path of each survey's tile index; `index` is what they begin with, such as ``cutouts.zarr_tiles``."""
    if len(surveys) == 1:
        return [f"{index}.parquet"]
    return [f"{index}_{survey.name or number}.parquet" for number, survey in enumerate(surveys)]


def are_many(sources: Sequence[TileSource]) -> bool:
    """Return whether reading their headers takes long enough for workers and an index."""
    n_remote = sum(storage.reads_by_request(source.path) for source in sources)
    return len(sources) >= MANY_FILES or n_remote >= MANY_FILES_ON_S3


def tiles_of(
    sources: Sequence[TileSource],
    survey: SurveyConfig,
    *,
    index: str | None = None,
    map_files: MapFiles | None = None,
) -> list[Tile]:
    """Return the tiles of the sources; headers are read where the index does not know them.

    Parameters
    ----------
    index : path of the index's file; used, and written where something changed, if the sources are many
    map_files : where to read headers of many files

    Raises
    ------
    TileError
        A file is not what its layout says. What was read before it is in the index.
    """
    # The headers of few files take a second or two, which is not worth a file to keep them in.
    if index is None or not are_many(sources):
        read = _read(sources, survey, map_files)
        return [tile for found in read for tile in found.identified()]
    stored = load_index(index, survey)
    kept = _unchanged(stored, sources)
    new = [source for source in sources if source.key not in kept]
    known = dict(kept)
    try:
        for found in _read(new, survey, map_files):
            known[found.key] = found
    finally:
        # Also after an error: one bad file must not cost the headers of 100,000 good ones, which take hours from S3.
        if new or len(kept) < len(stored):
            save_index(index, survey, known.values())
    return [tile for source in sources for tile in known[source.key].identified()]


# --- headers ---------------------------------------------------------------------------------------------


def _read(
    sources: Sequence[TileSource], survey: SurveyConfig, map_files: MapFiles | None
) -> Iterator[FileTiles]:
    # In batches: Dask takes about 1 ms a task, and the headers of a local file only 5.
    batches = [sources[i : i + BATCH_FILES] for i in range(0, len(sources), BATCH_FILES)]
    run = map_files if map_files is not None and are_many(sources) else map
    for found in run(functools.partial(_read_batch, survey), batches):
        yield from found


def _read_batch(survey: SurveyConfig, sources: Sequence[TileSource]) -> list[FileTiles]:
    """Read the headers of a batch of files; the unit of work that is sent to a worker."""
    read = []
    known: dict[str, FileIdentity | None] = {source.path: source.identity for source in sources}
    for source in sources:
        files = storage.FileAccessLog(known)
        tiles = tiles_in(source, survey, files)
        # The files of a batch often share a catalog, or its absence.
        known = files.known
        looked = {source.path: source.identity} | files.recorded
        read.append(FileTiles(source.key, tuple(sorted(looked.items())), tuple(tiles)))
    return read


def _unchanged(known: Mapping[str, FileTiles], sources: Sequence[TileSource]) -> dict[str, FileTiles]:
    """Return the indexed tiles of the sources for which no file that was looked at has changed."""
    now: dict[str, FileIdentity | None] = {source.path: source.identity for source in sources}
    candidates = [known[source.key] for source in sources if source.key in known]
    others = {path for found in candidates for path, _ in found.looked if path not in now}
    # All at once, as the listing of the sources was: on S3 one request for 1000 files instead of one for each.
    now |= storage.identities(sorted(others))
    return {
        found.key: found
        for found in candidates
        if all(now[path] == identity for path, identity in found.looked)
    }
