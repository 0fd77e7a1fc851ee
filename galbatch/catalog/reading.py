"""Reading a catalog: whole columns, objects by their ids, or the objects in a cone."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from galbatch.catalog.collection.index import find_places
from galbatch.catalog.layout import leaf_path, leaves_of
from galbatch.catalog.leaves import read_leaf, read_leaf_metadata
from galbatch.catalog.scanning import AtIndices, Cone, HasText, leaves_at_once, scan
from galbatch.config import nearest_hint
from galbatch.core.columns import HEALPIX, ID, SEPARATION, flag_columns, result_names
from galbatch.core.pixels import HealpixPixel
from galbatch.core.prefetch import map_in_threads
from galbatch.errors import CatalogError, DamagedError, UsageError

__all__ = [
    "FoundObject",
    "cone",
    "find_objects",
    "leaf_ids",
    "listed_columns",
    "locate_objects",
    "parse_ids",
    "read_catalog",
    "read_objects",
    "read_schema",
    "require_columns",
]

MOST_LISTED = 20
"""Columns that a message lists: a catalog of two networks has 120, which hide what the message says."""

INTEGER = re.compile(
    r"-?0*\d{1,19}"
)  # An int64 has at most 19 digits, and Python refuses to convert thousands of them.


def read_schema(catalog_path: str, leaves: Sequence[HealpixPixel] | None = None) -> pa.Schema:
    """Return the schema of a catalog, finished or not, with unit, description, UCD and bits of flags as field metadata.

    It is that of the first of the leaves that is not damaged; None: they are listed first.

    Raises
    ------
    CatalogError
        There is no leaf.
    DamagedError
        None of the leaves can be read.
    """
    first_error: DamagedError | None = None
    for leaf in leaves_of(catalog_path) if leaves is None else leaves:
        try:
            metadata, _ = read_leaf_metadata(leaf_path(catalog_path, leaf))
        except DamagedError as error:
            first_error = first_error or error
        else:
            return metadata.schema.to_arrow_schema().remove_metadata()
    assert first_error is not None, "a catalog has a leaf"
    raise first_error


def read_catalog(catalog_path: str, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Read all rows of a catalog, finished or not, sorted by ``_healpix_29``.

    Parameters
    ----------
    columns : sequence of str or None
        Names of the columns to read, in the order of the result; None for all.

    Raises
    ------
    CatalogError
        There is no leaf, a column does not exist, or a leaf cannot be read.
    """
    leaves = leaves_of(catalog_path)
    paths = [leaf_path(catalog_path, leaf) for leaf in leaves]
    wanted = None if columns is None else list(columns)
    if wanted is not None:
        require_columns(catalog_path, read_leaf_metadata(paths[0])[0].schema.to_arrow_schema().names, wanted)
    read = partial(read_leaf, columns=wanted)
    tables = list(map_in_threads(read, paths, n_threads=leaves_at_once(catalog_path)))
    # pyarrow returns columns in the order of the file, whatever the order in which they are named.
    return pa.concat_tables([one if wanted is None else one.select(wanted) for one in tables])


def require_columns(catalog_path: str, there: Sequence[str], columns: Sequence[str]) -> None:
    """Raise `CatalogError`, which names the most similar column, if a catalog of the columns `there` lacks one of `columns`."""
    for name in columns:
        if name not in there:
            hint = nearest_hint(name, there) or ";"
            raise CatalogError(
                f"{catalog_path}: no column {name}{hint} there are {listed_columns(catalog_path, there)}"
            )


def listed_columns(catalog_path: str, names: Sequence[str]) -> str:
    """Return the names of a catalog's columns for a message; of many their number, and the command that lists them."""
    if len(names) <= MOST_LISTED:
        return ", ".join(names)
    return f"{len(names)}, which galbatch columns {catalog_path} lists"


def leaf_ids(catalog_path: str, pixel: HealpixPixel) -> list[Any]:
    """Return the object ids of one leaf, in the order of its rows.

    Raises
    ------
    CatalogError
        The leaf cannot be read.
    """
    ids: list[Any] = read_leaf(leaf_path(catalog_path, pixel), columns=[ID.name]).column(0).to_pylist()
    return ids


@dataclass(frozen=True)
class FoundObject:
    """An object of a catalog: its id, the pixel of its leaf, and the values of its HEALPix index and columns of flags."""

    object_id: int | str
    pixel: HealpixPixel
    values: Mapping[str, Any]


def parse_ids(catalog_path: str, kind: pa.DataType, object_ids: Iterable[str]) -> list[int | str]:
    """Return ids, given as text, as the catalog's type `kind` of ids has them, each once.

    Raises
    ------
    UsageError
        An id is not an integer although the catalog's ids are. The message lists all of them.
    """
    texts = list(dict.fromkeys(object_ids))
    if not pa.types.is_integer(kind):
        return [*texts]
    wrong = [text for text in texts if not INTEGER.fullmatch(text) or abs(int(text)) >= 2**63]
    if wrong:
        raise UsageError(f"{catalog_path}: its ids are 64-bit integers, which excludes {', '.join(wrong)}")
    return list(dict.fromkeys(int(text) for text in texts))


