"""Cutouts of an older store: those whose pixels would be the same are taken from it in place of being cut again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from galbatch.core.flags import LIST_FLAGS
from galbatch.core.pixels import HealpixPixel, OlderOutput
from galbatch.core.types import BLOCK_OBJECTS, CutoutBlock, CutoutSpec, ObjectTable, places_of
from galbatch.errors import ConfigError, DamagedError, FingerprintError
from galbatch.ingest.store.reader import CutoutReader, read_done

__all__ = ["BaseCutouts"]

Rows = npt.NDArray[np.intp]


class BaseCutouts:
    """Cutouts of an older store for the objects of a partition: an object has one there if the keys of its pixels are equal.

    Parameters
    ----------
    groups : OlderOutput
        A group that is damaged, or of other bands, planes or thresholds of flags, is passed over, and `notes` say so.
    objects : ObjectTable
    keys : (object, band, key) int64
        Keys of which one would be that of a cutout of `objects`; 0: none.
    spec : CutoutSpec
    planes : sequence of str
        Planes that are wanted.
    thresholds : str
        The part of the fingerprint that holds the thresholds of the flags.

    Attributes
    ----------
    notes : human-readable lines for the user
    """

    def __init__(
        self,
        groups: OlderOutput,
        objects: ObjectTable,
        keys: npt.NDArray[np.int64],
        *,
        spec: CutoutSpec,
        planes: Sequence[str],
        thresholds: str | None,
    ) -> None:
        self.notes: list[str] = []
        self._planes = tuple(planes)
        self._readers: list[CutoutReader] = []
        # Number of the reader that has an object, and its row there; -1: none.
        self._group = np.full(len(objects), -1)
        self._row = np.full(len(objects), -1)
        for pixel in groups.pixels:
            reader = self._open(groups.path, pixel, spec, thresholds)
            if reader is None:
                continue
            found = places_of(objects.object_id, reader.object_id)
            (rows,) = np.nonzero(found >= 0)
            there = reader.measured("band_key")[found[rows]]  # (row, band)
            equal = (there[:, :, None] == keys[rows]).any(axis=2).all(axis=1)
            self._group[rows[equal]], self._row[rows[equal]] = len(self._readers), found[rows[equal]]
            self._readers.append(reader)

    @property
    def taken(self) -> npt.NDArray[np.bool_]:
        """Whether each object's cutout is in the older store, (object,) bool."""
        return self._group >= 0

    def _open(
        self, store: str, pixel: HealpixPixel, spec: CutoutSpec, thresholds: str | None
    ) -> CutoutReader | None:
        """Return the reader of a group whose cutouts can stand in for ours, else None."""
        try:
            done = read_done(store, pixel, spec.grid)
            if not done or not done["n_objects"]:
                return None
            if done["fingerprint"].get("parts", {}).get("flag thresholds") != thresholds:
                return None
            reader = CutoutReader(store, pixel, spec.grid, planes=self._planes)
            reader.measured("band_key")
        except (ConfigError, DamagedError, FingerprintError) as error:
            self.notes.append(f"cutouts are cut again where the base does not have them: {error}")
            return None
        return reader if reader.bands == spec.bands else None

    def block(self, rows: Rows, *, list_flags: npt.NDArray[np.int32]) -> CutoutBlock:
        """Return the cutouts of the objects at `rows`, all of which are taken, in this order.

        `list_flags` (row,) int32 are the flags of the object list, which replace those of the older list.

        Raises
        ------
        DamagedError
            A file of the older store is gone, or not as it was written.
        """
        parts, places = [], []
        for number, reader in enumerate(self._readers):
            (here,) = np.nonzero(self._group[rows] == number)
            if not len(here):
                continue
            wanted = self._row[rows[here]]
            # Objects that are near each other here are so there: runs of the older group, as long as a block.
            for start in range(int(wanted.min()), int(wanted.max()) + 1, BLOCK_OBJECTS):
                inside = (wanted >= start) & (wanted < start + BLOCK_OBJECTS)
                if inside.any():
                    stop = int(wanted[inside].max()) + 1
                    parts.append(reader.block(start, stop).take(wanted[inside] - start))
                    places.append(here[inside])
        order = np.argsort(np.concatenate(places))
        found = CutoutBlock.joined(parts).take(order)
        flags = (found.flags & ~np.int32(LIST_FLAGS)) | list_flags
        return replace(found, flags=flags)
