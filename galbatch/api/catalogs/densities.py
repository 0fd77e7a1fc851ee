"""Densities of a catalog for other tools: ensembles of qp, which RAIL reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galbatch import catalog
from galbatch.core.columns import GRID_KEY, ID, ColumnKey, Statistic, parse_columns
from galbatch.core.process import require
from galbatch.errors import UsageError

__all__ = ["DensityColumn", "WrittenEnsemble", "density_columns", "write_qp"]


@dataclass(frozen=True)
class DensityColumn:
    """A column of densities in a catalog.

    Attributes
    ----------
    name : name of the column, such as ``net_z_density``
    model, quantity : network and parameter
    edges : (bin + 1,) float64, edges of the bins
    """

    name: str
    model: str
    quantity: str
    edges: npt.NDArray[np.float64]

    def of(self, statistic: Statistic, level: float | None = None) -> str:
        """Return the name of another column of the same quantity."""
        return ColumnKey(statistic, self.quantity, level=level).name(self.model)


@dataclass(frozen=True)
class WrittenEnsemble:
    """An ensemble that was written: the column, how many objects it has, and how many were left out as they have no density."""

    column: DensityColumn
    n_objects: int
    n_left_out: int


def density_columns(schema: pa.Schema) -> list[DensityColumn]:
    """Return the columns of densities of a catalog with this schema, in its order."""
    found = []
    for name, (model, key) in parse_columns(schema.names).items():
        if key.statistic is Statistic.DENSITY:
            low, high, n_bins = json.loads((schema.field(name).metadata or {})[GRID_KEY.encode()])
            edges = np.linspace(low, high, n_bins + 1)
            found.append(DensityColumn(name, model, key.quantity, edges))
    return found


def write_qp(catalog_path: str, output: str, *, column: str | None = None) -> WrittenEnsemble:
    """Write the densities of a catalog as an ensemble of histograms of qp, for RAIL and other readers.

    The ancillary table has ``object_id``, ``median`` (the catalog's) and ``zmode``, RAIL's name for the point estimate: the
    catalog's mode. qp normalizes each density to 1 on the grid.

    Parameters
    ----------
    catalog_path : str
        A HATS catalog written by galbatch.
    output : str
        File to write, .hdf5: the format that RAIL's stages read.
    column : str or None
        The column of densities; None: the only one.

    Raises
    ------
    UsageError
        There is no such column, or several and none is named; or the suffix is another one.
    MissingPackage
        qp is not installed.
    """
    # qp leaves FITS files open after reading, and writes several Parquet files for one name.
    if Path(output).suffix != ".hdf5":
        raise UsageError(f"-o {output}: the name of an ensemble ends in .hdf5")
    qp = require("qp", where=f"-o {output}")
    chosen = _chosen(catalog_path, density_columns(catalog.read_schema(catalog_path)), column)
    names = {"median": chosen.of(Statistic.QUANTILE, 0.5), "zmode": chosen.of(Statistic.MODE)}
    table = catalog.read_catalog(catalog_path, columns=[ID.name, *names.values(), chosen.name])
    flat = table.column(chosen.name).combine_chunks().flatten().to_numpy(zero_copy_only=False)
    density = flat.reshape(len(table), -1)
    # A row without probability on the grid cannot be normalized.
    has_density = np.isfinite(density).all(axis=1) & (density > 0).any(axis=1)
    if not has_density.any():
        raise UsageError(f"{catalog_path}: none of {len(table)} objects has a density in {chosen.name}")
    kept = table.filter(pa.array(has_density))
    ancillary: dict[str, npt.NDArray[Any]] = {ID.name: _ids(kept.column(ID.name))}
    ancillary |= {name: kept.column(own).to_numpy() for name, own in names.items()}
    data = {"bins": chosen.edges, "pdfs": density[has_density].astype(np.float64)}
    qp.Ensemble(qp.hist, data=data, ancil=ancillary).write_to(output)
    return WrittenEnsemble(chosen, len(kept), len(table) - len(kept))


def _chosen(catalog_path: str, columns: list[DensityColumn], name: str | None) -> DensityColumn:
    """Return the column of that name, or the only one."""
    there = ", ".join(one.name for one in columns)
    if not columns:
        raise UsageError(
            f"{catalog_path}: has no column of densities; a run writes them where run.toml has [[models.densities]]"
        )
    found = [one for one in columns if name in (None, one.name)]
    if len(found) != 1:
        wanted = "which of its densities" if name is None else f"no column of densities {name}"
        raise UsageError(f"{catalog_path}: {wanted}? name one by --column; there are {there}")
    return found[0]


def _ids(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return ids as integers, or as bytes, which HDF5 holds as text of fixed width."""
    if pa.types.is_integer(column.type):
        return column.to_numpy()
    return np.array([one.encode() for one in column.to_pylist()])
