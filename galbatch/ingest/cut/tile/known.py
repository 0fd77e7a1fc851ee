"""Facts of a whole tile, which a process measures once for all partitions that take cutouts from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar, cast

from galbatch.core.fingerprint import digest
from galbatch.core.types import Tile
from galbatch.ingest.pixels import TileReader

__all__ = ["OncePerTile"]

MOST_KNOWN = 1000
"""The number of tiles of which a process keeps a fact. Partitions are neighbors, so that a worker goes on to other tiles."""

Fact = TypeVar("Fact")


class OncePerTile(Generic[Fact]):
    """A function of reader and tile that is called once for each tile: later answers are those of before.

    A tile is known by all that is stated of it and the identity of its files. One without an identity is measured by each reader.
    """

    def __init__(self, name: str, measure: Callable[[TileReader, Tile], Fact]) -> None:
        self._name, self._measure = name, measure
        self._known: dict[str, Fact] = {}

    def __call__(self, reader: TileReader, tile: Tile) -> Fact:
        """Return the fact of `tile`; raises what the measurement raises."""
        at = (self._name, tile.image)
        if at not in reader.of_tile:
            reader.of_tile[at] = self._of_process(reader, tile)
        return cast(Fact, reader.of_tile[at])

    def _of_process(self, reader: TileReader, tile: Tile) -> Fact:
        if tile.identity is None:
            return self._measure(reader, tile)
        key = digest(repr(tile))
        if key not in self._known:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[key] = self._measure(reader, tile)
        return self._known[key]
