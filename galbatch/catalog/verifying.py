"""Verify: everything a catalog promises, checked on its files."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from operator import attrgetter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from galbatch import storage
from galbatch.catalog import layout
from galbatch.catalog.finishing import read_properties
from galbatch.catalog.leaves import footer_of, read_leaf, read_leaf_metadata, sorting_problem
from galbatch.catalog.schema import DEC, HEALPIX, ID, RA, schema_difference
from galbatch.core import sky
from galbatch.core.columns import MODEL_FLAGS, parse_columns, quantity_column
from galbatch.core.pixels import HealpixPixel
from galbatch.errors import CatalogError

__all__ = ["verify"]

PER_LEAF_PARTS = frozenset({"division", "objects", "tiles", "kept columns", "selected objects"})
"""Parts of a leaf's fingerprint that are its own; all others are the same in every leaf of a run."""


def verify(catalog_path: str) -> list[str]:
    """Check a finished catalog; returns the problems found, [] if it is good.

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
    problems = [f"{catalog_path}: {problem}" for problem in _tree_problems(catalog_path, leaves)]
    problems += [f"{catalog_path}: {problem}" for problem in _content_problems(catalog_path, leaves)]
    return problems


# --- the tree --------------------------------------------------------------------------------------------


def _tree_problems(catalog_path: str, leaves: list[HealpixPixel]) -> Iterator[str]:
    if stray := layout.stray_files(catalog_path):
        yield f"{len(stray)} files below dataset/ are none of the catalog's, the first {stray[0]}; remove them"
    for leaf, following in pairwise(leaves):
        if following.index_range[0] < leaf.index_range[1]:
            yield f"leaf {following.name} lies inside leaf {leaf.name}"
    listed = _listed_leaves(catalog_path)
    if missing := sorted(set(listed) - set(leaves)):
        yield f"{len(missing)} leaves are missing, the first {missing[0].name}; galbatch run does them again"
    if extra := sorted(set(leaves) - set(listed)):
        yield f"{len(extra)} leaves are not in partition_info.csv, the first {extra[0].name}; finish again"
    yield from _hats_problems(catalog_path)


def _listed_leaves(catalog_path: str) -> list[HealpixPixel]:
    try:
        text = storage.read_bytes(storage.join(catalog_path, layout.PARTITION_INFO)).decode()
        rows = [line.split(",") for line in text.splitlines()[1:]]
        return [HealpixPixel(int(row[0]), int(row[1])) for row in rows]
    except (FileNotFoundError, ValueError, IndexError):
        return []


class _Messages(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(level=logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def _hats_problems(catalog_path: str) -> Iterator[str]:
    """What hats' strict validation finds; it logs to the root logger and returns only yes or no."""
    from hats.io.validation import is_valid_catalog

    messages = _Messages()
    logging.getLogger().addHandler(messages)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            valid = is_valid_catalog(layout.hats_path(catalog_path), strict=True)
    # What reading broken files raises: hats does not catch it.
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        yield f"hats cannot read it: {type(error).__name__}: {error}"
        return
    finally:
        logging.getLogger().removeHandler(messages)
    if not valid:
        yield f"hats' strict validation fails: {'; '.join(messages.said) or 'no reason given'}"


# --- the content -----------------------------------------------------------------------------------------


def _content_problems(catalog_path: str, leaves: list[HealpixPixel]) -> Iterator[str]:
    schema = _common_schema(catalog_path)
    ids: list[pa.ChunkedArray] = []
    n_rows = 0
    footers: dict[str, dict[str, str]] = {}
    for leaf in leaves:
        name = f"leaf {leaf.name}"
        path = layout.leaf_path(catalog_path, leaf)
        try:
            footers[name] = footer_of(read_leaf_metadata(path)[0])
            table = read_leaf(path)
            yield from (
                f"{name}: {p}" for p in _leaf_problems(table, leaf, schema or table.schema, footers[name])
            )
        except (CatalogError, KeyError) as error:
            yield f"{name}: {error}"
            continue
        ids.append(table.column(ID.name))
        n_rows += len(table)
    yield from _repeated_ids(ids)
    yield from _count_problems(catalog_path, n_rows)
    yield from _fingerprint_problems(footers)


