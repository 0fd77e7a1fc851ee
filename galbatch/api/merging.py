"""Merging: two catalogs of disjoint objects, or of the same objects with other networks, become one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from galbatch import __version__, catalog, storage
from galbatch.core.columns import (
    HEALPIX,
    ID,
    IDENTITY,
    PHOT_PREFIX,
    PIXEL_FLAGS,
    band_columns,
    model_of_network,
    parse_columns,
    pixel_names,
    result_names,
)
from galbatch.core.fingerprint import PER_LEAF_PARTS, Fingerprint, differences, digest, shown
from galbatch.core.pixels import HealpixPixel, PixelIndex
from galbatch.core.texts import counted
from galbatch.core.types import Grid
from galbatch.errors import UsageError
from galbatch.planning import divide

__all__ = ["merge"]

COVERAGE = band_columns("")["coverage"].name

MAX_OBJECTS = 20_000
"""Most rows of a leaf of the merged catalog."""

# An engine changes the last digits alone, and so does the division of a run into networks; footprints may be of other surveys.
FREE_PARTS = ("engine of ", "survey", "grids", "models", "planes", "flags of the list")


@dataclass(frozen=True)
class _Source:
    """A catalog to merge: its leaves, schema, and the parts of the fingerprint that all its leaves share."""

    path: str
    leaves: PixelIndex
    schema: pa.Schema
    parts: Mapping[str, str]
    bundles: Mapping[str, str]
    ids: pa.Array
    index: npt.NDArray[np.int64]

    @classmethod
    def open(cls, path: str) -> _Source:
        properties = catalog.read_properties(path)
        if properties.get("galbatch_complete") != "true":
            raise UsageError(f"{path}: is not complete; run galbatch run until it is, then merge")
        leaves = catalog.leaves_of(path)
        schema = catalog.read_schema(path)
        if not any(key == IDENTITY for _, key in parse_columns(schema.names).values()):
            raise UsageError(
                f"{path}: has no column that tells from what its values follow, such as {IDENTITY.name('gampen')}; it is of "
                "a version before 8 and cannot be merged: run it again"
            )
        footer = catalog.read_footer(path, leaves[0]) or {}
        parts = json.loads(footer["fingerprint"])["parts"]
        shared = {key: value for key, value in parts.items() if key not in PER_LEAF_PARTS}
        table = catalog.read_catalog(path, columns=[ID.name, HEALPIX.name])
        return cls(
            path,
            PixelIndex(leaves),
            schema,
            shared,
            json.loads(footer.get(catalog.BUNDLES_KEY, "{}")),
            table.column(ID.name).combine_chunks(),
            table.column(HEALPIX.name).to_numpy(),
        )

    @property
    def models(self) -> list[str]:
        """Names of the networks, in the catalog's order."""
        return list(dict.fromkeys(model for model, _ in parse_columns(self.schema.names).values()))

    @property
    def largest_px(self) -> int:
        """Size in px of the largest cutouts that the catalog was made from."""
        labels = [text.split()[0] for text in self.parts.get("grids", "").split(", ") if text]
        grids = [grid for label in labels if (grid := Grid.from_label(label)) is not None]
        return max((grid.size_px for grid in grids), default=0)

    def rows(self, pixel: HealpixPixel) -> pa.Table:
        """Return all columns of the rows in a pixel, sorted by HEALPix index and id."""
        leaves = self.leaves.overlapping(pixel)
        parts = list(catalog.scan(self.path, leaves, [catalog.InPixel(pixel)], columns=self.schema.names))
        empty = pa.schema([field.remove_metadata() for field in self.schema]).empty_table()
        table = pa.concat_tables(
            [empty, *(part.replace_schema_metadata(None).cast(empty.schema) for part in parts)]
        )
        return table.sort_by([(HEALPIX.name, "ascending"), (ID.name, "ascending")])


def merge(paths: Sequence[str], output: str) -> int:
    """Write a catalog of all rows and all networks of several complete catalogs, which stay as they are.

    Parameters
    ----------
    paths : sequence of str
        Catalogs either without an object in common, with the same columns, or of the same objects.
    output : str
        Folder of the new catalog, which must not hold one.

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    UsageError
        The catalogs contradict each other: some objects are in several of them and not all, columns of one name differ in unit
        or meaning, networks of one name differ, or an object has other values in another catalog.
    CatalogError
        A catalog is not finished.
    """
    if len(paths) < 2:
        raise UsageError("galbatch merge: give two catalogs or more")
    if catalog.list_leaves(output):
        raise UsageError(f"{output}: holds a catalog already; choose another -o")
    first, *others = [_Source.open(path) for path in paths]
    for other in others:
        _require_same_settings(first, other)
    sources = (first, *others)
    same_objects = _have_same_objects(sources)
    if not same_objects:
        _require_same_columns(first, others)
    index = np.sort(first.index if same_objects else np.concatenate([one.index for one in sources]))
    partitions = divide(index, max_objects=MAX_OBJECTS, max_bytes=1)
    join = _with_all_networks if same_objects else _stacked
    bundles = {name: sha for source in sources for name, sha in source.bundles.items()}
    if same_objects:
        # Objects that contradict each other are found before anything is written: nothing is left of a merge that is refused.
        for partition in partitions:
            join(sources, partition)
    storage.check_writable(output)
    for partition in partitions:
        table = join(sources, partition)
        footer = _footer(
            sources, table, division=f"{partition.name} of {partition.n_objects} objects", bundles=bundles
        )
        catalog.write_leaf(output, partition, table, footer=footer)
    return catalog.finish(
        output, partitions=partitions, properties=_properties(sources, len(index)), n_rows_expected=len(index)
    )