def _resolve_ids(
    catalog_path: str, schema: pa.Schema, object_ids: Sequence[str], leaves: Sequence[HealpixPixel]
) -> list[int | str]:
    """Return ids as `parse_ids` does; where ids are integers, other text is a name, which is looked up in the kept columns of text.

    Raises
    ------
    UsageError
        A text is neither an id nor the name of one object.
    """
    kind = schema.field(ID.name).type
    texts = {text for text in object_ids if not INTEGER.fullmatch(text)}
    results = set(result_names(schema.names))
    columns = [
        field.name
        for field in schema
        if field.name not in results
        and (pa.types.is_string(field.type) or pa.types.is_large_string(field.type))
    ]
    if not pa.types.is_integer(kind) or not texts or not columns:
        return parse_ids(catalog_path, kind, object_ids)
    read = [ID.name, *columns]
    found = pa.concat_tables(
        [
            schema.empty_table().select(read),
            *scan(catalog_path, leaves, [HasText(columns, texts)], columns=read),
        ]
    )
    named: dict[str, set[int]] = {text: set() for text in texts}
    for row in found.to_pylist():
        for text in texts.intersection(row[name] for name in columns):
            named[text].add(row[ID.name])
    _require_one_each(catalog_path, named, columns)
    return parse_ids(catalog_path, kind, [str(*named[one]) if one in named else one for one in object_ids])


def _require_one_each(catalog_path: str, named: Mapping[str, set[int]], columns: Sequence[str]) -> None:
    """Raise `UsageError` about texts that no object has in the kept columns of text, or several."""
    if unknown := [text for text, ids in named.items() if not ids]:
        raise UsageError(
            f"{catalog_path}: no object has {', '.join(sorted(unknown))} as its id, a 64-bit integer, or in a kept column of text "
            f"({', '.join(columns)})"
        )
    for text, ids in named.items():
        if len(ids) > 1:
            some = ", ".join(map(str, sorted(ids)[:3]))
            raise UsageError(
                f"{catalog_path}: {text} is the name of {len(ids)} objects, such as {some}; give the id of one"
            )


def find_objects(catalog_path: str, object_ids: Sequence[str]) -> list[FoundObject]:
    """Return the objects with the given ids or names, in the order of the ids; an id that is repeated gives one object.

    With a current index (`make_index`) the row groups of the objects are read, and nothing else. Without one leaves are
    skipped if the minimum and maximum of the ids in their footer exclude all ids. From the others the ids are read, and the
    columns of flags if the leaf has one of the objects.

    Parameters
    ----------
    catalog_path : str
    object_ids : sequence of str
        Ids as text, even if the catalog's ids are integers. Where they are, other text is looked up in the kept columns of text.

    Raises
    ------
    CatalogError
        There is no leaf, or one cannot be read.
    UsageError
        An id is not in the catalog, or a name is that of none or of several objects. The message lists all of them.
    """
    leaves = leaves_of(catalog_path)
    schema = read_schema(catalog_path, leaves)
    wanted = _resolve_ids(catalog_path, schema, object_ids, leaves)
    columns = [HEALPIX.name, ID.name, *flag_columns(schema.names)]
    places = find_places(catalog_path, wanted)
    if places is None:
        found = _search_all(catalog_path, leaves, wanted, columns)
    else:
        found = _read_places(catalog_path, leaves, places, columns)
    _require_all(catalog_path, wanted, found)
    return [found[one] for one in wanted]


def _require_all(catalog_path: str, wanted: Sequence[int | str], found: Mapping[int | str, object]) -> None:
    if unknown := ", ".join(str(one) for one in wanted if one not in found):
        raise UsageError(
            f"{catalog_path}: no object has the id {unknown}; ids are those of the column {ID.name}"
        )


def _read_places(
    catalog_path: str, leaves: Sequence[HealpixPixel], places: Mapping[int | str, int], columns: list[str]
) -> dict[int | str, FoundObject]:
    """Return objects by id, from the row groups that hold their HEALPix indices, which `places` gives by id."""
    some = _leaves_at(leaves, places.values())
    tables = scan(catalog_path, some, [AtIndices(places.values())], columns=columns)
    wanted = pa.array(list(places))
    return {
        one.object_id: one
        for leaf, table in zip(some, tables, strict=True)
        for one in _found(leaf, table, wanted)
    }


def _leaves_at(leaves: Sequence[HealpixPixel], indices: Iterable[int]) -> list[HealpixPixel]:
    """Return the leaves that cover HEALPix indices at order 29."""
    starts = [leaf.index_range[0] for leaf in leaves]
    return [leaves[number] for number in sorted({bisect_right(starts, index) - 1 for index in indices})]


