"""Verifying a catalog: its files, rows, fingerprints and values are checked for consistency."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from galbatch import storage
from galbatch.catalog import layout
from galbatch.catalog.checksums import leaf_bytes
from galbatch.catalog.collection.state import collection_problems
from galbatch.catalog.finishing import read_properties
from galbatch.catalog.leaf_checks import leaf_problems
from galbatch.catalog.leaves import BUNDLES_KEY, footer_of, parse_leaf
from galbatch.catalog.tree_checks import tree_problems
from galbatch.core.columns import ID
from galbatch.core.fingerprint import PER_LEAF_PARTS
from galbatch.core.pixels import HealpixPixel
from galbatch.core.prefetch import map_in_threads
from galbatch.errors import CatalogError, DamagedError

__all__ = ["Checked", "check", "verify"]

CHECKING_THREADS = 8
"""Number of leaves that are read and checked at the same time; each takes up to 20 MB (20,000 objects of 120 columns)."""


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
    - The collection beside the catalog, if there is one, was made from the catalog as it is, and hats finds it valid.
    - Quantiles do not decrease with their level, a value is missing only with a bit in ``<model>_flags``, and is null.
    """
    leaves = sorted(layout.list_leaves(catalog_path), key=attrgetter("index_range"))
    if not leaves:
        return Checked([f"{catalog_path}: no leaf of a catalog found"])
    found = Checked()
    problems = [*tree_problems(catalog_path, leaves), *_content_problems(catalog_path, leaves, found.damaged)]
    found.problems += [f"{catalog_path}: {problem}" for problem in problems]
    found.problems += collection_problems(catalog_path)
    return found


@dataclass(frozen=True)
class _CheckedLeaf:
    """A leaf that was checked, with what the checks of all leaves together need of it.

    Attributes
    ----------
    name : text for messages
    problems : one message for each problem
    damage : how it differs from its checksum, or why it cannot be read; "" if it does not
    ids : the object ids, (row,); None if they cannot be read
    run : parts of the fingerprint that all leaves of a run share, and the bundles, by their names; None likewise
    """

    name: str
    problems: tuple[str, ...]
    damage: str = ""
    ids: pa.ChunkedArray | None = None
    run: Mapping[str, str] | None = None

    @classmethod
    def check(cls, catalog_path: str, schema: pa.Schema | None, leaf: HealpixPixel) -> _CheckedLeaf:
        """Read a whole leaf and check it against `schema`, or against its own if this is None."""
        name, path = f"leaf {leaf.name}", layout.leaf_path(catalog_path, leaf)
        try:
            data = leaf_bytes(path)
            table = parse_leaf(path, data)
            footer = footer_of(pq.read_metadata(pa.BufferReader(data)))
            problems = tuple(leaf_problems(table, leaf, schema or table.schema, footer))
        except DamagedError as error:
            return cls(name, (str(error),), damage=error.problem)
        except KeyError as error:
            return cls(name, (str(error),))
        # Only the ids stay in memory when the next leaf is read.
        return cls(name, problems, ids=table.column(ID.name), run=_run_of(footer))


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
    first: _CheckedLeaf | None = None
    mixed: list[str] = []
    check_leaf = partial(_CheckedLeaf.check, catalog_path, schema)
    checked = map_in_threads(check_leaf, leaves, n_threads=CHECKING_THREADS)
    for pixel, leaf in zip(leaves, checked, strict=True):
        yield from (f"{leaf.name}: {problem}" for problem in leaf.problems)
        if leaf.damage:
            damaged[layout.leaf_path("", pixel).lstrip("/")] = leaf.damage
        if leaf.ids is not None:
            ids.append(leaf.ids)
        if leaf.run is not None:
            first = first or leaf
            mixed += _other_run(leaf, first)
    yield from _row_problems(catalog_path, ids)
    yield from mixed


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


def _run_of(footer: Mapping[str, str]) -> dict[str, str]:
    """Return the parts of a leaf's fingerprint that all leaves of a run share, and its bundles, by their names."""
    try:
        parts = dict(json.loads(footer["fingerprint"])["parts"])
    except (KeyError, TypeError, ValueError):
        parts = {"fingerprint": "is not readable"}
    shared = {key: str(value) for key, value in parts.items() if key not in PER_LEAF_PARTS}
    # The digests of the bundles are an entry of their own.
    return shared | {BUNDLES_KEY: footer.get(BUNDLES_KEY, "")}


def _other_run(leaf: _CheckedLeaf, first: _CheckedLeaf) -> list[str]:
    """Return a message if a leaf comes from another run than the first leaf, with the parts of the fingerprint that differ."""
    run, expected = leaf.run or {}, first.run or {}
    differing = sorted(key for key in {*run, *expected} if run.get(key) != expected.get(key))
    if not differing:
        return []
    return [f"{leaf.name} and {first.name} come from different runs: {', '.join(differing)} differ"]
