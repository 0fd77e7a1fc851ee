"""The photometry of a partition's cutouts, in a group of its own beside theirs: ``<grid>_photometry``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch.core.pixels import HealpixPixel
from galbatch.core.types import Grid
from galbatch.errors import DamagedError
from galbatch.storage import zarr_groups

__all__ = ["read_photometry", "read_photometry_done", "write_photometry"]

ARRAY = "photometry"
"""One array (object, column) holds all: on object stores each array is a request, and a catalog's thirty columns would be sixty."""

COLUMNS = "columns"
"""Attribute of the group with the columns' names."""


def _path(store_path: str, pixel: HealpixPixel, grid: Grid) -> str:
    return zarr_groups.group_path(store_path, pixel, f"{grid.label}_photometry")


def write_photometry(
    store_path: str,
    pixel: HealpixPixel,
    grid: Grid,
    values: Mapping[str, npt.NDArray[Any]],
    *,
    object_id: npt.NDArray[Any],
    fingerprint: Mapping[str, Any],
) -> None:
    """Write the photometry of one partition on one grid and mark it done; what was there before goes first.

    Parameters
    ----------
    values : (object,) each, by the name of the catalog's column; of integers below 2^24, which float32 holds exactly
    object_id : (object,) int64 or str, in the order of the cutouts

    Raises
    ------
    OutputError
        No space, or no permission.
    OSError
        Any other fault of disk or network: trying again may help.
    """
    group = zarr_groups.GroupWriter(_path(store_path, pixel, grid), {COLUMNS: list(values)})
    # Text ids are stored with a fixed width, as those of cutouts.
    ids = object_id.astype(np.str_) if object_id.dtype.kind == "O" else object_id
    with zarr_groups.unspecified():
        group.add_array("object_id", ids, axes=("object",))
        if values:
            table = np.stack([np.asarray(one, np.float32) for one in values.values()], axis=1)
            group.add_array(ARRAY, table, axes=("object", "column"))
    group.finish({"fingerprint": dict(fingerprint), "n_objects": len(object_id)})


def read_photometry_done(store_path: str, pixel: HealpixPixel, grid: Grid) -> dict[str, Any] | None:
    """Return the keys fingerprint and n_objects of finished photometry; None if it is unfinished or absent.

    Raises
    ------
    DamagedError
        The group's mark is not as it was written.
    """
    return zarr_groups.read_done(_path(store_path, pixel, grid))


def read_photometry(store_path: str, pixel: HealpixPixel, grid: Grid) -> dict[str, npt.NDArray[np.float32]]:
    """Return the photometry of a partition's cutouts, (object,) each, by the name of the catalog's column.

    Raises
    ------
    FingerprintError
        There is none.
    DamagedError
        A file has changed since it was written.
    """
    group = zarr_groups.GroupReader(_path(store_path, pixel, grid))
    names = group.attributes[COLUMNS]
    array = group.array(ARRAY)
    if array is None:
        raise DamagedError(group.path, f"has no array {ARRAY}")
    table = group.read({ARRAY: array})[ARRAY]  # (object, column)
    return {str(name): table[:, number] for number, name in enumerate(names)}
