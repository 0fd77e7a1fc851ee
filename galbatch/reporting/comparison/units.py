"""Conversion of the values of another table to the units of the catalog."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
from astropy import units as u

from galbatch.core.types import AB_ZERO_POINT_NJY, ab_mag
from galbatch.errors import UsageError

__all__ = ["converted", "unit_of_name"]

Floats = npt.NDArray[np.float64]

NAME_UNITS = {
    "arcsec": "arcsec",
    "asec": "arcsec",
    "arcmin": "arcmin",
    "mas": "mas",
    "deg": "deg",
    "njy": "nJy",
    "ujy": "uJy",
    "jy": "Jy",
    "mag": "mag",
}
"""Units that the last word of a column's name states. "mjy" is not among them: it may be milli or mega."""


def unit_of_name(name: str) -> str:
    """Return the unit that a column's name ends with, as in ``re_arcsec``; "" if it ends with none."""
    return NAME_UNITS.get(re.split(r"[_ ]", name.lower())[-1], "")


def converted(values: Floats, unit: str, wanted: str, *, where: str) -> Floats:
    """Return values in the unit that the catalog has. Fluxes and AB magnitudes become each other where the catalog has the other.

    Parameters
    ----------
    values : (row,) float64
    unit, wanted : str
        Units of the values and of the catalog's column, "" for none. A factor may be part of a unit: ``57.544 nJy``.
    where : str
        File and column of the values, for the error message.

    Returns
    -------
    (row,) float64
        NaN where a value is NaN, or where a flux that is not positive has no magnitude.

    Raises
    ------
    UsageError
        The unit is none, or cannot be converted to `wanted`.
    """
    try:
        have, want = u.Unit(unit), u.Unit(wanted)
    except ValueError as error:
        raise UsageError(f"{where}: {error}; state its unit by --column QUANTITY=COLUMN:UNIT") from None
    if _is_magnitude(have) and _is_magnitude(want):
        return values
    if _is_magnitude(want) and have.is_equivalent(u.nJy):
        return ab_mag(values * have.to(u.nJy))
    if _is_magnitude(have) and want.is_equivalent(u.nJy):
        return np.asarray(10 ** (0.4 * (AB_ZERO_POINT_NJY - values)) * u.nJy.to(want))
    if have.is_equivalent(want):
        return np.asarray(values * have.to(want))
    raise UsageError(
        f"{where}: is in {unit or 'no unit'}, which does not become {wanted or 'a number without unit'}; "
        "name another column, or state its unit by --column QUANTITY=COLUMN:UNIT"
    )


def _is_magnitude(unit: u.UnitBase) -> bool:
    # `mag(AB)` is a function unit, whose physical unit is a flux density; plain `mag` is taken as AB, as all of galbatch's are.
    return bool(unit in (u.mag, u.ABmag))
