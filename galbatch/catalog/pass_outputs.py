"""Pass outputs: the network outputs of every pass, kept in a Zarr store for later joint draws.

The store lies next to the catalog and not inside, because readers of HATS list the catalog's folders. It has one group
per partition and model, with the same HEALPix paths as the leaves. The passes of object i are the rows ``offset[i]`` to
``offset[i + 1]`` (exclusive) of the arrays ``outputs_0``, ``outputs_1``, ..., one array for each bundle of the model.
Objects on which the model was not run have no rows.

A group is finished when its ``_done.json`` exists. That file is deleted before a group is rewritten, and written last, but
before the partition's leaf: a leaf whose footer says that pass outputs were kept always has them.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec

from galbatch import storage
from galbatch.catalog.layout import list_leaves
from galbatch.catalog.leaves import BUNDLES_KEY, read_footer
from galbatch.core.pixels import HealpixPixel, Partition
from galbatch.core.types import places_of
from galbatch.errors import DamagedError, FingerprintError
from galbatch.storage import zarr_groups

__all__ = [
    "FOOTER_KEY",
    "PASS_OUTPUT_ENTRIES",
    "Origin",
    "PassOutputs",
    "PassOutputsWriter",
    "create_groups",
    "damaged_pixel",
    "find_damage",
    "list_done",
    "open_pass_outputs",
    "pass_outputs_path",
    "problems",
    "read_done",
    "remove_partition",
    "require",
    "were_kept",
]

FOOTER_KEY = "pass_outputs"
"""Entry of a leaf's footer, whose value is ``kept`` if the partition's pass outputs were kept."""

PASS_OUTPUT_ENTRIES = zarr_groups.GROUP_ENTRIES
"""All entries of the Zarr store's folder, in the order in which to delete them."""

# Drawing for one object reads at least one chunk. Object stores are efficient for files of this size.
MAX_CHUNK_BYTES = 8 * 10**6

# Passes of an object differ little, so the high bytes of the floats repeat: the shuffle puts them next to each other.
CODEC = BloscCodec(cname="zstd", clevel=1, shuffle="shuffle")

OUTPUTS = "outputs_"

REMEDY = "passes are reproducible: remove the partition's leaf and run galbatch run again"


def pass_outputs_path(catalog_path: str) -> str:
    """Return the path of the Zarr store with a catalog's pass outputs."""
    # Made absolute, because the catalog's path may be "." or end with a slash, to which no suffix can be added.
    return f"{storage.absolute(catalog_path)}_pass_outputs.zarr"


