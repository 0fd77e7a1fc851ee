"""Pass outputs: the outputs of every pass, kept in Zarr beside the catalog, for joint draws later.

One group per partition and model, in the catalog's own tree, beside the catalog and not inside: readers of HATS list
its folders. The passes of an object are rows ``offset[i]`` to ``offset[i + 1]`` of ``outputs_0``, ``outputs_1``, .. of
the model's bundles; there are none of objects that were not run.

A group is done when its ``_done.json`` exists, which is deleted before anything is rewritten and written last, and
before the partition's leaf: where a leaf says that its pass outputs were kept, they are there.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
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
from galbatch.errors import CatalogError, FingerprintError
from galbatch.storage import zarr_groups

__all__ = [
    "FOOTER_KEY",
    "PASS_OUTPUT_ENTRIES",
    "Origin",
    "PassOutputs",
    "PassOutputsWriter",
    "create_groups",
    "list_done",
    "open_pass_outputs",
    "pass_outputs_path",
    "problem_of",
    "problems",
    "read_done",
    "were_kept",
]

FOOTER_KEY = "pass_outputs"
"""In a leaf's footer: ``kept`` where the partition's pass outputs are."""

PASS_OUTPUT_ENTRIES = zarr_groups.GROUP_ENTRIES
"""All that is written in the folder, in the order in which to delete it."""

# What drawing of one object fetches at least. Object stores like files of this size.
MAX_CHUNK_BYTES = 8 * 10**6

# Of passes that differ little the high bytes repeat: bytes of equal rank beside each other, then Zstandard.
CODEC = BloscCodec(cname="zstd", clevel=1, shuffle="shuffle")

OUTPUTS = "outputs_"

REMEDY = "passes are reproducible: remove the partition's leaf and run galbatch run again"


def pass_outputs_path(catalog_path: str) -> str:
    """Return the path of a catalog's pass outputs."""
    # The catalog may be named ".", or with a slash at its end.
    return f"{storage.absolute(catalog_path)}_pass_outputs.zarr"


