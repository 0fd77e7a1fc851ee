"""The objects nearest to one in a network's embedding: exact distances to all rows, block by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from galbatch import catalog
from galbatch.api.catalogs.files import CatalogFiles
from galbatch.api.catalogs.rows import Rows
from galbatch.catalog.schema import column_field
from galbatch.config import nearest_hint
from galbatch.core.columns import DEC, EMBEDDING, ID, RA, Column, parse_columns
from galbatch.errors import UsageError

__all__ = ["METRICS", "Metric", "find_similar", "similar_rows"]

Metric = Literal["euclidean", "cosine"]

METRICS: tuple[Metric, ...] = ("euclidean", "cosine")

DISTANCE = Column("distance", "float64", "", "distance in the embedding", "stat.value")

BLOCK_ROWS = 8192
"""Rows whose distances are computed at a time: 16 MB of 512 features, of which a few copies are in memory."""

Floats = npt.NDArray[np.floating]


def find_similar(
    catalog_path: str, object_id: str, n: int, *, model: str | None = None, metric: str = "euclidean"
) -> pa.Table:
    """Return what `similar_rows` returns, among all rows of the catalog at a path."""
    return similar_rows(Rows(CatalogFiles(catalog_path)), object_id, n, model=model, metric=metric)


def embedding_column(catalog_path: str, names: Sequence[str], model: str | None) -> str:
    """Return the name of a model's embedding column; with None that of the only model that has one.

    Raises
    ------
    UsageError
        There is none, or several models have one and none is named.
    """
    found = {of: name for name, (of, key) in parse_columns(names).items() if key == EMBEDDING}
    if not found:
        raise UsageError(
            f"{catalog_path}: no model has an embedding; set embedding = true in [[models]] and run again into another "
            "catalog, with [catalog] base for what stays the same"
        )
    if model is None and len(found) > 1:
        raise UsageError(f"{catalog_path}: the models {', '.join(found)} have embeddings; name one of them")
    chosen = next(iter(found)) if model is None else model
    if chosen not in found:
        raise UsageError(
            f"{catalog_path}: no embedding of model {chosen}{nearest_hint(chosen, found)}; there are those of {', '.join(found)}"
        )
    return found[chosen]


def similar_rows(rows: Rows, object_id: str, n: int, *, model: str | None, metric: str) -> pa.Table:
    """Return id, position and distance of the `n` rows nearest to an object in an embedding, the nearest first.

    Every row is compared, so that the result is exact. The object itself and rows without an embedding are left out; of
    equal distances the earlier in the order of the sky comes first.

    Parameters
    ----------
    rows : the rows among which they are searched; the object need not be one of them
    object_id : id of the object, as text
    n : number of rows to find, 1 or more
    model : model whose embedding is compared; None: the only one that has one
    metric : euclidean, or cosine: 1 less the cosine of the angle between two vectors

    Raises
    ------
    UsageError
        The id is not in the catalog, the object has no embedding, no such model has one, or the metric is not known.
    """
    if n < 1:
        raise UsageError(f"{n} similar objects: ask for 1 or more")
    if metric not in METRICS:
        raise UsageError(f"metric {metric}: not known; there are {' and '.join(METRICS)}")
    column = embedding_column(rows.files.path, rows.files.schema.names, model)
    own = catalog.read_objects(rows.files.path, [object_id])
    vector = _vectors(own.column(column))[0].astype(np.float64)
    if not np.isfinite(vector).all():
        raise UsageError(f"object {object_id}: has no embedding in {column}; its flags say why")
    names = [ID.name, RA.name, DEC.name]
    found = _Nearest(n, own.select(names))
    for part in rows.parts([*names, column]):
        for start in range(0, part.num_rows, BLOCK_ROWS):
            some = part.slice(start, BLOCK_ROWS)
            found.add(some.drop_columns([column]), _distances(_vectors(some.column(column)), vector, metric))
    return found.table()


def _vectors(column: pa.ChunkedArray) -> Floats:
    """Return a column of vectors as (row, value), float16 as float32; nulls are NaN."""
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    # NumPy computes float16 number by number.
    return flat.reshape(len(column), -1).astype(np.float32 if flat.dtype == np.float16 else flat.dtype)


def _distances(vectors: Floats, vector: Floats, metric: str) -> Floats:
    """Return the distances (row,) float64 of vectors (row, value) from a vector (value,); NaN for a missing one."""
    if metric == "euclidean":
        apart = vectors - vector.astype(vectors.dtype)
        return np.sqrt(np.square(apart).sum(axis=1, dtype=np.float64))
    length = np.sqrt(np.square(vectors).sum(axis=1, dtype=np.float64)) * np.sqrt(np.square(vector).sum())
    # A vector of zeros has no direction.
    along = vectors.astype(np.float64) @ vector
    return 1.0 - np.divide(along, length, out=np.full(len(vectors), np.nan), where=length > 0)


@dataclass
class _Nearest:
    """The `n` rows with the smallest distances of all that were added, but for the object itself, whose row is `own`."""

    n: int
    own: pa.Table

    def __post_init__(self) -> None:
        self._rows = self.own.slice(0, 0)
        self._distances: Floats = np.zeros(0)

    def add(self, rows: pa.Table, distances: Floats) -> None:
        """Add rows with their distances (row,)."""
        is_other = np.asarray(pc.not_equal(rows.column(ID.name), self.own.column(ID.name)[0]))
        (there,) = np.nonzero(is_other & np.isfinite(distances))
        # The nearest of the block, then of these and those of before.
        best = there[np.argsort(distances[there], kind="stable")[: self.n]]
        both = np.concatenate([self._distances, distances[best]])
        nearest = np.argsort(both, kind="stable")[: self.n]
        rows = pa.concat_tables([self._rows, rows.take(pa.array(best))])
        self._rows, self._distances = rows.take(pa.array(nearest)), both[nearest]

    def table(self) -> pa.Table:
        """Return the rows with their distances, the nearest first."""
        distance = pa.array(self._distances, pa.float64())
        return self._rows.append_column(column_field(DISTANCE), distance)
