"""Cutouts of a store joined with a table of true parameters: what trainings and calibrations on real data read."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from galbatch import ingest, models
from galbatch.core.pixels import HealpixPixel
from galbatch.core.types import CutoutBlock, Grid
from galbatch.errors import OutputError, UsageError
from galbatch.objects import read_numbers

__all__ = ["Labelled", "open_labelled"]

IN_MEMORY_BYTES = 4 * 2**30  # of cutouts; more are copied to a file that is read like memory

Ids = npt.NDArray[Any]


@dataclass(frozen=True)
class Labelled:
    """Images with known values.

    Attributes
    ----------
    images : (object, band, y, x) float32, nJy, by row
    labels : (object, parameter) float64, physical units
    extras : ids, auxiliary inputs and PSF widths
    origin : what a bundle's record says of where they are from
    notes : for people: how many there are, and how many were left out
    strata : true values (object,) beside the labels that results are shown by: magnitude, size_arcsec
    """

    images: models.ImageRows
    labels: npt.NDArray[np.float64]
    extras: models.Extras = field(default_factory=lambda: models.Extras())
    origin: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    strata: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Table:
    """The labels: ids, parameters (row, parameter), auxiliary inputs (row, auxiliary input), and where each id stands."""

    parameters: npt.NDArray[np.float64]
    auxiliary: npt.NDArray[np.float64]
    row_of: Mapping[Any, int]


class _Kept(NamedTuple):
    """Of a block's objects with labels: ids, PSF width and sky noise (object, band), whether their center has light."""

    object_id: Ids
    psf_fwhm_arcsec: npt.NDArray[np.float32]
    sky_sigma_njy: npt.NDArray[np.float32]
    good: npt.NDArray[np.bool_]


@contextlib.contextmanager
def open_labelled(
    store: str, labels: str, *, settings: models.TrainingSettings, id_column: str, scratch: Path
) -> Iterator[Labelled]:
    """The objects of a store that have labels, in the store's order, while the context lasts.

    Objects without a label, with a missing one, or without light at their center are left out and counted. Of a
    large store the wanted cutouts are copied to one file, from which random rows can be read fast.

    Parameters
    ----------
    store : cutout store, local or ``s3://``
    labels : table with ids, parameters and the auxiliary inputs of the settings
    settings : which grid, bands, parameters and auxiliary inputs
    id_column : of the table
    scratch : that file; removed at the end

    Raises
    ------
    UsageError
        The store has no such grid or band, the table no such column, ids are of different kinds or occur twice,
        or no object has both cutout and label.
    OutputError
        The disk is too small for the file.
    """
    table = _read_table(labels, settings, id_column)
    grid, partitions = _find_groups(store, settings)
    wanted = [(partition, _labelled_rows(store, partition, grid, table)) for partition in partitions]
    n_objects = sum(len(rows) for _, rows in wanted)
    if n_objects == 0:
        raise UsageError(
            f"{labels}: none of its {len(table.row_of)} objects with labels has a cutout in {store} on {grid.label}; are ids of "
            f"column {id_column} those of the run's object list?"
        )
    shape = (n_objects, len(settings.bands), grid.size_px, grid.size_px)
    with _room(shape, scratch) as images:
        kept = [
            _copied(block, rows, settings.bands, images, start)
            for block, rows, start in _blocks(store, grid, wanted)
        ]
        yield _joined(kept, images, table, store=store, labels=labels)


def _read_table(path: str, settings: models.TrainingSettings, id_column: str) -> _Table:
    parameters = [parameter.name for parameter in settings.parameters]
    names = list(dict.fromkeys([*parameters, *(column.name for column in settings.auxiliary_inputs)]))
    ids, numbers = read_numbers(path, id_column=id_column, columns=names)
    complete = np.flatnonzero(np.isfinite(np.stack(list(numbers.values()), axis=1)).all(axis=1))
    chosen = ids[complete].tolist()
    row_of = dict(zip(chosen, complete.tolist(), strict=True))
    if len(row_of) < len(chosen):
        raise UsageError(
            f"{path}: {len(chosen) - len(row_of)} of the ids in column {id_column} occur again; state each object once"
        )
    auxiliary = [numbers[column.name] for column in settings.auxiliary_inputs]
    empty = np.zeros((len(ids), 0))
    return _Table(
        np.stack([numbers[name] for name in parameters], axis=1),
        np.stack(auxiliary, axis=1) if auxiliary else empty,
        row_of,
    )


