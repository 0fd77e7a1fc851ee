"""Images or columns with known values, by tables of labels; trainings and calibrations read them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from galbatch import ingest, models
from galbatch.core.pixels import HealpixPixel
from galbatch.core.types import Grid
from galbatch.errors import UsageError
from galbatch.learning.labels import Labels, LabelSources

__all__ = ["LabeledImages", "find_grid", "open_columns", "open_labeled"]

Ids = npt.NDArray[Any]


@dataclass(frozen=True)
class LabeledImages:
    """Images with known values.

    Attributes
    ----------
    images : (object, band, y, x) float32, nJy; rows are read when they are indexed
    labels : (object, parameter) float64, true values in physical units
    extras : ids, auxiliary inputs and PSF widths of the objects
    origin : where the images come from, for the bundle's training record
    notes : human-readable lines: the number of objects, and how many were left out
    strata : further true values (object,) float64 by which results are grouped: magnitude, size_arcsec
    """

    images: models.ImageRows
    labels: npt.NDArray[np.float64]
    extras: models.Extras = field(default_factory=lambda: models.Extras())
    origin: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    strata: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)


class _Copied(NamedTuple):
    """The values that are kept of the labeled objects of a block, besides their pixels.

    Attributes
    ----------
    object_id : (object,)
    psf_fwhm_arcsec : (object, band) float32; NaN if unknown
    sky_sigma_njy : (object, band) float32; NaN if unknown
    has_light : (object,) bool, whether the central pixel is usable in all bands
    """

    object_id: Ids
    psf_fwhm_arcsec: npt.NDArray[np.float32]
    sky_sigma_njy: npt.NDArray[np.float32]
    has_light: npt.NDArray[np.bool_]


def open_labeled(store: str, labels: LabelSources, *, settings: models.TrainingSettings) -> LabeledImages:
    """Return the objects of a store that have labels, in the store's order.

    Objects without a label, with a missing one, or without light at their center are left out and counted. Cutouts that are
    too many for the memory are read block by block when they are needed.

    Parameters
    ----------
    store : str
        Path of the cutout store, local or ``s3://``.
    labels : LabelSources
        Tables with ids, true parameters and auxiliary inputs.
    settings : TrainingSettings
        Its grid, bands, parameters and auxiliary inputs say what is read, and `memory_gib` how much of it is held in memory.

    Returns
    -------
    LabeledImages

    Raises
    ------
    UsageError
        The store lacks the grid or a band, the table lacks a column, ids are of different kinds or occur twice,
        or no object has both a cutout and a label.
    """
    tables = Labels.read(labels, settings)
    labeled = set(tables.ids.tolist())
    grid, pixels = find_grid(store, settings)
    rows_of = {}
    for pixel in pixels:
        ids = ingest.read_object_ids(store, pixel, grid).tolist()
        rows_of[pixel] = np.array([row for row, name in enumerate(ids) if name in labeled], np.int64)
    n_objects = sum(map(len, rows_of.values()))
    if n_objects == 0:
        raise UsageError(
            f"{', '.join(labels.paths)}: none of its {len(labeled)} objects with labels has a cutout in {store} on {grid.label}; are ids of "
            f"column {labels.id_column} those of the run's object list?"
        )
    shape = (n_objects, len(settings.bands), grid.size_px, grid.size_px)
    memory_bytes = settings.memory_gib * 2**30
    # int64: the number of pixels of a large set exceeds 32 bits. A float32 has 4 bytes.
    fits = 4 * int(np.prod(shape, dtype=np.int64)) <= memory_bytes
    held = np.empty(shape, np.float32) if fits else None
    copied = _read_cutouts(store, grid, rows_of, settings.bands, held)
    origin = {"store": Path(store).name, "labels": ", ".join(labels.names)}
    if held is not None:
        return _join(copied, held, tables, origin)
    streamed = _stream_images(_StoredBlocks.of(store, grid, settings.bands, rows_of), memory_bytes / 2)
    data = _join(copied, streamed, tables, origin)
    return dataclasses.replace(data, notes=(*data.notes, _streaming_note(streamed)))


def open_columns(labels: LabelSources, *, settings: models.TrainingSettings) -> LabeledImages:
    """Return the objects of tables of labels, for a network that takes columns alone; their images have no band and no pixel.

    Parameters
    ----------
    labels : LabelSources
        Tables with ids, true parameters and auxiliary inputs.
    settings : TrainingSettings
        Its parameters and auxiliary inputs say what is read.

    Raises
    ------
    UsageError
        A table lacks a column, ids are of different kinds or occur twice in it, or no object has labels and columns.
    """
    tables = Labels.read(labels, settings)
    ids = tables.ids
    if not len(ids):
        raise UsageError(f"{', '.join(labels.paths)}: no object has all its labels and columns")
    matched = tables.match(ids)
    missing = tables.n_labels - len(matched.place)
    return LabeledImages(
        models.no_pixels(len(matched.place)),
        matched.parameters,
        tables.extras(ids, matched),
        {"tables": labels.names},
        _notes(labels, len(matched.place), tables.n_labels, [(missing, "with a missing label or column")]),
    )


def find_grid(store: str, settings: models.TrainingSettings) -> tuple[Grid, list[HealpixPixel]]:
    """Return the only grid of the store that fits the settings, and the HEALPix pixels with finished cutouts on it."""
    # Sorted, as the order of the objects decides which galaxies share a batch of the training.
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


def _read_cutouts(
    store: str,
    grid: Grid,
    rows_of: Mapping[HealpixPixel, npt.NDArray[np.int64]],
    bands: tuple[str, ...],
    images: npt.NDArray[np.float32] | None,
) -> list[_Copied]:
    """Return the values of each block besides its pixels, which are copied to `images`, in order, where there is such an array."""
    copied = []
    # `start` counts the rows of `images` that are filled, `first` the objects of the partition that were read.
    start = 0
    for pixel, rows in rows_of.items():
        first = 0
        # A partition without labels is not read.
        for block in ingest.read_blocks(store, pixel, grid) if len(rows) else ():
            # Numbers of rows in the partition become numbers in the block.
            chosen = rows[(rows >= first) & (rows < first + len(block))] - first
            if missing := [band for band in bands if band not in block.bands]:
                raise UsageError(
                    f"bands: {', '.join(missing)}: not in the store, which has {', '.join(block.bands)}"
                )
            order = [block.bands.index(band) for band in bands]
            cutouts = block.image[chosen][:, order]  # (chosen object, band, y, x)
            if images is not None:
                images[start : start + len(chosen)] = cutouts
            psf, sky = block.psf_fwhm_arcsec[chosen][:, order], block.sky_sigma_njy[chosen][:, order]
            copied.append(_Copied(block.object_id[chosen], psf, sky, models.has_center(cutouts)))
            first += len(block)
            start += len(chosen)
    return copied


def _join(
    copied: Sequence[_Copied],
    images: npt.NDArray[np.float32] | models.BlockImages,
    tables: Labels,
    origin: Mapping[str, Any],
) -> LabeledImages:
    """Return the copied cutouts with their labels, and count the objects that were left out."""
    # Lists of (object,) and (object, band) per block become arrays over all objects.
    ids, psf, sky, has_light = (np.concatenate(parts) for parts in zip(*copied, strict=True))
    # Cutouts are in the store's order, labels in the tables'.
    numbers = np.flatnonzero(has_light)
    matched = tables.match(ids[has_light])
    n_dark = len(tables.match(ids).place) - len(matched.place)
    left_out = [
        (tables.n_labels - tables.n_complete, "with a missing label"),
        (tables.n_complete - len(matched.place) - n_dark, "without a cutout"),
        (n_dark, "without light at their center"),
    ]
    chosen = numbers[matched.place]
    extras = dataclasses.replace(
        tables.extras(ids[has_light], matched), psf_fwhm_arcsec=psf[chosen], sky_sigma_njy=sky[chosen]
    )
    return LabeledImages(
        _chosen_rows(images, chosen),
        matched.parameters,
        extras,
        origin,
        _notes(tables.sources, len(chosen), tables.n_labels, left_out),
    )


def _notes(
    labels: LabelSources, n_objects: int, n_labels: int, left_out: Sequence[tuple[int, str]]
) -> tuple[str, ...]:
    """Return a line with the number of objects with labels, and how many were left out for which reason."""
    reasons = ", ".join(f"{count} {why}" for count, why in left_out if count)
    of_tables = f" in {len(labels.paths)} tables" if len(labels.paths) > 1 else ""
    return (
        f"{n_objects} of {n_labels} objects with labels{of_tables}"
        + (f"; left out: {reasons}" if reasons else ""),
    )


def _chosen_rows(images: npt.NDArray[np.float32] | models.BlockImages, rows: Ids) -> models.ImageRows:
    """Return some rows of images, without a copy of them."""
    if not isinstance(images, np.ndarray):
        return images.take(rows)
    return images if np.array_equal(rows, np.arange(len(images))) else _ChosenRows(images, rows)


@dataclass(frozen=True)
class _ChosenRows:
    """Some rows of images; indexing reads only the rows asked for, as a copy of all may not fit into memory."""

    images: npt.NDArray[np.float32]
    numbers: npt.NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.numbers), *self.images.shape[1:])

    def __getitem__(self, rows: Any) -> Any:
        return self.images[self.numbers[rows]]


@dataclass(frozen=True)
class _StoredBlock:
    """The wanted objects of one block of a store.

    Attributes
    ----------
    pixel : HEALPix pixel of the partition
    start, stop : rows of the block in the partition
    rows : (object,) int64, rising, the wanted rows, counted from `start`
    """

    pixel: HealpixPixel
    start: int
    stop: int
    rows: npt.NDArray[np.int64]


@dataclass(frozen=True)
class _StoredBlocks:
    """The wanted objects of a store, by blocks, whose images are read when they are needed.

    Attributes
    ----------
    store : path of the store
    grid, bands : which cutouts are read
    blocks : blocks with wanted objects, in the store's order
    """

    store: str
    grid: Grid
    bands: tuple[str, ...]
    blocks: tuple[_StoredBlock, ...]

    @classmethod
    def of(
        cls,
        store: str,
        grid: Grid,
        bands: tuple[str, ...],
        rows_of: Mapping[HealpixPixel, npt.NDArray[np.int64]],
    ) -> _StoredBlocks:
        """Return the blocks of the wanted rows, (object,) int64, of each partition."""
        blocks = []
        for pixel, rows in rows_of.items():
            if not len(rows):
                continue
            reader = ingest.CutoutReader(store, pixel, grid)
            for start in range(0, reader.n_objects, reader.block_objects):
                stop = min(start + reader.block_objects, reader.n_objects)
                wanted = rows[(rows >= start) & (rows < stop)] - start
                if len(wanted):
                    blocks.append(_StoredBlock(pixel, start, stop, wanted))
        return cls(store, grid, bands, tuple(blocks))

    def read(self, number: int) -> npt.NDArray[np.float32]:
        """Return the images (object, band, y, x) float32, nJy, of the wanted objects of a block."""
        block = self.blocks[number]
        # Opened anew for each block, as the small arrays of all partitions would grow with the survey.
        found = ingest.read_block(self.store, block.pixel, self.grid, start=block.start, stop=block.stop)
        chosen: npt.NDArray[np.float32] = found.select_bands(self.bands).image[block.rows]
        return chosen


def _stream_images(blocks: _StoredBlocks, memory_bytes: float) -> models.BlockImages:
    """Return the images of all wanted objects, in the store's order; training holds at most `memory_bytes` of them.

    Parameters
    ----------
    blocks : _StoredBlocks
    memory_bytes : float
        Two blocks are held at least, and two more read ahead, also where these are larger.
    """
    begins = np.cumsum([0, *(len(block.rows) for block in blocks.blocks)], dtype=np.int64)
    shape = (int(begins[-1]), len(blocks.bands), blocks.grid.size_px, blocks.grid.size_px)
    block_bytes = 4 * int(np.prod(shape[1:], dtype=np.int64)) * int(np.diff(begins).max())
    mixed = models.n_mixed_blocks(block_bytes, memory_bytes)
    return models.BlockImages(shape, np.arange(shape[0]), begins, blocks.read, mixed)


def _streaming_note(images: models.BlockImages) -> str:
    """Return a line on how the images are read, and how much of them is in memory."""
    n_bytes = 4 * int(np.prod(images.shape, dtype=np.int64))
    return (
        f"{n_bytes / 2**30:.1f} GiB of cutouts stream from the store: the order of an epoch mixes {images.n_mixed} of "
        f"{len(images.begins) - 1} blocks at a time; {images.projected_bytes / 2**30:.1f} GiB of them are in memory"
    )
