"""Verifying a catalog: its files, rows, fingerprints and values are checked for consistency."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from galbatch import storage
from galbatch.catalog import layout
from galbatch.catalog.checksums import leaf_bytes
from galbatch.catalog.finishing import read_properties
from galbatch.catalog.leaf_checks import leaf_problems
from galbatch.catalog.leaves import BUNDLES_KEY, footer_of, parse_leaf
from galbatch.catalog.tree_checks import tree_problems
from galbatch.core.columns import ID
from galbatch.core.pixels import HealpixPixel
from galbatch.errors import CatalogError, DamagedError

__all__ = ["Checked", "check", "verify"]

PER_LEAF_PARTS = frozenset({"division", "objects", "tiles", "kept columns", "selected objects"})
"""Parts of the fingerprint that differ between the leaves of a run. All other parts must be equal."""


@dataclass
class Checked:
    """The result of the checks of a catalog.

    Attributes
    ----------
    problems : list of str
        One message for each problem, with the catalog's path.
    damaged : dict of str to str
        The problem of each leaf that differs from its checksum or cannot be read, by its path relative to the catalog.
    """

    problems: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)


def verify(catalog_path: str) -> list[str]:
    """Check a finished catalog, and return a list of the problems found; it is empty if there are none. See `check`."""
    return check(catalog_path).problems


def check(catalog_path: str) -> Checked:
    """Check a finished catalog; every byte of its leaves is read.

    The checks are:

    - The catalog passes the strict validation of hats. The leaves agree with ``partition_info.csv``. There are no
      other files below ``dataset/``, and no leaf's pixel lies inside another's.
    - Each leaf is as it was written, by its checksum, can be read and has the catalog's schema. Its rows are sorted,
      inside the leaf's pixel, at the HEALPix index of their position, and as many as its footer says.
    - Object ids are unique in the whole catalog, and the number of rows is that in the properties.
    - All leaves come from the same run, by their fingerprints.
    - Quantiles do not decrease with their level, a value is missing only with a bit in ``<model>_flags``, and is null.
    """
    leaves = sorted(layout.list_leaves(catalog_path), key=attrgetter("index_range"))
    if not leaves:
        return Checked([f"{catalog_path}: no leaf of a catalog found"])
    found = Checked()
    problems = [*tree_problems(catalog_path, leaves), *_content_problems(catalog_path, leaves, found.damaged)]
    found.problems += [f"{catalog_path}: {problem}" for problem in problems]
    return found


def _content_problems(
    catalog_path: str, leaves: list[HealpixPixel], damaged: dict[str, str]
) -> Iterator[str]:
    """Yield the problems of each leaf, then those of all leaves together; put what is damaged into `damaged`."""
    schema: pa.Schema | None = None
    # Without this file each leaf is compared with its own schema. The validation of hats reports that it is missing.
    with contextlib.suppress(FileNotFoundError, pa.ArrowInvalid):
        data = storage.read_bytes(storage.join(catalog_path, layout.COMMON_METADATA))
        schema = pq.read_schema(io.BytesIO(data))
    ids: list[pa.ChunkedArray] = []
    footers: dict[str, dict[str, str]] = {}
    for leaf in leaves:
        name = f"leaf {leaf.name}"
        path = layout.leaf_path(catalog_path, leaf)
        try:
            data = leaf_bytes(path)
            table = parse_leaf(path, data)
            footers[name] = footer_of(pq.read_metadata(pa.BufferReader(data)))
            problems = leaf_problems(table, leaf, schema or table.schema, footers[name])
            yield from (f"{name}: {problem}" for problem in problems)
        except DamagedError as error:
            damaged[layout.leaf_path("", leaf).lstrip("/")] = error.problem
            yield f"{name}: {error}"
            continue
        except KeyError as error:
            yield f"{name}: {error}"
            continue
        # Only the ids stay in memory when the next leaf is read.
        ids.append(table.column(ID.name))
    yield from _row_problems(catalog_path, ids)
    yield from _fingerprint_problems(footers)


def _row_problems(catalog_path: str, ids: list[pa.ChunkedArray]) -> Iterator[str]:
    """Yield a problem if an object id is repeated, or if the number of rows is not that in the properties."""
    # Ids of different types cannot be compared; the check of the leaves' schemas has reported them already.
    if len({column.type for column in ids}) == 1:
        counted = pc.value_counts(pa.chunked_array([chunk for column in ids for chunk in column.chunks]))
        repeated = counted.filter(pc.greater(counted.field("counts"), 1))
        if len(repeated):
            yield f"{len(repeated)} object ids occur more than once, the first {repeated[0]['values'].as_py()}"
    try:
        properties = read_properties(catalog_path)
    except CatalogError:
        return  # The validation of hats reports that there are no properties.
    n_rows = sum(len(column) for column in ids)
    if properties.get("hats_nrows") != str(n_rows):
        yield f"its leaves hold {n_rows} rows, the properties say {properties.get('hats_nrows')}"
    expected = properties.get("galbatch_objects", str(n_rows))
    if properties.get("galbatch_complete") == "true" and expected != str(n_rows):
        yield f"its properties say it is complete, but it has {n_rows} of {expected} objects"


def _fingerprint_problems(footers: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Yield the leaves that come from another run than the first leaf, with the parts of the fingerprint that differ."""
    runs: dict[str, dict[str, str]] = {}
    for name, footer in footers.items():
        try:
            parts = dict(json.loads(footer["fingerprint"])["parts"])
        except (KeyError, TypeError, ValueError):
            parts = {"fingerprint": "is not readable"}
        runs[name] = {key: str(value) for key, value in parts.items() if key not in PER_LEAF_PARTS}
        # The digests of the bundles are an entry of their own.
        runs[name][BUNDLES_KEY] = footer.get(BUNDLES_KEY, "")
    first = next(iter(runs), "")
    for name, parts in runs.items():
        differing = sorted(key for key in {*parts, *runs[first]} if parts.get(key) != runs[first].get(key))
        if differing:
            yield f"{name} and {first} come from different runs: {', '.join(differing)} differ"