def _search_all(
    catalog_path: str, leaves: Sequence[HealpixPixel], wanted: list[int | str], columns: list[str]
) -> dict[int | str, FoundObject]:
    """Return objects by id, from all leaves whose range of ids has one of the wanted."""
    found: dict[int | str, FoundObject] = {}
    search = partial(_search, catalog_path, wanted=wanted, columns=columns)
    n_threads = leaves_at_once(catalog_path)
    with ThreadPoolExecutor(n_threads) as pool:
        for start in range(0, len(leaves), n_threads):
            for objects in pool.map(search, leaves[start : start + n_threads]):
                found |= {one.object_id: one for one in objects}
            # Checked after each batch of leaves, so that the rest is not read once all objects are found.
            if len(found) == len(wanted):
                break
    return found


def _search(
    catalog_path: str, leaf: HealpixPixel, *, wanted: Sequence[int | str], columns: list[str]
) -> list[FoundObject]:
    """Return the wanted objects that are in a leaf."""
    path = leaf_path(catalog_path, leaf)
    metadata = read_leaf_metadata(path)[0]
    place = metadata.schema.names.index(ID.name)
    statistics = [metadata.row_group(n).column(place).statistics for n in range(metadata.num_row_groups)]
    # A row group without statistics may hold any id.
    if not any(
        s is None or not s.has_min_max or any(s.min <= one <= s.max for one in wanted) for s in statistics
    ):
        return []
    values = pa.array(wanted)
    # Ids are read alone first: most leaves whose range includes an id do not have the object.
    if not pc.any(pc.is_in(read_leaf(path, columns=[ID.name]).column(0), values)).as_py():
        return []
    return _found(leaf, read_leaf(path, columns=columns), values)


def _found(leaf: HealpixPixel, table: pa.Table, wanted: pa.Array) -> list[FoundObject]:
    """Return the objects in some rows of a leaf whose ids are wanted."""
    rows = table.filter(pc.is_in(table.column(ID.name), wanted)).to_pylist()
    return [FoundObject(row[ID.name], leaf, row) for row in rows]


def locate_objects(
    catalog_path: str, object_ids: Sequence[str], leaves: Sequence[HealpixPixel] | None = None
) -> dict[int | str, int]:
    """Return the HEALPix index at order 29 of the objects with the given ids, by id and in their order; raises as `find_objects` does.

    With a current index no rows of leaves are read. Leaves are listed unless they are given.
    """
    leaves = leaves_of(catalog_path) if leaves is None else leaves
    wanted = _resolve_ids(catalog_path, read_schema(catalog_path, leaves), object_ids, leaves)
    places = find_places(catalog_path, wanted)
    if places is None:
        found = find_objects(catalog_path, list(map(str, wanted)))
        places = {one.object_id: one.values[HEALPIX.name] for one in found}
    _require_all(catalog_path, wanted, places)
    return {one: places[one] for one in wanted}


def read_objects(catalog_path: str, object_ids: Sequence[str]) -> pa.Table:
    """Return the rows of the objects with the given ids, with all columns, in the order of the ids; raises as `find_objects` does."""
    leaves = leaves_of(catalog_path)
    places = locate_objects(catalog_path, object_ids, leaves)
    there = AtIndices(places.values())
    # Other objects at the same index are left out by their ids.
    rows = pa.concat_tables(scan(catalog_path, _leaves_at(leaves, places.values()), [there]))
    place = {object_id: row for row, object_id in enumerate(rows.column(ID.name).to_pylist())}
    return rows.take([place[one] for one in places])


def cone(
    catalog_path: str,
    *,
    ra_deg: float,
    dec_deg: float,
    radius_arcsec: float,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Return the rows within a radius of a position, the nearest first. Only leaves that overlap the cone are read.

    Parameters
    ----------
    catalog_path : str
    ra_deg, dec_deg : float
        Center of the cone, ICRS, deg.
    radius_arcsec : float
        0 or more.
    columns : sequence of str or None
        Names of the columns to return, in this order; None for all.

    Returns
    -------
    pyarrow.Table
        The columns, and last ``separation_arcsec`` (float64), by which rows are sorted.

    Raises
    ------
    CatalogError
        There is no leaf, a column does not exist, or a leaf cannot be read.
    UsageError
        The position is not a position on the sky, or the radius is negative or not finite.
    """
    circle = Cone(ra_deg, dec_deg, radius_arcsec)
    leaves = leaves_of(catalog_path)
    if columns is not None:
        require_columns(catalog_path, read_schema(catalog_path, leaves).names, columns)
    read = None if columns is None else list(dict.fromkeys([*columns, *circle.columns]))
    parts = list(scan(catalog_path, leaves, [circle], columns=read))
    # If no leaf is near the cone, the result has no rows, but all columns.
    table = pa.concat_tables(parts) if parts else read_schema(catalog_path, leaves).empty_table()
    # A kept column of that name gives way to the distance from this center.
    kept = [name for name in columns or table.column_names if name != SEPARATION.name]
    return circle.with_separation(table).select([*kept, SEPARATION.name]).sort_by(SEPARATION.name)
