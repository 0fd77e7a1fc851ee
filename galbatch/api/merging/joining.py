"""The rows of a merged catalog: of disjoint objects one after the other, of the same objects with the networks of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galbatch.api.merging.sources import Source
from galbatch.core.columns import (
    HEALPIX,
    ID,
    PHOT_PREFIX,
    PIXEL_FLAGS,
    band_columns,
    pixel_names,
    result_names,
)
from galbatch.core.pixels import HealpixPixel
from galbatch.errors import UsageError

__all__ = ["stacked", "with_all_networks"]

COVERAGE = band_columns("")["coverage"].name


def stacked(sources: Sequence[Source], pixel: HealpixPixel) -> pa.Table:
    """Return the rows of all catalogs in a pixel, in the columns of the first."""
    names = sources[0].schema.names
    table = pa.concat_tables([one.rows(pixel).select(names) for one in sources])
    return table.sort_by([(HEALPIX.name, "ascending"), (ID.name, "ascending")]).cast(sources[0].schema)


def with_all_networks(sources: Sequence[Source], pixel: HealpixPixel) -> pa.Table:
    """Return the rows of a pixel with the networks of all catalogs.

    Flags of the pixels are those of all cutouts together, provenance is that of the larger cutouts, as in one run of all networks.
    """
    # The catalog of the largest cutouts comes last, so that its provenance stays.
    by_size = sorted(sources, key=attrgetter("largest_px"))
    tables = {one.path: one.rows(pixel) for one in by_size}
    first = sources[0]
    columns: dict[str, tuple[pa.Field, pa.ChunkedArray]] = {}
    provenance: dict[str, tuple[pa.Field, pa.ChunkedArray]] = {}
    flags = np.bitwise_or.reduce([table.column(PIXEL_FLAGS.name).to_numpy() for table in tables.values()])
    for one in by_size:
        results = result_names(one.schema.names)
        of_pixels = pixel_names(results[1:])
        table = tables[one.path]
        # A row without any coverage was not cut here: its network's `where` left it out.
        coverage = [table.column(name) for name in of_pixels if name.startswith(COVERAGE)]
        is_cut = np.logical_or.reduce([column.is_valid().to_numpy() for column in coverage])
        for name in one.schema.names:
            field, found = one.schema.field(name), table.column(name)
            if name == PIXEL_FLAGS.name:
                found = pa.chunked_array([pa.array(flags, field.type)])
            elif name in of_pixels:
                before = provenance.get(name, (field, found))[1]
                provenance[name] = (field, pc.if_else(pa.array(is_cut), found, before))
                continue
            if name in columns:
                _require_same_values(name, columns[name][1], found, table.column(ID.name), one.path)
            columns.setdefault(name, (field, found))
    return _in_order(first, sources, columns, provenance)


def _in_order(
    first: Source,
    sources: Sequence[Source],
    columns: Mapping[str, tuple[pa.Field, pa.ChunkedArray]],
    provenance: Mapping[str, tuple[pa.Field, pa.ChunkedArray]],
) -> pa.Table:
    """Return the table with own and kept columns, flags, provenance, then the networks in the order of the catalogs."""
    stop = first.schema.names.index(PIXEL_FLAGS.name)
    results = set().union(*(result_names(one.schema.names) for one in sources))
    head = [*first.schema.names[:stop]]
    head += [name for one in sources for name in one.schema.names if name not in results and name not in head]
    models = dict.fromkeys(
        name for one in sources for name in result_names(one.schema.names)[1:] if name not in provenance
    )
    # Own and kept columns come once, whichever catalog has them first.
    names = [*dict.fromkeys(head), PIXEL_FLAGS.name]
    # Provenance of all bands comes before photometry of all bands, as in one run.
    of_pixels = sorted(provenance, key=lambda name: name.startswith(PHOT_PREFIX))
    chosen = [columns[name] for name in names] + [provenance[name] for name in of_pixels]
    chosen += [columns[name] for name in models]
    return pa.table([values for _, values in chosen], schema=pa.schema([field for field, _ in chosen]))


def _require_same_values(
    name: str, here: pa.ChunkedArray, there: pa.ChunkedArray, ids: pa.ChunkedArray, path: str
) -> None:
    """Refuse catalogs in which an object has other values of one column; a null equals a null."""
    if here.equals(there):
        return
    a, b = here.to_pylist(), there.to_pylist()
    row = next(
        (row for row, pair in enumerate(zip(a, b, strict=True)) if repr(pair[0]) != repr(pair[1])), None
    )
    if row is not None:
        raise UsageError(
            f"{path}: {name} of object {ids[row].as_py()} is {b[row]}, in another catalog {a[row]}; catalogs that contradict each other "
            "are not merged"
        )
