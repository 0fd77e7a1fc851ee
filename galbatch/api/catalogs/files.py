"""A catalog's files as its readers need them: schema, leaves, properties, and whether it is finished."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from galbatch import catalog, objects, storage
from galbatch.core.pixels import HealpixPixel

__all__ = ["CatalogFiles"]


@dataclass(frozen=True)
class CatalogFiles:
    """The files of a catalog; each is read when it is first needed, and once.

    Attributes
    ----------
    path : str
        Local or S3.
    """

    path: str

    @cached_property
    def properties(self) -> dict[str, str]:
        """The properties in ``hats.properties``; empty if the catalog is not finished."""
        try:
            return objects.read_properties(storage.join(self.path, "hats.properties"))
        except FileNotFoundError:
            return {}

    @cached_property
    def leaves(self) -> list[HealpixPixel]:
        """All leaves, at least one, in the order of their rows; raises as `galbatch.catalog.leaves_of`."""
        return catalog.leaves_of(self.path)

    @cached_property
    def schema(self) -> pa.Schema:
        """The schema; raises as `galbatch.catalog.read_schema`."""
        return catalog.read_schema(self.path, self.leaves)

    @property
    def n_rows(self) -> int | None:
        """Number of rows; None if the catalog is not finished."""
        return int(self.properties["hats_nrows"]) if "hats_nrows" in self.properties else None

    @property
    def state(self) -> str:
        """Why the catalog lacks rows, as a sentence; "" if it is finished and complete."""
        if not self.properties:
            from galbatch.dashboard import last_news

            news = last_news(self.path)
            return f"not finished: it has the {len(self.leaves)} leaves that are written so far" + (
                f"; {news}" if news else ""
            )
        if self.properties.get("galbatch_complete") == "false":
            return "not complete: partitions failed, and their objects are missing; galbatch retry makes them"
        return ""
