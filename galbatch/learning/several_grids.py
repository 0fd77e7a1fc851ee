"""Held-out objects of networks that take cutouts on several grids: those that have a cutout on each, with the images of all grids."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch import models
from galbatch.errors import UsageError
from galbatch.learning.labeled import LabeledImages
from galbatch.learning.sources import DataSource, grid_settings, open_source

__all__ = ["open_for_bundle"]


def open_for_bundle(
    source: DataSource,
    recipe: models.Recipe,
    metadata: models.BundleMetadata,
    *,
    notify: Callable[[str], None],
) -> LabeledImages:
    """Return the objects of a source with the images that a bundle takes.

    Parameters
    ----------
    source : DataSource
    recipe : Recipe
        Number, population and seed of simulated galaxies; not used if the source has labels.
    metadata : BundleMetadata
        Its inputs and parameters say what is read or simulated.
    notify : callable
        Takes human-readable lines about the images.

    Returns
    -------
    LabeledImages
        Of several grids the images are (object, 1, 1, number) float32, nJy, which scripts take apart. Each is scaled so that the unit
        of the first grid stands for all.

    Raises
    ------
    UsageError
        No object has a cutout on each grid.
    """
    settings = grid_settings(metadata)
    if len(settings) <= 1:
        return open_source(source, recipe, settings[0], notify=notify)
    parts = [open_source(source, None, one, notify=notify) for one in settings]
    ids = [np.asarray(part.extras.object_id) for part in parts]
    common = functools.reduce(np.intersect1d, ids)
    if not len(common):
        raise UsageError(f"{metadata.name}: no object has a cutout on each of its {len(parts)} grids")
    # In the order of the first grid, which is the store's, so that blocks are read one after the other.
    first = np.flatnonzero(np.isin(ids[0], common))
    rows = [_rows_of(ids[0][first], of_grid) for of_grid in ids]
    notify(f"{len(first)} objects have a cutout on each of {len(parts)} grids")
    units = [one.njy_per_unit for one in metadata.input.images]
    images = _SeveralGrids(
        tuple(part.images for part in parts), tuple(rows), tuple(units[0] / unit for unit in units)
    )
    auxiliary = parts[0].extras.auxiliary
    return dataclasses.replace(
        parts[0],
        images=images,
        labels=parts[0].labels[first],
        extras=models.Extras(ids[0][first], None if auxiliary is None else auxiliary[first]),
        strata={name: values[first] for name, values in parts[0].strata.items()},
    )


def _rows_of(wanted: npt.NDArray[Any], ids: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the row of each wanted id in `ids`, which has them all once."""
    order = np.argsort(ids)
    return order[np.searchsorted(ids, wanted, sorter=order)].astype(np.int64)


@dataclass(frozen=True, eq=False)
class _SeveralGrids:
    """The images of objects on several grids, packed into one row of numbers an object.

    Attributes
    ----------
    parts : images of each grid, (object, band, y, x) float32, nJy
    rows : for each grid the row of each object in its images, (object,) int64
    factors : factor of each grid, by which the unit of the first makes its own
    """

    parts: tuple[models.ImageRows, ...]
    rows: tuple[npt.NDArray[np.int64], ...]
    factors: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows[0]), 1, 1, sum(int(np.prod(part.shape[1:])) for part in self.parts))

    def __getitem__(self, wanted: Any) -> npt.NDArray[np.float32]:
        chosen = [
            np.asarray(part[rows[wanted]], np.float32).reshape(len(rows[wanted]), -1) * np.float32(factor)
            for part, rows, factor in zip(self.parts, self.rows, self.factors, strict=True)
        ]
        return np.concatenate(chosen, axis=1)[:, None, None]
