"""Reading a catalog: whole columns, or the objects in a cone."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from galbatch.catalog.layout import leaf_path, list_leaves
from galbatch.catalog.leaves import read_leaf, read_leaf_metadata
from galbatch.core import sky
from galbatch.core.columns import DEC, ID, RA, flag_columns
from galbatch.core.pixels import HealpixPixel
from galbatch.errors import CatalogError, UsageError

__all__ = ["FoundObject", "cone", "find_objects", "leaf_ids", "read_catalog"]

PIXEL_DEG = 58.6
"""Width of a HEALPix pixel of order 0: the square root of its area."""

INTEGER = re.compile(r"-?0*\d{1,19}")  # no longer: Python refuses to read thousands of digits

LEAVES_AT_ONCE = 16
"""Leaves searched at a time: on S3 each waits 50 ms, mostly for the network."""


def read_catalog(catalog_path: str, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Read all rows of a catalog, finished or not, sorted by ``_healpix_29``.

    Parameters
    ----------
    columns : sequence of str or None
        Only these, in this order; None: all.

    Raises
    ------
    CatalogError
        There is no leaf, a column is not there, or a leaf cannot be read.
    """
    leaves = _leaves(catalog_path)
    paths = [leaf_path(catalog_path, leaf) for leaf in leaves]
    if columns is None:
        return pa.concat_tables([read_leaf(path) for path in paths])
    there = read_leaf_metadata(paths[0])[0].schema.to_arrow_schema().names
    for name in columns:
        if name not in there:
            near = difflib.get_close_matches(name, there, n=1)
            hint = f"; did you mean {near[0]}?" if near else ";"
            raise CatalogError(f"{catalog_path}: no column {name}{hint} there are {', '.join(there)}")
    # Parquet reads columns in the file's order.
    wanted = list(columns)
    return pa.concat_tables([read_leaf(path, columns=wanted).select(wanted) for path in paths])


def leaf_ids(catalog_path: str, pixel: HealpixPixel) -> list[Any]:
    """Return the object ids of one leaf, in its order.

    Raises
    ------
    CatalogError
        The leaf cannot be read.
    """
    ids: list[Any] = read_leaf(leaf_path(catalog_path, pixel), columns=[ID.name]).column(0).to_pylist()
    return ids


@dataclass(frozen=True)
class FoundObject:
    """An object of a catalog: its id, the pixel of its leaf, and what its columns hold."""

    object_id: int | str
    pixel: HealpixPixel
    values: Mapping[str, Any]


def find_objects(catalog_path: str, object_ids: Sequence[str]) -> list[FoundObject]:
    """Find objects by their ids, in the order of these; an id that is named twice counts once.

    Of each leaf the ids are read, unless its footer says that none of those asked for can be among them; of leaves
    that hold some, also the columns of flags.

    Parameters
    ----------
    object_ids : as text, whether the catalog's ids are integers or text

    Raises
    ------
    CatalogError
        There is no leaf, or one cannot be read.
    UsageError
        An id is not in the catalog, or is no integer where the catalog's are; all such are named.
    """
    leaves = _leaves(catalog_path)
    schema = read_leaf_metadata(leaf_path(catalog_path, leaves[0]))[0].schema.to_arrow_schema()
    wanted: list[int | str] = list(dict.fromkeys(object_ids))
    if pa.types.is_integer(schema.field(ID.name).type):
        wrong = [text for text in object_ids if not INTEGER.fullmatch(text) or abs(int(text)) >= 2**63]
        if wrong:
            raise UsageError(f"{catalog_path}: its ids are integers of 64 bits; {', '.join(wrong)} is none")
        wanted = list(dict.fromkeys(int(text) for text in object_ids))
    columns = [ID.name, *flag_columns(schema.names)]
    found: dict[int | str, FoundObject] = {}
    with ThreadPoolExecutor(LEAVES_AT_ONCE) as pool:
        for start in range(0, len(leaves), LEAVES_AT_ONCE):
            some = leaves[start : start + LEAVES_AT_ONCE]
            for objects in pool.map(lambda leaf: _search(catalog_path, leaf, wanted, columns), some):
                found |= {one.object_id: one for one in objects}
            if len(found) == len(wanted):
                return [found[one] for one in wanted]
    unknown = ", ".join(str(one) for one in wanted if one not in found)
    raise UsageError(f"{catalog_path}: no object has the id {unknown}; ids are those of the column {ID.name}")


