"""The base of a run: older outputs, from which it takes the cutouts and values that would be the same."""

from __future__ import annotations

from dataclasses import dataclass, field

from galbatch.core.pixels import HealpixPixel, OlderOutput, PixelIndex

__all__ = ["Base"]


@dataclass(frozen=True)
class Base:
    """Older outputs that a run takes from; none by default.

    Attributes
    ----------
    store, groups : path of the older cutout store, and the pixels of its finished groups
    catalog, leaves : path of the older catalog, and the pixels of its leaves
    """

    store: str = ""
    groups: PixelIndex = field(default_factory=lambda: PixelIndex(()))
    catalog: str = ""
    leaves: PixelIndex = field(default_factory=lambda: PixelIndex(()))

    def groups_of(self, pixel: HealpixPixel) -> OlderOutput | None:
        """Return the older store's groups that share sky with a partition; None if there are none."""
        found = self.groups.overlapping(pixel)
        return OlderOutput(self.store, found) if found else None

    def leaves_of(self, pixel: HealpixPixel) -> OlderOutput | None:
        """Return the older catalog's leaves that share sky with a partition; None if there are none."""
        found = self.leaves.overlapping(pixel)
        return OlderOutput(self.catalog, found) if found else None
