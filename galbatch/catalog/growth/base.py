"""Rows of an older catalog: a network's values are taken from it where they follow from the same pixels, network and settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galbatch.catalog import pass_outputs
from galbatch.catalog.layout import leaf_path
from galbatch.catalog.leaves import footer_of, read_leaf_metadata
from galbatch.catalog.scanning import InPixel, scan
from galbatch.core.columns import HEALPIX, ID, IDENTITY, Column, model_of_network
from galbatch.core.pixels import HealpixPixel, OlderOutput
from galbatch.core.types import places_of
from galbatch.errors import DamagedError, FingerprintError

__all__ = ["BaseRows"]


class BaseRows:
    """The rows of one network in an older catalog, for the objects of a partition.

    Parameters
    ----------
    leaves : OlderOutput
        A leaf that is damaged is passed over, and `notes` say so.
    pixel : HealpixPixel
        The partition's pixel.
    object_id : (object,) int64 or str
    network : str
        The network's name; a leaf without the columns of its model has no rows.
    columns : sequence of Column
        The network's columns.
    with_pass_outputs : bool
        Only rows whose pass outputs are there as well.

    Attributes
    ----------
    identity : (object,) int64, what the values of the object's row follow from; 0 where there is no row
    notes : human-readable lines for the user
    """

    def __init__(
        self,
        leaves: OlderOutput,
        pixel: HealpixPixel,
        object_id: npt.NDArray[Any],
        *,
        network: str,
        columns: Sequence[Column],
        with_pass_outputs: bool = False,
    ) -> None:
        self.identity = np.zeros(len(object_id), np.int64)
        self.notes: list[str] = []
        self._network, self._columns, self._object_id = network, columns, object_id
        self._tables: list[pa.Table] = []
        self._outputs: list[pass_outputs.PassOutputs | None] = []
        # Number of the table that has an object, and its row there.
        self._table = np.full(len(object_id), -1)
        self._row = np.full(len(object_id), -1)
        for leaf in leaves.pixels:
            try:
                self._add(leaves.path, leaf, pixel, object_id, with_pass_outputs)
            except (DamagedError, FingerprintError) as error:
                self.notes.append(f"values are computed again where the base does not have them: {error}")

    def _add(
        self, path: str, leaf: HealpixPixel, pixel: HealpixPixel, object_id: npt.NDArray[Any], keeps: bool
    ) -> None:
        metadata, _ = read_leaf_metadata(leaf_path(path, leaf))
        names, footer = [column.name for column in self._columns], footer_of(metadata)
        if not set(names) <= set(metadata.schema.to_arrow_schema().names):
            return
        outputs = None
        if keeps:
            if not pass_outputs.were_kept(footer):
                return
            fingerprint = json.loads(footer["fingerprint"])
            outputs = pass_outputs.open_pass_outputs(path, leaf, self._network, fingerprint=fingerprint)
        (table,) = scan(path, [leaf], [InPixel(pixel)], columns=[HEALPIX.name, ID.name, *names])
        ids = table.column(ID.name)
        found = places_of(
            object_id, np.array(ids.to_pylist(), object) if ids.type == pa.string() else ids.to_numpy()
        )
        (rows,) = np.nonzero(found >= 0)
        identity = table.column(IDENTITY.name(model_of_network(self._network))).to_numpy()
        self.identity[rows] = identity[found[rows]]
        self._table[rows], self._row[rows] = len(self._tables), found[rows]
        self._tables.append(table)
        self._outputs.append(outputs)

    def values(self, rows: npt.NDArray[np.intp]) -> dict[str, npt.NDArray[Any]]:
        """Return the values (row,) of the network's columns for the objects at `rows`, which all have a row, by column name."""
        result = {column.name: column.empty(len(rows)) for column in self._columns}
        for number, table in enumerate(self._tables):
            (here,) = np.nonzero(self._table[rows] == number)
            if not len(here):
                continue
            there = table.take(pa.array(self._row[rows[here]]))
            for column in self._columns:
                result[column.name][here] = column.as_numpy(there.column(column.name))
        return result

    def outputs(self, rows: npt.NDArray[np.intp]) -> list[tuple[npt.NDArray[np.float32], ...]]:
        """Return the kept pass outputs (pass, output) float32 of the objects at `rows` for each bundle; no passes where none were made.

        Raises
        ------
        DamagedError
            A file is gone, or not as it was written.
        """
        found: dict[int, tuple[npt.NDArray[np.float32], ...]] = {}
        for number, kept in enumerate(self._outputs):
            (here,) = np.nonzero(self._table[rows] == number)
            if len(here):
                assert kept is not None, "made with with_pass_outputs=True"
                found |= zip(here.tolist(), kept.outputs_of(self._object_id[rows[here]]), strict=True)
        return [found[at] for at in range(len(rows))]
