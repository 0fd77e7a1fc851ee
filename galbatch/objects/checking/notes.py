"""Remarks on a checked list that are worth knowing: radians, ids of bricks, nulls, magnitudes, auxiliary inputs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galbatch.config import ObjectsConfig
from galbatch.objects.checking.names import plain_name
from galbatch.objects.checking.rows import Blocks
from galbatch.objects.tables import unit_of

__all__ = ["Positions", "list_notes"]

FAINTEST_MAG = 50.0
"""Surveys write 99, -99 or 999 where nothing was measured; no galaxy is fainter."""

MAG_STEPS = 1000
"""Magnitudes are counted in steps of 1/1000, so that their median needs no more memory for more rows."""


@dataclass(frozen=True)
class Positions:
    """The extent of the usable rows' positions.

    Attributes
    ----------
    n : number of rows
    ra_deg, dec_deg : lowest and highest, as found; NaN if there are none
    n_wrapped : rows whose right ascension lies outside 0..360
    """

    n: int
    ra_deg: tuple[float, float]
    dec_deg: tuple[float, float]
    n_wrapped: int

    @classmethod
    def of(cls, ra_deg: npt.NDArray[np.float64], dec_deg: npt.NDArray[np.float64]) -> Positions:
        """Return the extent of positions (row,), deg."""
        n_wrapped = int(np.count_nonzero((ra_deg < 0) | (ra_deg >= 360)))
        return cls(len(ra_deg), _range(ra_deg), _range(dec_deg), n_wrapped)

    def __add__(self, other: Positions) -> Positions:
        # Of NaN and a number fmin and fmax take the number.
        ra, dec = (
            (float(np.fmin(a[0], b[0])), float(np.fmax(a[1], b[1])))
            for a, b in ((self.ra_deg, other.ra_deg), (self.dec_deg, other.dec_deg))
        )
        return Positions(self.n + other.n, ra, dec, self.n_wrapped + other.n_wrapped)


def _range(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    return (float(values.min()), float(values.max())) if len(values) else (np.nan, np.nan)


def list_notes(
    blocks: Blocks,
    objects: ObjectsConfig,
    *,
    names: Sequence[str],
    magnitudes: Sequence[str],
    positions: Positions,
) -> Iterator[str]:
    """Iterate over remarks on a list.

    Parameters
    ----------
    blocks : the usable rows
    objects : ``[objects]``
    names : of all columns
    magnitudes : names of the columns of magnitudes
    positions : of the usable rows
    """
    yield from _notes_on_angles(blocks, objects, positions)
    if plain_name(objects.id) == "objid" and "brickid" in map(plain_name, names):
        yield (
            "objid is unique within a brick only: make one id of release, brickid and objid "
            "(release << 40 | brickid << 16 | objid)"
        )
    yield from _notes_on_magnitudes(blocks, magnitudes)


def _notes_on_angles(blocks: Blocks, objects: ObjectsConfig, positions: Positions) -> Iterator[str]:
    """Iterate over remarks on positions that look like radians or hours, and whose unit the list does not state."""
    # All positions of a list within 6.28 by 3.14 degrees of the origin are rare: radians are far more likely. One
    # position alone says nothing.
    low, high = positions.ra_deg
    in_radians = (
        positions.n > 1 and low >= 0 and high <= 2 * np.pi and np.abs(positions.dec_deg).max() <= np.pi / 2
    )
    in_hours = low >= 0 and high <= 24 and high - low > 12
    if not (in_radians or in_hours) or _states_unit(blocks, objects.ra):
        return
    remedy = "A run takes degrees, or the unit that the file states for the column"
    if in_radians:
        as_lsst = " (as in the LSST pipelines' source tables)" if plain_name(objects.ra) == "coordra" else ""
        yield (
            f"all positions lie within 0..6.28 and -1.57..1.57: are {objects.ra} and {objects.dec} in radians{as_lsst}? {remedy} (rad)"
        )
    else:
        yield f"all right ascensions lie within 0..24: is {objects.ra} in hours? {remedy} (hourangle)"


def _states_unit(blocks: Blocks, name: str) -> bool:
    """Return whether the list states a unit for a column."""
    return any(unit_of(table.schema.field(name)) for table in itertools.islice(blocks([name]), 1))


@dataclass
class _Counted:
    """Magnitudes of one column, counted in steps."""

    low: float = np.inf
    high: float = -np.inf
    n_missing: int = 0
    counts: npt.NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(2 * int(FAINTEST_MAG) * MAG_STEPS + 1, np.int64)
    )

    def add(self, column: pa.ChunkedArray) -> None:
        values = column.cast(pa.float64(), safe=False).to_numpy()
        good = values[np.isfinite(values) & (np.abs(values) < FAINTEST_MAG)]
        self.n_missing += len(values) - len(good)
        if len(good):
            self.low, self.high = min(self.low, float(good.min())), max(self.high, float(good.max()))
            step = np.rint((good + FAINTEST_MAG) * MAG_STEPS).astype(np.int64)
            self.counts += np.bincount(step, minlength=len(self.counts))

    @property
    def median(self) -> float:
        """The mean of the two values in the middle."""
        n = int(self.counts.sum())
        steps = np.searchsorted(np.cumsum(self.counts), [(n - 1) // 2, n // 2], side="right")
        return float(steps.mean()) / MAG_STEPS - FAINTEST_MAG


def _notes_on_magnitudes(blocks: Blocks, names: Sequence[str]) -> Iterator[str]:
    counted: dict[str, _Counted] = {}
    for table in blocks(names) if names else ():
        for name in names:
            column = table.column(name)
            if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
                counted.setdefault(name, _Counted()).add(column)
    for name, found in counted.items():
        if np.isfinite(found.low):
            missing = f", {found.n_missing} without a value" if found.n_missing else ""
            yield f"{name}: {found.low:.2f} to {found.high:.2f} mag, half brighter than {found.median:.2f}{missing}"
