"""Conditions on the rows of a catalog, beside `galbatch.catalog.Cone`: a box, ids, an expression, flags."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, reduce
from operator import or_
from typing import Any

import astropy.units as u
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from astropy.coordinates import SkyCoord

from galbatch.api.lookup import flag_texts
from galbatch.catalog import Cone, RowLimits
from galbatch.core import sky
from galbatch.core.columns import DEC, EXCLUDE_KEY, HEALPIX, ID, PIXEL_FLAGS, RA
from galbatch.core.flags import FlagClass, ModelFlag
from galbatch.core.pixels import HEALPIX_ORDER
from galbatch.errors import UsageError
from galbatch.objects import SkyBox, may_be_true, names_in, select_rows, sky_box

__all__ = ["Box", "Good", "Ids", "Where", "bits_against", "box_of", "cone_of"]

Bools = npt.NDArray[np.bool_]

SMALL_DEG = 20.0
"""Boxes up to this width and height are covered by a circle, larger ones by the pixels of `COARSE_ORDER`."""

COARSE_ORDER = 6
"""HEALPix order of pixels that are 0.92 deg wide: 49,152 cover the sky."""

COARSE_RADIUS_DEG = 1.0
"""More than the distance from the center of such a pixel to its corners, which is 0.91 deg at most."""


@dataclass(frozen=True)
class Box:
    """The rows in a box of right ascension and declination."""

    box: SkyBox

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that it reads."""
        return RA.name, DEC.name

    def may_hold(self, limits: RowLimits) -> bool:
        """Return whether rows within these limits of their HEALPix index and position may lie in the box."""
        if not self.box.may_hold(limits.get(RA.name), limits.get(DEC.name)):
            return False
        if HEALPIX.name not in limits:
            return True
        least, greatest = limits[HEALPIX.name]
        starts, stops = self._ranges
        # The last range that begins within the limits or before them.
        last = int(np.searchsorted(starts, greatest, side="right")) - 1
        return last >= 0 and bool(stops[last] > least)

    @cached_property
    def _ranges(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Ranges of the HEALPix index at order 29 that cover the box, in ascending order: their starts and stops."""
        box = self.box
        width = box.ra_max_deg - box.ra_min_deg + (360.0 if box.ra_min_deg > box.ra_max_deg else 0.0)
        middle = box.ra_min_deg + width / 2, (box.dec_min_deg + box.dec_max_deg) / 2
        if max(width, box.dec_max_deg - box.dec_min_deg) <= SMALL_DEG:
            # A corner is farthest from the middle; a part in a thousand more than rounding could take.
            decs = np.array([box.dec_min_deg, box.dec_max_deg])
            reach = 1.001 * float(sky.separation_arcsec(*middle, box.ra_min_deg, decs).max())
            ranges = sorted(Cone(*middle, reach).index_ranges)
            return np.array([start for start, _ in ranges]), np.array([stop for _, stop in ranges])
        ra, dec = sky.pixel_centers_deg(COARSE_ORDER, np.arange(12 * 4**COARSE_ORDER))
        # Meridians draw together towards the poles: there the margin is wider in right ascension.
        nearest_pole = np.cos(np.radians(np.minimum(np.abs(dec) + COARSE_RADIUS_DEG, 90.0)))
        margin = np.sin(np.radians(COARSE_RADIUS_DEG)) / np.maximum(nearest_pole, 1e-9)
        margin_ra = np.where(margin < 1, np.degrees(np.arcsin(np.minimum(margin, 1.0))), 180.0)
        in_ra = (ra - box.ra_min_deg + margin_ra) % 360.0 <= width + 2 * margin_ra
        in_dec = (dec >= box.dec_min_deg - COARSE_RADIUS_DEG) & (dec <= box.dec_max_deg + COARSE_RADIUS_DEG)
        starts = np.flatnonzero(in_ra & in_dec).astype(np.int64) << 2 * (HEALPIX_ORDER - COARSE_ORDER)
        return starts, starts + 4 ** (HEALPIX_ORDER - COARSE_ORDER)

    def holds(self, rows: pa.Table) -> Bools:
        """Return which rows lie in the box, (row,) bool."""
        return self.box.contains(rows.column(RA.name).to_numpy() % 360.0, rows.column(DEC.name).to_numpy())


@dataclass(frozen=True)
class Ids:
    """The rows of some ids, which come in the order in which they are asked for."""

    asked: tuple[int | str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that it reads."""
        return (ID.name,)

    @cached_property
    def _sorted(self) -> list[Any]:
        return sorted(self.asked)

    def may_hold(self, limits: RowLimits) -> bool:
        """Return whether one of the ids lies within the limits."""
        if ID.name not in limits or not self.asked:
            return bool(self.asked)
        least, greatest = limits[ID.name]
        at = np.searchsorted(np.array(self._sorted, dtype=object), least)
        return bool(at < len(self._sorted) and self._sorted[at] <= greatest)

    def holds(self, rows: pa.Table) -> Bools:
        """Return which rows have one of the ids, (row,) bool."""
        column = rows.column(ID.name)
        return np.asarray(pc.is_in(column, pa.array(self.asked, column.type)))

    def order(self, column: pa.ChunkedArray) -> npt.NDArray[np.intp]:
        """Return the places of rows (row,), from their column of ids, in the order in which the ids were asked for."""
        place = {value: row for row, value in enumerate(column.to_pylist())}
        return np.array([place[value] for value in self.asked if value in place], np.intp)


@dataclass(frozen=True)
class Where:
    """The rows that an expression is true for, such as ``gampen_bt_q500 > 0.5 and flags == 0``; null is not true."""

    text: str

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that it reads."""
        return tuple(names_in(self.text))

    def may_hold(self, limits: RowLimits) -> bool:
        """Return whether the expression may be true for a row within the limits."""
        return may_be_true(self.text, limits)

    def holds(self, rows: pa.Table) -> Bools:
        """Return which rows the expression is true for, (row,) bool."""
        return select_rows({name: rows.column(name) for name in self.columns}, len(rows), self.text)


def bits_against(field: pa.Field) -> int:
    """Return the bits of a column of flags that count against an object: those of class quality in the catalog's own table."""
    quality = (flag.value for flag in flag_texts(field, -1) if flag.flag_class == FlagClass.QUALITY)
    return reduce(or_, quality, 0)


@dataclass(frozen=True)
class Good:
    """The rows without a flag that counts against them, of which a model has values.

    Attributes
    ----------
    bits : tuple of (str, int)
        Column of flags, and its bits that count against an object.
    excluded : tuple of (str, str)
        Kept column, and its value (``true`` and ``false`` for a flag) that counts against an object: not primary, a duplicate, masked.
    """

    bits: tuple[tuple[str, int], ...]
    excluded: tuple[tuple[str, str], ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that it reads."""
        return tuple(name for name, _ in (*self.bits, *self.excluded))

    def may_hold(self, limits: RowLimits) -> bool:
        """Return True: limits say nothing of single bits."""
        return True

    def holds(self, rows: pa.Table) -> Bools:
        """Return which rows have none of the bits, and values of a model, (row,) bool."""
        values = {name: rows.column(name).to_numpy() for name, _ in self.bits}
        good = np.logical_and.reduce([values[name] & bits == 0 for name, bits in self.bits])
        of_models = [flags for name, flags in values.items() if name != PIXEL_FLAGS.name]
        for name, value in self.excluded:
            good &= ~_equals(rows.column(name), value)
        was_run = [flags & int(ModelFlag.NOT_SELECTED) == 0 for flags in of_models]
        return np.asarray(good & np.logical_or.reduce(was_run)) if was_run else good


def _equals(column: pa.ChunkedArray, value: str) -> Bools:
    """Return which values of a kept column are `value`, (row,) bool; numbers are flags, true unless 0. A null is not."""
    if not pa.types.is_string(column.type) and not pa.types.is_large_string(column.type):
        column = pc.if_else(pc.cast(column, pa.bool_()), "true", "false")
    return np.asarray(pc.fill_null(pc.equal(column, value), False))


def excluded_by(schema: pa.Schema) -> tuple[tuple[str, str], ...]:
    """Return the kept columns whose metadata state a value that the default cut leaves out, each with the value."""
    stated = ((one.name, (one.metadata or {}).get(EXCLUDE_KEY)) for one in schema)
    return tuple((name, value.decode()) for name, value in stated if value is not None)


def cone_of(center: SkyCoord, radius: u.Quantity) -> Cone:
    """Return the condition that rows lie within an angle of a position.

    Raises
    ------
    UsageError
        `center` is not one position, or `radius` is not an angle of 0 or more.
    """
    if not isinstance(center, SkyCoord) or not center.isscalar:
        raise UsageError(f"cone: center {center!r}: expected one position as a SkyCoord")
    try:
        radius_arcsec = float(radius.to_value(u.arcsec))
    except (AttributeError, TypeError, u.UnitConversionError):
        raise UsageError(
            f"cone: radius {radius!r}: expected an angle with its unit, such as 10 * u.arcsec"
        ) from None
    return Cone(float(center.icrs.ra.deg), float(center.icrs.dec.deg), radius_arcsec)


def box_of(ra: u.Quantity, dec: u.Quantity) -> Box:
    """Return the condition that rows lie between two right ascensions and two declinations, (2,) each.

    Raises
    ------
    UsageError
        These are not two angles each, or the lowest declination is above the highest.
    """
    limits: list[float] = []
    for name, value in (("ra", ra), ("dec", dec)):
        try:
            low, high = u.Quantity(value).to_value(u.deg).tolist()
        except (TypeError, ValueError, u.UnitConversionError):
            raise UsageError(
                f"box: {name} {value!r}: expected two angles with their unit, such as (150, 151) * u.deg"
            ) from None
        limits += [low, high]
    if not (np.isfinite(limits).all() and -90 <= limits[2] <= limits[3] <= 90):
        raise UsageError(
            f"box: dec {dec}: expected the lowest and the highest declination, within -90..90 deg"
        )
    return Box(sky_box(*limits))
