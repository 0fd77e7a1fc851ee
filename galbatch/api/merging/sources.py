"""The catalogs that are merged, and what they must have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from galbatch import catalog, execution, storage
from galbatch.catalog import pass_outputs
from galbatch.core.columns import HEALPIX, ID, IDENTITY, model_of_network, parse_columns
from galbatch.core.fingerprint import PER_LEAF_PARTS, differences, shown
from galbatch.core.pixels import HealpixPixel, PixelIndex
from galbatch.core.texts import counted
from galbatch.core.types import Grid
from galbatch.errors import UsageError

__all__ = [
    "FREE_PARTS",
    "Source",
    "entries_of",
    "have_same_objects",
    "require_places",
    "require_same_columns",
    "require_same_meaning",
    "require_same_settings",
]

# An engine changes the last digits alone, and so does the division of a run into networks; footprints may be of other surveys.
# A catalog that was merged itself is merged as any other.
FREE_PARTS = ("engine of ", "survey", "grids", "models", "planes", "flags of the list", "merged")


@dataclass(frozen=True)
class Source:
    """A catalog to merge: its leaves and schema, the parts of the fingerprint that all its leaves share, its networks' bundles."""

    path: str
    leaves: PixelIndex
    schema: pa.Schema
    parts: Mapping[str, str]
    bundles: Mapping[str, str]
    properties: Mapping[str, str]
    keeps_pass_outputs: bool
    ids: pa.Array
    index: npt.NDArray[np.int64]

    @classmethod
    def open(cls, path: str) -> Source:
        """Return a complete catalog of galbatch, opened; all ids and places are read."""
        properties = catalog.read_properties(path)
        if "galbatch_complete" not in properties:
            raise UsageError(f"{path}: was not made by galbatch, whose catalogs alone can be merged")
        if properties["galbatch_complete"] != "true":
            raise UsageError(f"{path}: is not complete; run galbatch run until it is, then merge")
        leaves = catalog.leaves_of(path)
        schema = catalog.read_schema(path, leaves)
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
            properties,
            pass_outputs.were_kept(footer),
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


def entries_of(output: str) -> list[str]:
    """Return the paths of all files and folders that a catalog at `output` and its pass outputs have, in the order in which to delete them."""
    kept = pass_outputs.pass_outputs_path(output)
    return [
        *(storage.join(output, entry) for entry in catalog.CATALOG_ENTRIES),
        *(storage.join(kept, entry) for entry in pass_outputs.PASS_OUTPUT_ENTRIES),
    ]


def require_places(paths: Sequence[str], output: str) -> None:
    """Refuse less than two catalogs, one that is given twice, and an output that lies in one of them or holds what a merge would write."""
    if len(paths) < 2:
        raise UsageError("give two catalogs or more")
    places = [storage.absolute(path).rstrip("/") for path in paths]
    if twice := [path for number, path in enumerate(paths) if places[number] in places[:number]]:
        raise UsageError(f"{twice[0]} is given twice")
    if inside := [
        path
        for path, place in zip(paths, places, strict=True)
        if f"{storage.absolute(output)}/".startswith(f"{place}/")
    ]:
        raise UsageError(
            f"{output}: lies in the catalog {inside[0]}, which is not changed; choose another -o"
        )
    # What another merge is writing is told by its lock.
    if not storage.exists(execution.lock_of(output)):
        require_free(output)


def require_free(output: str) -> None:
    """Refuse an output that holds a catalog, or anything that a merge would write."""
    if catalog.list_leaves(output):
        raise UsageError(f"{output}: holds a catalog already; choose another -o")
    # A merge that is refused on the way deletes all of these: none may be another's, such as a folder "dataset".
    if there := [path for path in entries_of(output) if storage.exists(path)]:
        raise UsageError(f"{output}: {there[0]} exists already, which a merge writes; choose another -o")


def require_same_settings(first: Source, other: Source) -> None:
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


def have_same_objects(sources: Sequence[Source]) -> bool:
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


def require_same_columns(first: Source, others: Sequence[Source]) -> None:
    """Refuse catalogs of which one has a column that another lacks."""
    for other in others:
        names = set(first.schema.names) ^ set(other.schema.names)
        if names:
            raise UsageError(
                f"{first.path} and {other.path} have no object in common and other columns: {', '.join(sorted(names)[:8])}; rows "
                "would lack them"
            )


def require_same_meaning(first: Source, other: Source) -> None:
    """Refuse two catalogs in which a column of one name has another type, unit, description or UCD."""
    for name in first.schema.names:
        if name in other.schema.names:
            here, there = (_stated(one.schema.field(name)) for one in (first, other))
            for what, mine, theirs in differences(here, there):
                raise UsageError(
                    f"column {name} has {what} {shown(mine)} in {first.path}, and {shown(theirs)} in {other.path}; "
                    "columns of one name and another meaning are not merged: run one of them with another name"
                )


def _stated(field: pa.Field) -> dict[str, str]:
    """Return what is stated of a column, by human-readable names."""
    metadata = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    return {"the type": str(field.type), **{f"the {key}": value for key, value in metadata.items()}}
