"""Verify: everything a catalog promises, checked on its files."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Mapping
from operator import attrgetter

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from galbatch import storage
from galbatch.catalog import layout
from galbatch.catalog.finishing import read_properties
from galbatch.catalog.leaf_checks import leaf_problems
from galbatch.catalog.leaves import BUNDLES_KEY, footer_of, read_leaf, read_leaf_metadata
from galbatch.catalog.tree_checks import tree_problems
from galbatch.core.columns import ID
from galbatch.core.pixels import HealpixPixel
from galbatch.errors import CatalogError

__all__ = ["verify"]

PER_LEAF_PARTS = frozenset({"division", "objects", "tiles", "kept columns", "selected objects"})
"""Parts of a leaf's fingerprint that are its own; all others are the same in every leaf of a run."""


def verify(catalog_path: str) -> list[str]:
    """Check a finished catalog, and return the problems found, [] if it is good.

    - hats' strict validation; leaves, ``partition_info.csv`` and ``_metadata`` agree; nothing else lies
      below ``dataset/``; no leaf's pixel lies in another's
    - every leaf: readable, the catalog's schema, rows sorted, in the leaf's pixel and where their position
      says, as many as its footer says
    - no object id twice over the whole catalog; as many rows as the properties say
    - fingerprints: the same run in every leaf
    - quantiles rise with their probability; a NaN among them comes with a bit in ``<model>_flags``
    """
    leaves = sorted(layout.list_leaves(catalog_path), key=attrgetter("index_range"))
    if not leaves:
        return [f"{catalog_path}: no leaf of a catalog is there"]
    problems = [f"{catalog_path}: {problem}" for problem in tree_problems(catalog_path, leaves)]
    problems += [f"{catalog_path}: {problem}" for problem in _content_problems(catalog_path, leaves)]
    return problems


def _content_problems(catalog_path: str, leaves: list[HealpixPixel]) -> Iterator[str]:
    """Find problems of each leaf, then those of all leaves together."""
    schema: pa.Schema | None = None
    # Without the file each leaf is held to its own schema; hats' validation says that it is missing.
    with contextlib.suppress(FileNotFoundError, pa.ArrowInvalid):
        data = storage.read_bytes(storage.join(catalog_path, layout.COMMON_METADATA))
        schema = pq.read_schema(io.BytesIO(data))
    ids: list[pa.ChunkedArray] = []
    footers: dict[str, dict[str, str]] = {}
    for leaf in leaves:
        name = f"leaf {leaf.name}"
        path = layout.leaf_path(catalog_path, leaf)
        try:
            footers[name] = footer_of(read_leaf_metadata(path)[0])
            table = read_leaf(path)
            problems = leaf_problems(table, leaf, schema or table.schema, footers[name])
            yield from (f"{name}: {problem}" for problem in problems)
        except (CatalogError, KeyError) as error:
            yield f"{name}: {error}"
            continue
        ids.append(table.column(ID.name))
    yield from _row_problems(catalog_path, ids)
    yield from _fingerprint_problems(footers)


def _row_problems(catalog_path: str, ids: list[pa.ChunkedArray]) -> Iterator[str]:
    """Find objects that stand more than once, and a number of rows other than the properties say."""
    # Leaves that disagree on the type of ids have another schema, which was said.
    if len({column.type for column in ids}) == 1:
        counted = pc.value_counts(pa.chunked_array([chunk for column in ids for chunk in column.chunks]))
        repeated = counted.filter(pc.greater(counted.field("counts"), 1))
        if len(repeated):
            yield f"{len(repeated)} object ids stand more than once, the first {repeated[0]['values'].as_py()}"
    try:
        properties = read_properties(catalog_path)
    except CatalogError:
        return  # hats' validation says so
    n_rows = sum(len(column) for column in ids)
    if properties.get("hats_nrows") != str(n_rows):
        yield f"its leaves hold {n_rows} rows, the properties say {properties.get('hats_nrows')}"
    expected = properties.get("galbatch_objects", str(n_rows))
    if properties.get("galbatch_complete") == "true" and expected != str(n_rows):
        yield f"it says it is complete, but holds {n_rows} of {expected} objects"


def _fingerprint_problems(footers: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Find leaves that another run wrote than the first leaf's: what the leaves of one run have in common differs."""
    runs: dict[str, dict[str, str]] = {}
    for name, footer in footers.items():
        try:
            parts = dict(json.loads(footer["fingerprint"])["parts"])
        except (KeyError, TypeError, ValueError):
            parts = {"fingerprint": "is not readable"}
        runs[name] = {key: str(value) for key, value in parts.items() if key not in PER_LEAF_PARTS}
        runs[name][BUNDLES_KEY] = footer.get(BUNDLES_KEY, "")
    first = next(iter(runs), "")
    for name, parts in runs.items():
        differing = sorted(key for key in {*parts, *runs[first]} if parts.get(key) != runs[first].get(key))
        if differing:
            yield f"{name} and {first} are of different runs: {', '.join(differing)} differ"