def _common_schema(catalog_path: str) -> pa.Schema | None:
    try:
        data = storage.read_bytes(storage.join(catalog_path, layout.COMMON_METADATA))
        return pq.read_schema(io.BytesIO(data))
    except (FileNotFoundError, pa.ArrowInvalid):
        return None  # hats' validation says so


def _leaf_problems(
    table: pa.Table, leaf: HealpixPixel, schema: pa.Schema, footer: Mapping[str, str]
) -> Iterator[str]:
    if difference := schema_difference(table.schema, schema):
        yield f"its schema is not the catalog's: {difference}"
        return
    if problem := sorting_problem(table, leaf):
        yield problem
    index = sky.healpix_29(table.column(RA.name).to_numpy(), table.column(DEC.name).to_numpy())
    elsewhere = index != table.column(HEALPIX.name).to_numpy()
    if elsewhere.any():
        yield f"{int(elsewhere.sum())} rows have a {HEALPIX.name} that is not that of their position, first row {int(np.argmax(elsewhere))}"
    if footer.get("n_objects", str(len(table))) != str(len(table)):
        yield f"{len(table)} rows, its footer says {footer['n_objects']}"
    yield from _quantile_problems(table)


def _quantile_problems(table: pa.Table) -> Iterator[str]:
    for (model, quantity), columns in _quantile_columns(table.column_names).items():
        name = quantity_column(model, quantity)
        values = np.stack([table.column(column).to_numpy() for column in columns], axis=1)  # (object, level)
        falling = (np.diff(values, axis=1) < 0).any(axis=1)
        if falling.any():
            yield f"{int(falling.sum())} rows have quantiles of {name} that fall, first row {int(np.argmax(falling))}"
        flags = table.column(MODEL_FLAGS.name(model)).to_numpy()
        unexplained = np.isnan(values).any(axis=1) & (flags == 0)
        if unexplained.any():
            yield (
                f"{int(unexplained.sum())} rows have NaN in {name} and no flag that says why, first row "
                f"{int(np.argmax(unexplained))}"
            )


def _quantile_columns(names: Sequence[str]) -> dict[tuple[str, str], list[str]]:
    """Columns of the quantiles of each model's quantities, by rising level."""
    found: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for name, (model, key) in parse_columns(names).items():
        if key.level is not None:
            found.setdefault((model, key.quantity), []).append((key.level, name))
    return {quantity: [name for _, name in sorted(columns)] for quantity, columns in found.items()}


def _repeated_ids(ids: list[pa.ChunkedArray]) -> Iterator[str]:
    if len({column.type for column in ids}) != 1:
        return  # no leaf, or leaves that disagree on the type, which was said
    counted = pc.value_counts(pa.chunked_array([chunk for column in ids for chunk in column.chunks]))
    repeated = counted.filter(pc.greater(counted.field("counts"), 1))
    if len(repeated):
        yield f"{len(repeated)} object ids stand more than once, the first {repeated[0]['values'].as_py()}"


def _count_problems(catalog_path: str, n_rows: int) -> Iterator[str]:
    try:
        properties = read_properties(catalog_path)
    except CatalogError:
        return  # hats' validation says so
    if properties.get("hats_nrows") != str(n_rows):
        yield f"its leaves hold {n_rows} rows, the properties say {properties.get('hats_nrows')}"
    expected = properties.get("galbatch_objects", str(n_rows))
    if properties.get("galbatch_complete") == "true" and expected != str(n_rows):
        yield f"it says it is complete, but holds {n_rows} of {expected} objects"


def _fingerprint_problems(footers: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Leaves that another run wrote than the first leaf's."""
    runs = {name: _common_parts(footer) for name, footer in footers.items()}
    first = next(iter(runs), "")
    for name, parts in runs.items():
        differing = sorted(key for key in {*parts, *runs[first]} if parts.get(key) != runs[first].get(key))
        if differing:
            yield f"{name} and {first} are of different runs: {', '.join(differing)} differ"


def _common_parts(footer: Mapping[str, str]) -> dict[str, str]:
    """What the leaves of one run have in common."""
    try:
        parts = dict(json.loads(footer["fingerprint"])["parts"])
    except (KeyError, TypeError, ValueError):
        parts = {"fingerprint": "is not readable"}
    parts = {key: str(value) for key, value in parts.items() if key not in PER_LEAF_PARTS}
    return parts | {"bundles": footer.get("bundles", "")}
