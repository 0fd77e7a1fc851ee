"""How fast are the nearest objects in an embedding found among a million rows?

Writes a catalog of made-up embeddings and finds the neighbors of one object in it, in processor time, against NumPy alone, which takes
the same distances of vectors in memory: python benchmarks/similar.py [--rows N] [--length N]
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import harness
import numpy as np
import numpy.typing as npt
import pyarrow as pa

import galbatch
from galbatch import catalog
from galbatch.core import sky
from galbatch.core.columns import EMBEDDING, MODEL_FLAGS, PASSES, PIXEL_FLAGS
from galbatch.core.pixels import Partition

HEALPIX_ORDER = 2
"""192 leaves: 5,200 objects in each of a million."""

N_NEIGHBORS = 20


def write_catalog(
    path: str, n_rows: int, length: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Write a catalog over the whole sky, and return ids (row,) and embeddings (row, number) in its order."""
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 360, n_rows), np.degrees(np.arcsin(rng.uniform(-1, 1, n_rows)))
    index = sky.healpix_29(ra, dec)
    order = np.argsort(index, kind="stable")
    ra, dec, index = ra[order], dec[order], index[order]
    vectors = rng.normal(size=(n_rows, length)).astype(np.float32)
    column = dataclasses.replace(EMBEDDING.column("net", dtype="float32"), length=length)
    columns = (PIXEL_FLAGS, PASSES.column("net"), column, MODEL_FLAGS.column("net"))
    schema = catalog.leaf_schema(columns, id_type=pa.int64(), kept=pa.schema([]))
    ids = np.arange(n_rows)
    pixel = sky.pixel_of(index, HEALPIX_ORDER)
    partitions = []
    for one in np.unique(pixel):
        start, stop = np.searchsorted(pixel, [one, one + 1]).tolist()
        part = slice(start, stop)
        values = {c.name: c.empty(stop - start) for c in columns}
        values[column.name][:] = vectors[part]
        arrays = [pa.array(a[part]) for a in (index, ids, ra, dec)] + [
            c.as_arrow(values[c.name]) for c in columns
        ]
        partition = Partition(HEALPIX_ORDER, int(one), start, stop)
        catalog.write_leaf(path, partition, pa.table(arrays, schema=schema), footer={})
        partitions.append(partition)
    catalog.finish(path, partitions=partitions, properties={}, n_rows_expected=n_rows)
    return ids, vectors


def nearest(ids: npt.NDArray[np.int64], vectors: npt.NDArray[np.float32], own: int) -> list[int]:
    """Return the ids of the `N_NEIGHBORS` rows nearest to one among vectors (row, number), the nearest first."""
    distance = np.sqrt(np.square(vectors - vectors[own]).sum(axis=1, dtype=np.float64))
    return ids[np.argsort(distance, kind="stable")[1 : N_NEIGHBORS + 1]].tolist()


def measure(n_rows: int, length: int, *, rounds: int) -> None:
    """Compare the contenders, which find the same objects, and keep the result."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "catalog")
        ids, vectors = write_catalog(path, n_rows, length)
        opened, own = galbatch.open_catalog(path), n_rows // 2

        def similar() -> list[int]:
            return np.asarray(opened.similar(int(ids[own]), N_NEIGHBORS)["object_id"]).tolist()

        assert similar() == nearest(ids, vectors, own)
        measured = harness.compare(
            {
                "NumPy, vectors in memory": lambda: nearest(ids, vectors, own),
                "Catalog.similar": similar,
            },
            rounds=rounds,
            clock=time.process_time,
        )
    question = f"the {N_NEIGHBORS} nearest of {n_rows} embeddings of {length} numbers"
    harness.report(question, measured, items=1, unit="search")


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    measure(options.rows, options.length, rounds=options.rounds)


if __name__ == "__main__":
    main()
