"""A cutout store in Python: what it holds, and the cutouts of objects."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.nddata import NDDataArray

from galbatch import ingest
from galbatch.api.cutouts import read_cutout
from galbatch.api.nddata import as_ccddata
from galbatch.core.pixels import HealpixPixel
from galbatch.core.texts import counted, html_card
from galbatch.core.types import Grid
from galbatch.errors import UsageError
from galbatch.storage import zarr_groups

__all__ = ["Store", "open_store"]

READING_THREADS = 16
"""Number of partitions whose ids are read at the same time: on S3 each takes 50 ms, most of it waiting for the network."""


def open_store(url: str) -> Store:
    """Open a cutout store that ``galbatch run`` made, or is making.

    Parameters
    ----------
    url : str
        Folder of the store, on a disk or S3.

    Raises
    ------
    UsageError
        There is no cutout store.

    Examples
    --------
    >>> import galbatch
    >>> galbatch.open_store("cutouts.zarr")
    <Store cutouts.zarr: 3 cutouts of 24 px in g, r>
    """
    path = str(url).rstrip("/")
    if not ingest.stored_grids(path):
        raise UsageError(f"{path}: no cutout store; give the folder that [cutouts] store names in run.toml")
    return Store(path)


@dataclass(frozen=True, repr=False, eq=False)
class Store:
    """A cutout store. Only finished partitions are looked at; xarray opens each as a Dataset (see the documentation of the store).

    Attributes
    ----------
    path : str
    """

    path: str

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """The attributes of the store's root, such as ``survey``, ``release`` and ``grids``."""
        return dict(zarr_groups.read_root_attributes(self.path) or {})

    @cached_property
    def grids(self) -> tuple[Grid, ...]:
        """The grids (size in px and pixel scale), the largest cutouts first."""
        return tuple(ingest.stored_grids(self.path))

    @cached_property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands of the first grid; empty if no partition is finished."""
        return self._bands_of(self.grids[0])

    def _bands_of(self, grid: Grid) -> tuple[str, ...]:
        pixel = next((pixel for pixel, other in self.groups if other == grid), None)
        return () if pixel is None else ingest.stored_bands(self.path, pixel, grid)

    @cached_property
    def groups(self) -> tuple[tuple[HealpixPixel, Grid], ...]:
        """Partition and grid of each finished group."""
        return tuple(sorted(ingest.list_done(self.path), key=lambda group: group[0].index_range))

    def __len__(self) -> int:
        """Return the number of cutouts on the first grid; one small file is read for each partition."""
        found = (ingest.read_done(self.path, pixel, grid) for pixel, grid in self._of_first_grid())
        return sum(int(done["n_objects"]) for done in found if done is not None)

    def __bool__(self) -> bool:
        # Without this, `if store:` would count the cutouts.
        return True

    def object_ids(self) -> Iterator[int | str]:
        """Yield the ids of all objects, partition by partition."""
        for pixel, grid in self._of_first_grid():
            yield from ingest.read_object_ids(self.path, pixel, grid).tolist()

    def cutout(self, object_id: int | str, band: str | None = None) -> NDDataArray:
        """Return the cutout of an object on the first grid, as `CatalogObject.cutout` does.

        The first call reads the ids of all partitions, several at a time, and keeps them sorted, in 12 bytes each if they are
        integers; later calls find an object at once. Of a survey of 10^8 objects ask the catalog's object, which knows where
        its cutout is.

        Raises
        ------
        UsageError
            No partition has the object, or there is no such band.

        Examples
        --------
        >>> import galbatch
        >>> float(galbatch.open_store("cutouts.zarr").cutout(-5, "r").data.max())
        200.0
        """
        ids, numbers = self._partitions_by_id
        # Compared as the store has them: 7.0 is no id, and "7" is none of a store of integers.
        if isinstance(object_id, str if ids.dtype.kind == "U" else int | np.integer):
            place = bisect_left(ids, object_id)
            if place < len(ids) and ids[place] == object_id:
                pixel, grid = self._of_first_grid()[numbers[place]]
                if found := read_cutout(self.path, pixel, ids[place].item(), [grid]):
                    return as_ccddata(found, band)
        raise UsageError(f"{self.path}: no cutout of object {object_id}")

    @cached_property
    def _partitions_by_id(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.int32]]:
        """The ids of all objects of the first grid, sorted, and the numbers of their partitions."""
        groups = self._of_first_grid()
        with ThreadPoolExecutor(READING_THREADS) as pool:
            found = list(pool.map(lambda group: ingest.read_object_ids(self.path, *group), groups))
        if not found:
            return np.zeros(0, np.int64), np.zeros(0, np.int32)
        ids = np.concatenate(found)
        numbers = np.repeat(np.arange(len(found), dtype=np.int32), [len(one) for one in found])
        order = np.argsort(ids, kind="stable")
        return ids[order], numbers[order]

    def _of_first_grid(self) -> list[tuple[HealpixPixel, Grid]]:
        return [(pixel, grid) for pixel, grid in self.groups if grid == self.grids[0]]

    def __repr__(self) -> str:
        grids = ", ".join(f"{grid.size_px} px" for grid in self.grids)
        in_bands = f" in {', '.join(self.bands)}" if self.bands else ""
        return f"<Store {self.path}: {counted(len(self), 'cutout')} of {grids}{in_bands}>"

    def _repr_html_(self) -> str:
        rows = [
            ("path", self.path),
            ("cutouts", str(len(self))),
            ("partitions", str(len(self._of_first_grid()))),
        ]
        for grid in self.grids:
            text = f"{grid.size_px} x {grid.size_px} px of {grid.pixel_scale_arcsec:g} arcsec"
            in_bands = ", ".join(self._bands_of(grid))
            rows.append(("grid", f"{text} in {in_bands}" if in_bands else text))
        if self.groups:
            rows.append(("planes", ", ".join(ingest.stored_planes(self.path, *self.groups[0]))))
        for name in ("survey", "release", "background", "unit"):
            value = self.attributes.get(name)
            text = ", ".join(value) if isinstance(value, list) else str(value or "")
            rows += [(name, text)] if text else []
        return html_card("galbatch cutout store", rows)
