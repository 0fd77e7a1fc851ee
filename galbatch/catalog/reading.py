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
import pyarrow.parquet as pq

from galbatch.catalog.layout import leaf_path, list_leaves
from galbatch.catalog.leaves import read_leaf, read_leaf_metadata
from galbatch.core import sky
from galbatch.core.columns import flag_columns
from galbatch.core.pixels import HealpixPixel
from galbatch.errors import CatalogError, UsageError

__all__ = ["FoundObject", "cone", "find_objects", "leaf_ids", "read_catalog"]

PIXEL_DEG = 58.6
"""Width of a HEALPix pixel of order 0: the square root of its area."""

INTEGER = re.compile(r"-?0*\d{1,19}")  # no longer: Python refuses to read thousands of digits

LEAVES_AT_ONCE = 16
"""Leaves searched at a time: on S3 each waits 50 ms, mostly for the network."""


def read_catalog(catalog_path: str, *, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a catalog, finished or not, sorted by ``_healpix_29``.

    Parameters
    ----------
    columns : sequence of str or None
        Only these, in this order; None: all.

    Raises
    ------
    CatalogError
        There is no leaf, a column is not there, or a leaf cannot be read.
    """
    leaves = sorted(_leaves(catalog_path), key=attrgetter("index_range"))
    wanted = None if columns is None else _checked(catalog_path, leaves[0], columns)
    tables = [read_leaf(leaf_path(catalog_path, leaf), columns=wanted) for leaf in leaves]
    return pa.concat_tables(tables if wanted is None else [table.select(wanted) for table in tables])


def leaf_ids(catalog_path: str, pixel: HealpixPixel) -> list[Any]:
    """Object ids of one leaf, in its order.

    Raises
    ------
    CatalogError
        The leaf cannot be read.
    """
    ids: list[Any] = read_leaf(leaf_path(catalog_path, pixel), columns=["object_id"]).column(0).to_pylist()
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
    leaves = sorted(_leaves(catalog_path), key=attrgetter("index_range"))
    schema = read_leaf_metadata(leaf_path(catalog_path, leaves[0]))[0].schema.to_arrow_schema()
    wanted = _as_ids(catalog_path, object_ids, schema.field("object_id").type)
    columns = ["object_id", *flag_columns(schema.names)]
    found: dict[int | str, FoundObject] = {}
    with ThreadPoolExecutor(LEAVES_AT_ONCE) as pool:
        for start in range(0, len(leaves), LEAVES_AT_ONCE):
            some = leaves[start : start + LEAVES_AT_ONCE]
            for objects in pool.map(lambda leaf: _search(catalog_path, leaf, wanted, columns), some):
                found |= {one.object_id: one for one in objects}
            if len(found) == len(wanted):
                return [found[one] for one in wanted]
    unknown = ", ".join(str(one) for one in wanted if one not in found)
    raise UsageError(f"{catalog_path}: no object has the id {unknown}; ids are those of the column object_id")


def _as_ids(catalog_path: str, texts: Sequence[str], kind: pa.DataType) -> list[int | str]:
    """Each once, of the catalog's type."""
    if not pa.types.is_integer(kind):
        return list(dict.fromkeys(texts))
    wrong = [text for text in texts if not INTEGER.fullmatch(text) or abs(int(text)) >= 2**63]
    if wrong:
        raise UsageError(f"{catalog_path}: its ids are integers of 64 bits; {', '.join(wrong)} is none")
    return list(dict.fromkeys(int(text) for text in texts))


def _search(
    catalog_path: str, leaf: HealpixPixel, wanted: Sequence[int | str], columns: list[str]
) -> list[FoundObject]:
    """Those of the objects that are in a leaf."""
    path = leaf_path(catalog_path, leaf)
    if not _may_hold(read_leaf_metadata(path)[0], wanted):
        return []
    values = pa.array(wanted)
    if not pc.any(pc.is_in(read_leaf(path, columns=["object_id"]).column(0), values)).as_py():
        return []
    table = read_leaf(path, columns=columns)
    rows = table.filter(pc.is_in(table.column("object_id"), values)).to_pylist()
    return [FoundObject(row["object_id"], leaf, row) for row in rows]


def _may_hold(metadata: pq.FileMetaData, wanted: Sequence[Any]) -> bool:
    """Whether ids lie between the least and the largest of a leaf, as far as its footer tells these."""
    column = metadata.schema.names.index("object_id")
    groups = (metadata.row_group(number).column(column) for number in range(metadata.num_row_groups))
    statistics = [group.statistics for group in groups]
    return any(
        s is None or not s.has_min_max or any(s.min <= one <= s.max for one in wanted) for s in statistics
    )


def cone(catalog_path: str, *, ra_deg: float, dec_deg: float, radius_arcsec: float) -> pa.Table:
    """Rows within `radius_arcsec` of a position, sorted by ``_healpix_29``; only leaves near it are read.

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
    near = sorted(_near(leaves, ra_deg % 360.0, dec_deg, radius_arcsec), key=attrgetter("index_range"))
    tables = []
    # Without a leaf near the cone: no rows, but with their columns.
    for leaf in near or leaves[:1]:
        table = read_leaf(leaf_path(catalog_path, leaf))
        separation = sky.separation_arcsec(
            ra_deg, dec_deg, table.column("ra_deg").to_numpy(), table.column("dec_deg").to_numpy()
        )
        tables.append(table.filter(pa.array(separation <= radius_arcsec)))
    return pa.concat_tables(tables)


def _near(
    leaves: list[HealpixPixel], ra_deg: float, dec_deg: float, radius_arcsec: float
) -> list[HealpixPixel]:
    """Leaves whose pixel may overlap the cone."""
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
    leaves = list_leaves(catalog_path)
    if not leaves:
        raise CatalogError(
            f"{catalog_path}: no leaf of a catalog is there; give the folder that holds dataset/"
        )
    return leaves


def _checked(catalog_path: str, leaf: HealpixPixel, columns: Sequence[str]) -> list[str]:
    there = read_leaf_metadata(leaf_path(catalog_path, leaf))[0].schema.to_arrow_schema().names
    for name in columns:
        if name not in there:
            near = difflib.get_close_matches(name, there, n=1)
            hint = f"; did you mean {near[0]}?" if near else ";"
            raise CatalogError(f"{catalog_path}: no column {name}{hint} there are {', '.join(there)}")
    return list(columns)
