"""The rows that a narrowed catalog stands for, and how they are read: which leaves, in which order, with which columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from galbatch import catalog
from galbatch.api.catalogs.conditions import Ids
from galbatch.api.catalogs.files import CatalogFiles
from galbatch.catalog import Cone, RowCondition
from galbatch.core.columns import ID, SEPARATION

__all__ = ["Rows"]


@dataclass(frozen=True)
class Rows:
    """The rows of a catalog that all conditions hold for; none are read yet."""

    files: CatalogFiles
    conditions: tuple[RowCondition, ...] = ()

    def narrower(self, condition: RowCondition) -> Rows:
        """Return the rows that one more condition holds for."""
        return replace(self, conditions=(*self.conditions, condition))

    @property
    def cone(self) -> Cone | None:
        """The last cone, from whose center separations are counted."""
        return next((one for one in reversed(self.conditions) if isinstance(one, Cone)), None)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in the catalog's order; after a cone the last is ``separation_arcsec``."""
        names = self.files.schema.names
        if self.cone is None:
            return tuple(names)
        # A kept column of that name gives way to the distance from the cone's center.
        return (*(name for name in names if name != SEPARATION.name), SEPARATION.name)

    def read(self, columns: Sequence[str] | None) -> pa.Table:
        """Return the rows with some columns, None for all: in the order of the last cone or ids, otherwise in that of the sky.

        Raises
        ------
        CatalogError
            A column does not exist.
        DamagedError
            A leaf is not as it was written.
        UsageError
            An id is not in the catalog.
        """
        names = self.columns if columns is None else list(columns)
        catalog.require_columns(self.files.path, self.columns, names)
        cone = self.cone
        ordering = next((one for one in reversed(self.conditions) if isinstance(one, Cone | Ids)), None)
        stored = [name for name in names if cone is None or name != SEPARATION.name]
        fed = [name for one in (cone, ordering) if one is not None for name in one.columns]
        # Whole leaves are checked against their checksums: None asks for them.
        read = None if columns is None and not self.conditions else list(dict.fromkeys([*stored, *fed]))
        schema = pa.schema([self.files.schema.field(name) for name in read or names])
        table = pa.concat_tables([schema.empty_table(), *self.parts(read)])
        if cone is not None:
            table = cone.with_separation(table)
        if isinstance(ordering, Ids):
            table = table.take(ordering.order(table.column(ID.name)))
        elif ordering is not None:
            table = table.sort_by(SEPARATION.name)
        return table.select(list(names))

    def parts(self, columns: list[str] | None) -> Iterator[pa.Table]:
        """Yield the rows leaf by leaf, in the order of the sky, with some of the stored columns, None for all; raises as `read` does."""
        path, leaves = self.files.path, self.files.leaves
        asked = [list(map(str, one.asked)) for one in self.conditions if isinstance(one, Ids)]
        # The leaves and row groups of ids are known from the places of their objects.
        there = [catalog.AtIndices(catalog.locate_objects(path, ids, leaves).values()) for ids in asked]
        yield from catalog.scan(path, leaves, (*there, *self.conditions), columns=columns)
