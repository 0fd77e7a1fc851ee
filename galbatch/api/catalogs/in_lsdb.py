"""A narrowed catalog as LSDB opens it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from galbatch import catalog, storage
from galbatch.api.catalogs.conditions import Box
from galbatch.catalog import Cone, RowCondition
from galbatch.core.columns import DEC, HEALPIX, RA
from galbatch.core.process import require

__all__ = ["open_in_lsdb"]


def open_in_lsdb(catalog_path: str, conditions: Sequence[RowCondition], columns: Sequence[str] | None) -> Any:
    """Return an LSDB catalog of the rows that all conditions hold for.

    Opened from the catalog's collection, with its margin and index, if there is a current one. LSDB leaves out the partitions that a cone or box does not touch; the conditions themselves are evaluated on the rows of
    each partition, so that they mean the same as in `Catalog`.

    Parameters
    ----------
    catalog_path : str
    conditions : sequence of RowCondition
    columns : sequence of str or None
        Names of the columns; None: all.

    Raises
    ------
    MissingPackage
        LSDB is not installed.
    """
    lsdb = require("lsdb", where=catalog_path)
    own = {HEALPIX.name, RA.name, DEC.name}
    fed = dict.fromkeys(name for condition in conditions for name in condition.columns)
    read = None if columns is None else list(dict.fromkeys([*columns, *own, *fed]))
    # Without columns LSDB would take the catalog's default ones only.
    collection = catalog.collection_path(catalog_path)
    # With its margin, a crossmatch finds pairs across the edges of partitions; a stale collection has other rows.
    has_current = storage.exists(collection) and not catalog.collection_problems(catalog_path)
    path = collection if has_current else catalog_path
    opened = lsdb.open_catalog(_upath(path), columns=read or "all", search_filter=_search(conditions))
    for condition in conditions:
        opened = opened.map_partitions(_rows_where, condition)
    if read is not None and len(read) > len(columns or ()):
        opened = opened[[name for name in opened.columns if name in {*(columns or ()), RA.name, DEC.name}]]
    return opened


def _upath(catalog_path: str) -> Any:
    from hats.io.file_io import get_upath

    return get_upath(catalog_path, **storage.reader_options(catalog_path))


def _search(conditions: Sequence[RowCondition]) -> Any:
    """Return LSDB's filter for the last cone or box, or None."""
    lsdb = require("lsdb")
    for condition in reversed(conditions):
        if isinstance(condition, Cone):
            return lsdb.ConeSearch(
                condition.ra_deg % 360.0, condition.dec_deg, condition.radius_arcsec, fine=False
            )
        if isinstance(condition, Box):
            box = condition.box
            return lsdb.BoxSearch(
                ra=(box.ra_min_deg, box.ra_max_deg), dec=(box.dec_min_deg, box.dec_max_deg), fine=False
            )
    return None


def _rows_where(frame: Any, condition: RowCondition) -> Any:
    """Return the rows of a data frame that a condition holds for; called on LSDB's workers."""
    rows = pa.table({name: pa.array(frame[name], from_pandas=True) for name in condition.columns})
    return frame[condition.holds(rows)]
