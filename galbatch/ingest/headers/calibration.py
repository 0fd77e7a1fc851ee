"""The flux that one image unit stands for, in nJy: by the file, by run.toml, or refused. Every layout asks here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from galbatch.core.types import AB_ZERO_POINT_NJY, njy_per_unit
from galbatch.errors import TileError

__all__ = [
    "NJY_OF_UNIT",
    "ZERO_POINT_CARDS",
    "calibrated_njy",
    "njy_of_fluxmag0",
    "njy_of_unit",
    "njy_of_zero_point_cards",
    "stated_njy",
]

# Units of flux in one pixel; surface brightness (per square arcsec) is not accepted.
NJY_OF_UNIT = {
    "njy": 1.0,
    "ujy": 1e3,
    "mjy": 1e6,
    "jy": 1e9,
    "nanomaggy": njy_per_unit(22.5),
    "nanomaggies": njy_per_unit(22.5),
    "nmgy": njy_per_unit(22.5),
}

ZERO_POINT_CARDS = ("MAGZERO", "MAGZPT", "PHOTZP")
"""Cards that hold the AB zero point of one image unit."""

# Files and run.toml may round the zero point to 4 digits.
SAME_ZERO_POINT_MAG = 1e-3


def njy_of_unit(unit: Any) -> float | None:
    """Return one pixel unit in nJy, if it is a unit of flux such as nJy or nanomaggy; else None."""
    return NJY_OF_UNIT.get(str(unit).strip().lower())


def njy_of_fluxmag0(cards: Mapping[str, Any]) -> float | None:
    """Return one image unit in nJy by FLUXMAG0, the flux in image units of AB magnitude 0; None if it is not stated."""
    found = cards.get("FLUXMAG0")
    if not isinstance(found, int | float) or not found > 0 or not math.isfinite(found):
        return None
    return njy_per_unit(2.5 * math.log10(float(found)))


def njy_of_zero_point_cards(cards: Mapping[str, Any]) -> float | None:
    """Return one image unit in nJy by a card with the zero point, or by Pan-STARRS' pair of cards; None without any."""
    for key in ZERO_POINT_CARDS:
        if isinstance(cards.get(key), int | float):
            return njy_per_unit(float(cards[key]))
    if "FPA.ZP" in cards and float(cards.get("EXPTIME", 0.0)) > 0:
        # Pan-STARRS stacks: the zero point is that of one second.
        return njy_per_unit(float(cards["FPA.ZP"]) + 2.5 * math.log10(float(cards["EXPTIME"])))
    return None


def stated_njy(zero_point_mag: float | Mapping[str, float] | None, band: str) -> float | None:
    """Return one image unit in nJy by ``[survey] zero_point_mag``; None if it says nothing of the band."""
    magnitude = zero_point_mag.get(band) if isinstance(zero_point_mag, Mapping) else zero_point_mag
    return None if magnitude is None else njy_per_unit(magnitude)


def calibrated_njy(
    found: float | None,
    zero_point_mag: float | Mapping[str, float] | None,
    band: str,
    *,
    where: str,
    missing: str,
) -> float:
    """Return one image unit in nJy: what the file says, or else run.toml.

    Parameters
    ----------
    found : float or None
        One image unit in nJy by the file; None if it does not say.
    zero_point_mag : float, mapping by band, or None
        The value of ``[survey] zero_point_mag``.
    where, missing : str
        For the message: the tile, and what was looked for in the file.

    Raises
    ------
    TileError
        Neither says it, or they contradict one another.
    """
    stated = stated_njy(zero_point_mag, band)
    if found is None:
        if stated is None:
            raise TileError(
                f"{where}: the zero point is unknown: {missing}, or state it: [survey] zero_point_mag = {{{band} = ..}}"
            )
        return stated
    if stated is not None and abs(2.5 * math.log10(found / stated)) > SAME_ZERO_POINT_MAG:
        theirs, ours = (AB_ZERO_POINT_NJY - 2.5 * math.log10(value) for value in (found, stated))
        raise TileError(
            f"{where}: the file says zero point {theirs:.4f}, [survey] zero_point_mag {ours:.4f}; "
            "take zero_point_mag out, or correct it"
        )
    return found