def _find_groups(store: str, settings: models.TrainingSettings) -> tuple[Grid, list[HealpixPixel]]:
    """The grid of the settings, and the partitions that have it."""
    groups: dict[Grid, list[HealpixPixel]] = {}
    for pixel, grid in sorted(ingest.list_done(store), key=lambda group: (group[0].path, group[1].label)):
        groups.setdefault(grid, []).append(pixel)
    fitting = [
        grid
        for grid in groups
        if grid.pixel_scale_arcsec == settings.pixel_scale_arcsec and settings.size_px in (None, grid.size_px)
    ]
    if len(fitting) != 1:
        there = ", ".join(sorted(grid.label for grid in groups)) or "no finished cutouts"
        raise UsageError(
            f"{store}: {len(fitting) or 'no'} grids fit pixel_scale_arcsec {settings.pixel_scale_arcsec:g} and size_px "
            f"{settings.size_px or 'of any size'}; there are {there}: state both in the settings"
        )
    return fitting[0], groups[fitting[0]]


def _labelled_rows(store: str, partition: HealpixPixel, grid: Grid, table: _Table) -> npt.NDArray[np.int64]:
    """Rows of a partition that have labels."""
    ids = ingest.read_object_ids(store, partition, grid).tolist()
    return np.array([row for row, name in enumerate(ids) if name in table.row_of], dtype=np.int64)


@contextlib.contextmanager
def _room(shape: tuple[int, ...], scratch: Path) -> Iterator[npt.NDArray[np.float32]]:
    """Room for images: memory, or a file if there are many; the file is removed at the end."""
    n_bytes = 4 * int(np.prod(shape, dtype=np.int64))
    if n_bytes <= IN_MEMORY_BYTES:
        yield np.empty(shape, np.float32)
        return
    free = shutil.disk_usage(scratch.parent).free
    if n_bytes > free:
        raise OutputError(
            f"{scratch}: {n_bytes / 2**30:.1f} GiB needed for the cutouts of {shape[0]} objects, {free / 2**30:.1f} GiB free; write "
            "the bundle to a larger disk, or give fewer labels"
        )
    try:
        yield np.memmap(scratch, np.float32, mode="w+", shape=shape)
    finally:
        scratch.unlink(missing_ok=True)


def _blocks(
    store: str, grid: Grid, wanted: Sequence[tuple[HealpixPixel, npt.NDArray[np.int64]]]
) -> Iterator[tuple[CutoutBlock, npt.NDArray[np.int64], int]]:
    """Blocks, the rows wanted of each, and how many came before; partitions without any are not read."""
    done = 0
    for partition, rows in wanted:
        first = 0
        for block in ingest.read_blocks(store, partition, grid) if len(rows) else ():
            here = rows[(rows >= first) & (rows < first + len(block))] - first
            yield block, here, done
            first += len(block)
            done += len(here)


def _copied(
    block: CutoutBlock,
    rows: npt.NDArray[np.int64],
    bands: tuple[str, ...],
    images: npt.NDArray[np.float32],
    start: int,
) -> _Kept:
    """Copy cutouts to `images` from `start` on."""
    missing = [band for band in bands if band not in block.bands]
    if missing:
        raise UsageError(f"bands: {', '.join(missing)}: not in the store, which has {', '.join(block.bands)}")
    order = [block.bands.index(band) for band in bands]
    chosen = block.image[rows][:, order]
    images[start : start + len(rows)] = chosen
    psf, sky = block.psf_fwhm_arcsec[rows][:, order], block.sky_sigma_njy[rows][:, order]
    return _Kept(block.object_id[rows], psf, sky, models.has_center(chosen))


def _joined(
    kept: Sequence[_Kept],
    images: npt.NDArray[np.float32],
    table: _Table,
    *,
    store: str,
    labels: str,
) -> Labelled:
    ids, psf, sky, good = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    rows = np.array([table.row_of[name] for name in ids.tolist()], dtype=np.int64)
    numbers = np.flatnonzero(good)
    n_labels, n_bad = len(table.parameters), int((~good).sum())
    without = [
        (n_labels - len(table.row_of), "with a missing label"),
        (len(table.row_of) - len(ids), "without a cutout"),
        (n_bad, "without light at their center"),
    ]
    told = ", ".join(f"{count} {why}" for count, why in without if count)
    return Labelled(
        images if n_bad == 0 else _Chosen(images, numbers),
        table.parameters[rows][good],
        models.Extras(
            object_id=ids[good],
            auxiliary=table.auxiliary[rows][good].astype(np.float32) if table.auxiliary.shape[1] else None,
            psf_fwhm_arcsec=psf[good],
            sky_sigma_njy=sky[good],
        ),
        {"store": Path(store).name, "labels": Path(labels).name},
        (f"{len(numbers)} of {n_labels} objects with labels" + (f"; left out: {told}" if told else ""),),
    )


@dataclass(frozen=True)
class _Chosen:
    """Some rows of images, without a copy of them all."""

    images: npt.NDArray[np.float32]
    numbers: npt.NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.numbers), *self.images.shape[1:])

    def __getitem__(self, rows: Any) -> Any:
        return self.images[self.numbers[rows]]