@dataclass(frozen=True)
class Origin:
    """The model that kept outputs belong to, and how they are read: all that drawing needs beside them.

    Attributes
    ----------
    model : name in the run
    bundles : of each bundle, what reading its outputs takes, as JSON: models/ writes and reads it
    seed : of the run
    engine : that computed the passes
    """

    model: str
    bundles: tuple[Mapping[str, Any], ...]
    seed: int
    engine: str

    def as_json(self) -> dict[str, Any]:
        """Return the attributes of the group."""
        return {
            "model": self.model,
            "bundles": list(self.bundles),
            "seed": self.seed,
            "engine": self.engine,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Origin:
        """Return the origin from the attributes of a group."""
        return cls(value["model"], tuple(value["bundles"]), int(value["seed"]), value["engine"])


def create_groups(catalog_path: str, partitions: Sequence[Partition]) -> None:
    """Make the root and the groups above those of `partitions`; the client does, before it submits."""
    name = os.path.basename(catalog_path.rstrip("/"))
    zarr_groups.write_root(pass_outputs_path(catalog_path), {"catalog": name}, partitions)


class PassOutputsWriter:
    """Writes the pass outputs of one model in one partition; what was there before goes first.

    Chunks are written as they fill: memory does not grow with the partition. If anything raises, the group stays
    unfinished.

    Parameters
    ----------
    catalog_path : of the catalog beside which they are
    partition : whose they are; one task at a time writes it
    origin : what the outputs are of
    object_id : (object,) int64 or str, of the whole partition
    n_outputs : of each bundle, the number of outputs of a pass

    Raises
    ------
    OutputError
        No space, or no permission.
    OSError
        Any other fault of disk or network: trying again may help.
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
        self._object_id = object_id.astype(np.str_) if object_id.dtype.hasobject else object_id
        self._n_passes = np.zeros(len(object_id), np.int64)
        self._next = 0
        self._rows = [_Rows(self._group, number, n_outputs=n) for number, n in enumerate(n_outputs)]

    def append(self, row: int, outputs: Sequence[npt.NDArray[np.float32]]) -> None:
        """Keep the passes of one object.

        Parameters
        ----------
        row : of the object in the partition; rising from call to call
        outputs : of each bundle (pass, output); as many passes of each
        """
        if row < self._next:
            raise ValueError(f"{self._group.path}: object {row} after object {self._next - 1}")
        self._next = row + 1
        (self._n_passes[row],) = {len(numbers) for numbers in outputs}
        for rows, numbers in zip(self._rows, outputs, strict=True):
            rows.append(numbers)
            self._group.flush(f"{rows.name}/c/")

    def finish(self, fingerprint: Mapping[str, Any]) -> None:
        """Write what is left, and last the mark that all is there.

        Parameters
        ----------
        fingerprint : that of the leaf

        Raises
        ------
        OSError
            Not all that was written is there.
        """
        for rows in self._rows:
            rows.finish()
        offset = np.concatenate([[0], np.cumsum(self._n_passes)])
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
    """An array (row, output) that grows by whole chunks, so that memory does not grow with the partition."""

    def __init__(self, group: zarr_groups.GroupWriter, number: int, *, n_outputs: int) -> None:
        self.name = f"{OUTPUTS}{number}"
        self._group = group
        self._axes = ("row", f"output_{number}")
        self._waiting = np.empty((max(1, MAX_CHUNK_BYTES // (4 * n_outputs)), n_outputs), np.float32)
        self._n_waiting = 0
        self._array: zarr.Array[Any] | None = None

    def append(self, rows: npt.NDArray[np.float32]) -> None:
        """Add rows (row, output); each full chunk goes to the group."""
        while len(rows):
            taken = rows[: len(self._waiting) - self._n_waiting]
            self._waiting[self._n_waiting : self._n_waiting + len(taken)] = taken
            self._n_waiting += len(taken)
            rows = rows[len(taken) :]
            if self._n_waiting == len(self._waiting):
                self._flush()

    def finish(self) -> None:
        """Write the rows that wait; without any rows there is an empty array."""
        if self._n_waiting or self._array is None:
            self._flush()

    def _flush(self) -> None:
        values = self._waiting[: self._n_waiting]
        if self._array is None:
            # The first chunk sets the length of all; a group with fewer rows than that has one chunk of its own length.
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


# --- reading ---------------------------------------------------------------------------------------------


def read_done(catalog_path: str, pixel: HealpixPixel, model: str) -> dict[str, Any] | None:
    """Return the keys fingerprint, n_objects and n_rows of a finished group; None if it is unfinished or absent."""
    return zarr_groups.read_done(_group_path(catalog_path, pixel, model))


def list_done(catalog_path: str) -> list[tuple[HealpixPixel, str]]:
    """Return pixel and model of all finished groups."""
    return zarr_groups.list_done(pass_outputs_path(catalog_path))


@dataclass(frozen=True)
class PassOutputs:
    """The pass outputs of one model in one partition; outputs are read when they are asked for.

    Attributes
    ----------
    path : of the group
    origin : what the outputs are of
    object_id : (object,) int64 or str
    offset : (object + 1,) int64, rows of the outputs
    """

    path: str
    origin: Origin
    object_id: npt.NDArray[Any]
    offset: npt.NDArray[np.int64]
    _group: zarr_groups.GroupReader = dataclasses.field(repr=False)

    def outputs(self, object_id: int | str) -> tuple[npt.NDArray[np.float32], ...]:
        """Return the outputs (pass, output) of an object, float32, for each bundle; no passes if it was not run.

        Raises
        ------
        FingerprintError
            The object is not in the partition, or a file is gone or damaged.
        """
        (rows,) = np.nonzero(self.object_id == object_id)
        if len(rows) != 1:
            raise self._group.damaged(f"object {object_id} is not in it")
        start, stop = (int(bound) for bound in self.offset[rows[0] : rows[0] + 2])
        return tuple(
            self._read(f"{OUTPUTS}{number}", start, stop) for number in range(len(self.origin.bundles))
        )

    def _read(self, name: str, start: int, stop: int) -> npt.NDArray[np.float32]:
        array = _array(self._group, name)
        if start == stop:
            return np.empty((0, array.shape[1]), np.float32)
        self._group.fetch(zarr_groups.chunk_files(array, start, stop))
        return np.asarray(array[start:stop], np.float32)


def open_pass_outputs(
    catalog_path: str, pixel: HealpixPixel, model: str, *, fingerprint: Mapping[str, Any] | None
) -> PassOutputs:
    """Open the finished pass outputs of a model in a partition.

    Parameters
    ----------
    fingerprint : of the partition's leaf, whose pass outputs they must be

    Raises
    ------
    FingerprintError
        They are not there, unfinished, of another run, or damaged.
    """
    if problem := problem_of(catalog_path, pixel, model, fingerprint=fingerprint):
        raise FingerprintError(problem)
    group = zarr_groups.GroupReader(_group_path(catalog_path, pixel, model), remedy=REMEDY)
    values = group.read({name: _array(group, name) for name in ("object_id", "offset")})
    origin = Origin.from_json(group.attributes)
    return PassOutputs(group.path, origin, values["object_id"], values["offset"], group)


def _array(group: zarr_groups.GroupReader, name: str) -> zarr.Array[Any]:
    array = group.array(name)
    if array is None:
        raise group.damaged(f"{name} is not in it")
    return array


def _group_path(catalog_path: str, pixel: HealpixPixel, model: str) -> str:
    return zarr_groups.group_path(pass_outputs_path(catalog_path), pixel, model)


# --- checking --------------------------------------------------------------------------------------------


def were_kept(footer: Mapping[str, str]) -> bool:
    """Return whether a leaf's footer says that the pass outputs of its partition were kept."""
    return footer.get(FOOTER_KEY) == "kept"


def problems(catalog_path: str) -> list[str]:
    """Return the problems of the pass outputs of a catalog's leaves, [] if there are none; leaves without any are fine."""
    found = []
    for pixel in list_leaves(catalog_path):
        try:
            footer = read_footer(catalog_path, pixel) or {}
        except CatalogError:
            continue  # catalog.verify says so
        if were_kept(footer):
            fingerprint = json.loads(footer.get("fingerprint", "{}"))
            models = json.loads(footer.get(BUNDLES_KEY, "{}"))
            found += [problem_of(catalog_path, pixel, model, fingerprint=fingerprint) for model in models]
    return [problem for problem in found if problem]


def problem_of(
    catalog_path: str, pixel: HealpixPixel, model: str, *, fingerprint: Mapping[str, Any] | None
) -> str:
    """Return the problem of the pass outputs of a model in a pixel, "" if there is none."""
    path = _group_path(catalog_path, pixel, model)
    done = read_done(catalog_path, pixel, model)
    if done is None:
        return f"{path}: the catalog says that pass outputs were kept, but they are not there or unfinished; {REMEDY}"
    found, expected = done["fingerprint"].get("digest"), (fingerprint or {}).get("digest")
    if found != expected:
        return (
            f"{path}: its pass outputs are of another run ({str(found)[:12]}.., the leaf's is {str(expected)[:12]}..); "
            "passes are reproducible: run again with keep_pass_outputs = true into a new [catalog] path"
        )
    return ""
