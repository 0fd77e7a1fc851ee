"""The catalog that a run made, whatever was wrong with its inputs: what no value may be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from galbatch.core.columns import ColumnKey, Statistic, parse_columns

POSSIBLE = {"bt": (0.0, 1.0), "flux_njy": (0.0, np.inf)}
"""Least and greatest value of the quantities of the networks here, as far as they are bounded."""

RANGES = {
    Statistic.STD: (0.0, np.inf),
    Statistic.EPISTEMIC_STD: (0.0, np.inf),
    Statistic.MC_ERROR: (0.0, np.inf),
    Statistic.CORRELATION: (-1.0, 1.0),
    Statistic.PASSES: (0.0, np.inf),
    Statistic.OOD_DISTANCE: (0.0, np.inf),
    Statistic.DISAGREEMENT: (0.0, np.inf),
}
"""Least and greatest value of other statistics; quantiles, means and modes have those of their quantity."""

OF_QUANTITIES = (Statistic.QUANTILE, Statistic.MEAN, Statistic.MODE)


def catalog_problems(catalog: Path, *, n_listed: int) -> list[str]:
    """Return what is wrong with the leaves of a catalog; of `n_listed` objects each is in it once at most."""
    leaves = [pq.read_table(path) for path in sorted(catalog.glob("dataset/**/Npix=*.parquet"))]
    if not leaves:
        return []
    table = pa.concat_tables(leaves)
    ids = table.column("object_id")
    found = [] if len(pc.unique(ids)) == len(ids) <= n_listed else [f"{len(ids)} rows of {n_listed} objects"]
    keys = parse_columns(table.column_names)
    found += _impossible_numbers(table, keys)
    for model in {model for model, _ in keys.values()}:
        of_model = {name: key for name, (owner, key) in keys.items() if owner == model}
        found += _disordered_quantiles(table, of_model)
        found += _unexplained_nulls(table, of_model, flags=f"{model}_flags")
    return found


def _numbers(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """Return a column with null as NaN, (row,)."""
    values: npt.NDArray[np.float64] = table.column(name).cast(pa.float64()).to_numpy()
    return values


def _impossible_numbers(table: pa.Table, keys: dict[str, tuple[str, ColumnKey]]) -> Iterator[str]:
    ranges = {"ra_deg": (0.0, 360.0), "dec_deg": (-90.0, 90.0)}
    for name, (_, key) in keys.items():
        of_quantity = POSSIBLE.get(str(key.quantity)) if key.statistic in OF_QUANTITIES else None
        ranges[name] = of_quantity or RANGES.get(key.statistic, (-np.inf, np.inf))
    for name, (least, greatest) in ranges.items():
        if not pa.types.is_floating(table.schema.field(name).type):
            continue
        present = table.column(name).drop_null().cast(pa.float64()).to_numpy()
        if not np.isfinite(present).all():
            yield f"{name} is NaN or infinite"
        elif ((present < least) | (present > greatest)).any():
            yield f"{name} is beyond {least} to {greatest}: {present}"


def _disordered_quantiles(table: pa.Table, keys: dict[str, ColumnKey]) -> Iterator[str]:
    for quantity in {key.quantity for key in keys.values() if key.statistic is Statistic.QUANTILE}:
        names = [
            n for n, key in keys.items() if key.statistic is Statistic.QUANTILE and key.quantity == quantity
        ]
        rising = np.stack([_numbers(table, name) for name in names])
        if (np.diff(rising, axis=0) < 0).any():
            yield f"the quantiles of {quantity} do not rise: {rising}"


def _unexplained_nulls(table: pa.Table, keys: dict[str, ColumnKey], *, flags: str) -> Iterator[str]:
    flagged = table.column(flags).to_numpy() != 0
    for name, key in keys.items():
        if key.statistic in OF_QUANTITIES:
            missing = np.isnan(_numbers(table, name))
            if (missing & ~flagged).any():
                yield f"{name} is missing without a flag"