def _footer(
    sources: Sequence[_Source], table: pa.Table, *, division: str, bundles: Mapping[str, str]
) -> dict[str, str]:
    """Return the footer of a merged leaf: what its rows follow from, and the networks."""
    shared = {key: value for key, value in sources[0].parts.items() if not key.startswith(FREE_PARTS)}
    networks = {
        key: value for one in sources for key, value in one.parts.items() if key.startswith("bundle ")
    }
    parts = {
        **shared,
        **networks,
        "merged": ", ".join(digest(dict(one.parts)) for one in sources),
        "division": division,
        "objects": digest(table.select([ID.name])),
    }
    return {
        "fingerprint": json.dumps(Fingerprint(parts).as_json(), sort_keys=True),
        "version": __version__,
        catalog.BUNDLES_KEY: json.dumps(bundles, sort_keys=True),
        "n_objects": str(table.num_rows),
    }


def _require_same_settings(first: _Source, other: _Source) -> None:
    """Refuse two catalogs whose common networks were run with other settings."""
    common = set(first.models) & set(other.models)
    mine, theirs = (
        {k: v for k, v in one.parts.items() if not k.startswith(FREE_PARTS)} for one in (first, other)
    )
    for parts in (mine, theirs):
        for key in [key for key in parts if _model_of(key, parts) not in {"", *common}]:
            del parts[key]
    lines = [
        f"{first.path} was written with {what} {shown(old)}; {other.path} with {shown(new)}"
        for what, old, new in differences(mine, theirs)
    ]
    if lines:
        raise UsageError(
            "\n".join([*lines, "catalogs of other settings are not merged: run one of them again"])
        )


def _model_of(key: str, parts: Mapping[str, str]) -> str:
    """Return the network that a part of a fingerprint is of, "" if it is of none."""
    what, _, name = key.rpartition(" ")
    return model_of_network(name) if what and f"bundle {name}" in parts else ""


def _have_same_objects(sources: Sequence[_Source]) -> bool:
    """Return whether all catalogs have the same objects; False if no two have one in common."""
    first, *others = sources
    for one in others:
        if one.ids.type != first.ids.type:
            raise UsageError(f"{first.path}: object_id is {first.ids.type}, in {one.path} {one.ids.type}")
    ids = pa.chunked_array([one.ids for one in sources])
    n_distinct = pc.count_distinct(ids).as_py()
    if n_distinct == len(ids):
        return False
    if all(len(one.ids) == n_distinct for one in sources):
        return True
    counts = pc.value_counts(ids)
    twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    some = ", ".join(map(str, twice.slice(0, 5).to_pylist()))
    raise UsageError(
        f"{' and '.join(one.path for one in sources)}: {counted(len(twice), 'object')} in several of them, such as {some}, "
        f"of {n_distinct}: catalogs are merged that have no object in common, or all"
    )


def _require_same_columns(first: _Source, others: Sequence[_Source]) -> None:
    for other in others:
        names = set(first.schema.names) ^ set(other.schema.names)
        if names:
            raise UsageError(
                f"{first.path} and {other.path} have no object in common and other columns: {', '.join(sorted(names)[:8])}; rows "
                "would lack them"
            )
        _require_same_meaning(first, other)


def _require_same_meaning(first: _Source, other: _Source) -> None:
    """Refuse two catalogs in which a column of one name has another type, unit, description or UCD."""
    for name in first.schema.names:
        if name in other.schema.names:
            here, there = first.schema.field(name), other.schema.field(name)
            if here.type != there.type or here.metadata != there.metadata:
                raise UsageError(
                    f"column {name} is {here.type}, {_meaning(here)} in {first.path}, and {there.type}, {_meaning(there)} in {other.path}"
                )


def _meaning(field: pa.Field) -> str:
    metadata = field.metadata or {}
    return (
        ", ".join(metadata[key].decode() for key in (b"unit", b"description") if key in metadata)
        or "of no unit"
    )


def _stacked(sources: Sequence[_Source], pixel: HealpixPixel) -> pa.Table:
    """Return the rows of all catalogs in a pixel, in the columns of the first."""
    names = sources[0].schema.names
    table = pa.concat_tables([one.rows(pixel).select(names) for one in sources])
    return table.sort_by([(HEALPIX.name, "ascending"), (ID.name, "ascending")]).cast(sources[0].schema)


def _with_all_networks(sources: Sequence[_Source], pixel: HealpixPixel) -> pa.Table:
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
    first: _Source,
    sources: Sequence[_Source],
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


def _properties(sources: Sequence[_Source], n_rows: int) -> dict[str, str]:
    """Return galbatch's properties of the merged catalog: those that all have, and from what it was merged."""
    found = [catalog.read_properties(one.path) for one in sources]
    result: dict[str, str] = {}
    for properties in found:
        for key, value in properties.items():
            # Audits are of one run, and each catalog has its own store.
            if key.startswith("galbatch_") and not key.startswith(
                (catalog.model_property("audit"), catalog.STORE_PROPERTY)
            ):
                values = dict.fromkeys([*filter(None, result.get(key, "").split(" | ")), value])
                result[key] = " | ".join(values)
    return result | {
        "obs_collection": found[0]["obs_collection"],
        "galbatch_version": __version__,
        "galbatch_complete": "true",
        "galbatch_objects": str(n_rows),
        "galbatch_pass_outputs": "false",
        "galbatch_merged": ", ".join(properties["obs_collection"] for properties in found),
    }