@dataclass(frozen=True)
class Origin:
    """The model that computed a group of pass outputs, with the information that is needed to draw from them.

    Attributes
    ----------
    model : str
        The model's name in run.toml.
    bundles : tuple of mappings
        `galbatch.models.OutputInfo` of each bundle as JSON: how its outputs become posteriors.
    seed : int
        Seed of the run.
    engine : str
        Name of the engine that computed the passes.
    """

    model: str
    bundles: tuple[Mapping[str, Any], ...]
    seed: int
    engine: str

    def as_json(self) -> dict[str, Any]:
        """Return the origin as attributes of a Zarr group."""
        return {
            "model": self.model,
            "bundles": list(self.bundles),
            "seed": self.seed,
            "engine": self.engine,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Origin:
        """Return the origin from the attributes of a Zarr group."""
        return cls(value["model"], tuple(value["bundles"]), int(value["seed"]), value["engine"])


def create_groups(catalog_path: str, partitions: Iterable[HealpixPixel]) -> None:
    """Create the root of the Zarr store and the parent groups of `partitions`. The client calls this before it submits tasks."""
    name = os.path.basename(catalog_path.rstrip("/"))
    zarr_groups.write_root(pass_outputs_path(catalog_path), {"catalog": name}, partitions)


class PassOutputsWriter:
    """Writer of the pass outputs of one model in one partition. It deletes an earlier version of the group first.

    Each chunk is written as soon as it is full, so memory does not grow with the partition. After an exception the group
    is unfinished.

    Parameters
    ----------
    catalog_path : str
        The catalog, next to which the Zarr store lies.
    partition : Partition
        Only one task at a time may write the same partition.
    origin : Origin
        The model that computes the outputs.
    object_id : (object,) int64 or str
        All objects of the partition.
    n_outputs : sequence of int
        Number of outputs per pass, for each bundle of the model.

    Raises
    ------
    OutputError
        There is no space, or no permission to write.
    OSError
        Another error of the disk or the network; a retry may help.
    """

    def __init__(
        self,
        catalog_path: str,
        partition: Partition,
        origin: Origin,
        *,
        object_id: npt.NDArray[Any],
        n_outputs: Sequence[int],
    ) -> None:
        self._group = zarr_groups.GroupWriter(
            _group_path(catalog_path, partition, origin.model), origin.as_json()
        )
        # Zarr stores text of fixed width, not Python objects.
        self._object_id = object_id.astype(np.str_) if object_id.dtype.hasobject else object_id
        self._n_passes = np.zeros(len(object_id), np.int64)
        self._next = 0
        self._rows = [_Rows(self._group, number, n_outputs=n) for number, n in enumerate(n_outputs)]

    def append(self, row: int, outputs: Sequence[npt.NDArray[np.float32]]) -> None:
        """Add the passes of one object.

        Parameters
        ----------
        row : int
            Row of the object in the partition, higher than in any earlier call.
        outputs : sequence of (pass, output) float32
            One array for each bundle, all with the same number of passes.
        """
        if row < self._next:
            raise ValueError(f"{self._group.path}: object {row} after object {self._next - 1}")
        self._next = row + 1
        # Unpacking a set of one number raises if the bundles differ in their number of passes.
        (self._n_passes[row],) = {len(numbers) for numbers in outputs}
        for rows, numbers in zip(self._rows, outputs, strict=True):
            rows.append(numbers)
            self._group.flush(f"{rows.name}/c/")

    def finish(self, fingerprint: Mapping[str, Any]) -> None:
        """Write the remaining rows, the ids and offsets, and at last ``_done.json``.

        Parameters
        ----------
        fingerprint : mapping
            The fingerprint of the partition's leaf, as JSON.

        Raises
        ------
        OSError
            A file that was written is missing.
        """
        for rows in self._rows:
            rows.finish()
        offset = np.concatenate([[0], np.cumsum(self._n_passes)])  # (object + 1,)
        with zarr_groups.unspecified():
            self._group.add_array("object_id", self._object_id, axes=("object",))
            self._group.add_array("offset", offset, axes=("bound",))
        self._group.finish(
            {
                "fingerprint": dict(fingerprint),
                "n_objects": len(self._object_id),
                "n_rows": int(offset[-1]),
            }
        )


class _Rows:
    """A Zarr array (row, output) that is extended chunk by chunk, so that only one chunk is in memory."""

    def __init__(self, group: zarr_groups.GroupWriter, number: int, *, n_outputs: int) -> None:
        self.name = f"{OUTPUTS}{number}"
        self._group = group
        self._axes = ("row", f"output_{number}")
        # (row, output), one full chunk of float32 (4 bytes).
        self._waiting = np.empty((max(1, MAX_CHUNK_BYTES // (4 * n_outputs)), n_outputs), np.float32)
        self._n_waiting = 0
        self._array: zarr.Array[Any] | None = None

    def append(self, rows: npt.NDArray[np.float32]) -> None:
        """Add rows (row, output), and write each chunk that becomes full."""
        while len(rows):
            taken = rows[: len(self._waiting) - self._n_waiting]
            self._waiting[self._n_waiting : self._n_waiting + len(taken)] = taken
            self._n_waiting += len(taken)
            rows = rows[len(taken) :]
            if self._n_waiting == len(self._waiting):
                self._flush()

    def finish(self) -> None:
        """Write the rows of an unfilled chunk. An array without any rows is created empty."""
        if self._n_waiting or self._array is None:
            self._flush()

    def _flush(self) -> None:
        values = self._waiting[: self._n_waiting]
        if self._array is None:
            # The first chunk fixes the length of all chunks. It is shorter than MAX_CHUNK_BYTES only if it is the only one.
            n_outputs = self._waiting.shape[1]
            self._array = self._group.create_array(
                self.name,
                shape=(0, n_outputs),
                chunks=(max(1, len(values)), n_outputs),
                dtype="float32",
                compressors=CODEC,
                fill_value=np.nan,
                dimension_names=self._axes,
            )
        start = self._array.shape[0]
        self._array.resize((start + len(values), *self._array.shape[1:]))
        self._array[start:] = values
        self._n_waiting = 0


def remove_partition(catalog_path: str, pixel: HealpixPixel) -> None:
    """Remove the pass outputs of all models of a partition, if there are any."""
    zarr_groups.remove_pixel(pass_outputs_path(catalog_path), pixel)


def read_done(catalog_path: str, pixel: HealpixPixel, model: str) -> dict[str, Any] | None:
    """Return fingerprint, n_objects and n_rows of a finished group as a dict; None if the group is unfinished or missing."""
    return zarr_groups.read_done(_group_path(catalog_path, pixel, model))


def list_done(catalog_path: str) -> list[tuple[HealpixPixel, str]]:
    """Return the pixel and the model of each finished group."""
    return zarr_groups.list_done(pass_outputs_path(catalog_path))


@dataclass(frozen=True)
class PassOutputs:
    """The pass outputs of one model in one partition. Outputs are read from disk by `outputs`.

    Attributes
    ----------
    path : str
        Path of the Zarr group.
    origin : Origin
        The model that computed the outputs.
    object_id : (object,) int64 or str
    offset : (object + 1,) int64
        The passes of object i are the rows ``offset[i]`` to ``offset[i + 1]``, exclusive.
    """

    path: str
    origin: Origin
    object_id: npt.NDArray[Any]
    offset: npt.NDArray[np.int64]
    _group: zarr_groups.GroupReader = dataclasses.field(repr=False)

    @property
    def n_outputs(self) -> list[int]:
        """Number of outputs per pass, for each bundle of the model."""
        names = [f"{OUTPUTS}{number}" for number in range(len(self.origin.bundles))]
        return [int(_array(self._group, name).shape[1]) for name in names]

    def outputs(self, object_id: int | str) -> tuple[npt.NDArray[np.float32], ...]:
        """Return the outputs (pass, output), float32, of one object for each bundle of the model.

        The arrays have no rows if the model was not run on the object.

        Raises
        ------
        FingerprintError
            The object is not in the partition.
        DamagedError
            A file is gone, or not as it was written.
        """
        (rows,) = np.nonzero(self.object_id == object_id)
        if len(rows) != 1:
            raise FingerprintError(f"{self.path}: object {object_id} is not in it; {REMEDY}")
        (found,) = self.outputs_at(rows)
        return found

    def outputs_of(self, object_id: npt.NDArray[Any]) -> list[tuple[npt.NDArray[np.float32], ...]]:
        """Return the outputs of several objects, as `outputs` does, in the order of their ids (object,); what lies between is read with them.

        Raises
        ------
        FingerprintError
            One of the objects is not in the partition.
        DamagedError
            A file is gone, or not as it was written.
        """
        rows = places_of(object_id, self.object_id)
        if (rows < 0).any():
            raise FingerprintError(f"{self.path}: object {object_id[rows < 0][0]} is not in it; {REMEDY}")
        return self.outputs_at(rows)

    def outputs_at(self, rows: npt.NDArray[np.intp]) -> list[tuple[npt.NDArray[np.float32], ...]]:
        """Return the outputs of the objects at `rows`, as `outputs` does; all passes between the first and the last are read at once.

        Raises
        ------
        DamagedError
            A file is gone, or not as it was written.
        """
        if not len(rows):
            return []
        start, stop = int(self.offset[rows.min()]), int(self.offset[rows.max() + 1])
        of_bundles = []
        for number in range(len(self.origin.bundles)):
            array = _array(self._group, f"{OUTPUTS}{number}")
            if start == stop:
                # Nothing to fetch: if no object of the partition was run, the array has no chunk at all.
                of_bundles.append(np.empty((0, array.shape[1]), np.float32))
                continue
            self._group.fetch(zarr_groups.chunk_files(array, start, stop))
            of_bundles.append(np.asarray(array[start:stop], np.float32))
        bounds = [(int(self.offset[row]) - start, int(self.offset[row + 1]) - start) for row in rows]
        return [tuple(outputs[first:last] for outputs in of_bundles) for first, last in bounds]


def open_pass_outputs(
    catalog_path: str, pixel: HealpixPixel, model: str, *, fingerprint: Mapping[str, Any] | None
) -> PassOutputs:
    """Open the finished pass outputs of one model in one partition.

    Parameters
    ----------
    catalog_path : str
    pixel : HealpixPixel
        The partition's pixel.
    model : str
        The model's name in run.toml.
    fingerprint : mapping or None
        Fingerprint of the partition's leaf, as JSON: the pass outputs must have the same.

    Raises
    ------
    FingerprintError
        The pass outputs are from another run.
    DamagedError
        The pass outputs are missing or unfinished, or a file is gone or not as it was written.
    """
    require(catalog_path, pixel, model, fingerprint=fingerprint)
    group = zarr_groups.GroupReader(_group_path(catalog_path, pixel, model))
    values = group.read({name: _array(group, name) for name in ("object_id", "offset")})
    origin = Origin.from_json(group.attributes)
    return PassOutputs(group.path, origin, values["object_id"], values["offset"], group)


def _array(group: zarr_groups.GroupReader, name: str) -> zarr.Array[Any]:
    array = group.array(name)
    if array is None:
        raise FingerprintError(f"{group.path}: {name} is not in it; {REMEDY}")
    return array


def _group_path(catalog_path: str, pixel: HealpixPixel, model: str) -> str:
    return zarr_groups.group_path(pass_outputs_path(catalog_path), pixel, model)


def were_kept(footer: Mapping[str, str]) -> bool:
    """Return whether a leaf's footer says that its partition's pass outputs were kept."""
    return footer.get(FOOTER_KEY) == "kept"


def problems(catalog_path: str) -> list[str]:
    """Check the pass outputs of all leaves of a catalog, and return the problems found; leaves without pass outputs have none."""
    found = []
    for pixel in list_leaves(catalog_path):
        try:
            footer = read_footer(catalog_path, pixel) or {}
            kept = were_kept(footer)
            fingerprint = json.loads(footer.get("fingerprint", "{}")) if kept else None
            models = json.loads(footer.get(BUNDLES_KEY, "{}")) if kept else {}
        except (DamagedError, ValueError):
            continue  # catalog.check reports leaves that cannot be read.
        for model in models:
            try:
                require(catalog_path, pixel, model, fingerprint=fingerprint)
            except (DamagedError, FingerprintError) as error:
                found.append(str(error))
    return found


def find_damage(catalog_path: str) -> dict[str, str]:
    """Read all files of a catalog's pass outputs, and return the problems found, by path relative to the Zarr store."""
    return zarr_groups.find_damage(pass_outputs_path(catalog_path))


def damaged_pixel(path: str) -> HealpixPixel | None:
    """Return the pixel whose pass outputs a path below their folder belongs to; None for the files above the groups."""
    found = zarr_groups.group_of_file(path)
    return found[0] if found is not None else None


def require(
    catalog_path: str, pixel: HealpixPixel, model: str, *, fingerprint: Mapping[str, Any] | None
) -> None:
    """Raise unless the pass outputs of a model in a pixel are finished and come from the same run as the leaf.

    Raises
    ------
    DamagedError
        They are missing or unfinished although the leaf's footer says that they were kept, or ``_done.json`` is damaged.
    FingerprintError
        They come from another run.
    """
    path = _group_path(catalog_path, pixel, model)
    done = read_done(catalog_path, pixel, model)
    if done is None:
        raise DamagedError(
            path, "the catalog says that pass outputs were kept, but they are not there or unfinished"
        )
    found, expected = done["fingerprint"].get("digest"), (fingerprint or {}).get("digest")
    if found != expected:
        raise FingerprintError(
            f"{path}: its pass outputs are of another run ({str(found)[:12]}.., the leaf's is {str(expected)[:12]}..); "
            "passes are reproducible: run again with keep_pass_outputs = true into a new [catalog] path"
        )