def _search(
    catalog_path: str, leaf: HealpixPixel, wanted: Sequence[int | str], columns: list[str]
) -> list[FoundObject]:
    """Return those of the objects that are in a leaf."""
    path = leaf_path(catalog_path, leaf)
    metadata = read_leaf_metadata(path)[0]
    place = metadata.schema.names.index(ID.name)
    statistics = [metadata.row_group(n).column(place).statistics for n in range(metadata.num_row_groups)]
    if not any(
        s is None or not s.has_min_max or any(s.min <= one <= s.max for one in wanted) for s in statistics
    ):
        return []
    values = pa.array(wanted)
    # Ids alone first: most leaves whose range holds an id do not hold the id.
    if not pc.any(pc.is_in(read_leaf(path, columns=[ID.name]).column(0), values)).as_py():
        return []
    table = read_leaf(path, columns=columns)
    rows = table.filter(pc.is_in(table.column(ID.name), values)).to_pylist()
    return [FoundObject(row[ID.name], leaf, row) for row in rows]


def cone(catalog_path: str, *, ra_deg: float, dec_deg: float, radius_arcsec: float) -> pa.Table:
    """Read the rows within `radius_arcsec` of a position, sorted by ``_healpix_29``; only leaves near it are read.

    Raises
    ------
    CatalogError
        There is no leaf, or one cannot be read.
    UsageError
        The position is none, or the radius is negative.
    """
    if not (math.isfinite(ra_deg) and -90 <= dec_deg <= 90 and 0 <= radius_arcsec < math.inf):
        raise UsageError(
            f"cone about ra {ra_deg}, dec {dec_deg} with radius {radius_arcsec} arcsec: expected a finite right "
            "ascension, a declination within -90..90 and a radius of 0 or more"
        )
    leaves = _leaves(catalog_path)
    tables = []
    # Without a leaf near the cone: no rows, but with their columns.
    for leaf in _near(leaves, ra_deg % 360.0, dec_deg, radius_arcsec) or leaves[:1]:
        table = read_leaf(leaf_path(catalog_path, leaf))
        separation = sky.separation_arcsec(
            ra_deg, dec_deg, table.column(RA.name).to_numpy(), table.column(DEC.name).to_numpy()
        )
        tables.append(table.filter(pa.array(separation <= radius_arcsec)))
    return pa.concat_tables(tables)


def _near(
    leaves: list[HealpixPixel], ra_deg: float, dec_deg: float, radius_arcsec: float
) -> list[HealpixPixel]:
    """Return the leaves whose pixel may overlap the cone."""
    # Pixels about as wide as the cone: a handful, whatever the radius.
    radius_arcsec = min(max(radius_arcsec, 1e-3), 180 * 3600.0)
    order = max(int(math.log2(3600.0 * PIXEL_DEG / radius_arcsec)), 0)
    pixels = sky.cone_pixels(ra_deg, dec_deg, radius_arcsec=radius_arcsec, healpix_order=order)
    ranges = [HealpixPixel(order, pixel).index_range for pixel in pixels.tolist()]
    found = []
    for leaf in leaves:
        start, stop = leaf.index_range
        if any(start < other_stop and other_start < stop for other_start, other_stop in ranges):
            found.append(leaf)
    return found


def _leaves(catalog_path: str) -> list[HealpixPixel]:
    """Return all leaves in the order of the sky, at least one."""
    leaves = sorted(list_leaves(catalog_path), key=attrgetter("index_range"))
    if not leaves:
        raise CatalogError(
            f"{catalog_path}: no leaf of a catalog is there; give the folder that holds dataset/"
        )
    return leaves
