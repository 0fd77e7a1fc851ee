"""Units of pixels, as BUNIT and ``[survey.generic] unit`` give them: flux, or flux per solid angle."""

from __future__ import annotations

import functools
import itertools
import re
import warnings
from dataclasses import dataclass

from astropy import units

from galbatch.core.types import WeightKind, njy_per_unit
from galbatch.errors import TileError

__all__ = ["FluxUnit", "flux_unit", "flux_unit_of_weight", "is_per_second"]

# 1 maggy is the flux of AB magnitude 0. astropy has the unit too, but ties it to no flux.
NANOMAGGY = re.compile(
    r"(?P<factor>[0-9.]+(?:e[+-]?\d+)?)?[ *]*(?P<nano>n|nano)?(?:maggy|maggies|mgy)(?: ?/ ?pix(?:el)?)?", re.I
)
MAGGY_PER_AREA = re.compile(r"(?P<nano>n|nano)?(?:maggy|maggies|mgy)(?P<rest>[ */.].*)", re.I)
PER_SECOND = re.compile(r"(/ ?s(ec(ond)?s?)?|per s(ec(ond)?)?|[ .]s(ec)?(-1|\^-1|\*\*-1))\)?$|^cps$", re.I)

# Names of astropy's units whose capitals people write otherwise, by their lower case: MJY and mjy could be two of them.
PREFIXES = ("", "f", "p", "n", "u", "m", "k", "M", "G", "T", "P")
POWERS: dict[WeightKind, float] = {"variance": 2.0, "standard_deviation": 1.0, "inverse_variance": -2.0}
"""The power of the image's unit in which a weight is."""

SHORT = {"nano": "n", "micro": "u", "milli": "m"}
LONG_PREFIXES = ("", "nano", "micro", "milli", "kilo", "mega", "giga")
OTHER_NAMES = (
    "sr",
    "arcsec",
    "arcsec2",
    "arcmin",
    "deg",
    "pix",
    "pixel",
    "beam",
    "erg",
    "s",
    "cm",
    "cm2",
    "m2",
    "Hz",
    "W",
)


@dataclass(frozen=True, slots=True)
class FluxUnit:
    """A unit of flux in nJy, or of surface brightness in nJy per steradian."""

    njy: float
    per_steradian: bool = False


@functools.lru_cache(maxsize=256)
def flux_unit(text: str) -> FluxUnit | None:
    """Return what `text` says as a unit of flux density or of surface brightness; None if it is no such unit.

    Capitals count, as mJy and MJy differ by 1e9. Where `text` is no unit as it is written, other capitals are tried,
    and taken if just one unit comes out.

    Raises
    ------
    TileError
        It could be two units, or is a flux per beam, whose area is not known.
    """
    text = re.sub(
        r"\b(nano|micro|milli)jy\b", lambda found: f"{SHORT[found[1].lower()]}Jy", text.strip(), flags=re.I
    )
    named = NANOMAGGY.fullmatch(text)
    if named is not None:
        maggies = float(named["factor"] or 1) * (1.0 if named["nano"] else 1e9)
        return FluxUnit(maggies * njy_per_unit(22.5))
    over_area = MAGGY_PER_AREA.fullmatch(text)
    if over_area is not None:
        in_njy = flux_unit(f"nJy{over_area['rest']}")
        maggies = 1.0 if over_area["nano"] else 1e9
        return in_njy and FluxUnit(in_njy.njy * maggies * njy_per_unit(22.5), in_njy.per_steradian)
    exact = _parsed(text)
    readings = {text: exact} if exact is not None else _other_capitals(text)
    # Spellings that mean one unit, such as jansky and Jansky, are one reading.
    found = {reading: name for name, reading in reversed(readings.items())}
    if len(found) > 1:
        either = " or ".join(sorted(found.values()))
        raise TileError(f"the unit {text!r} could be {either}; write it with the capitals of one of them")
    return next(iter(found), None)


def flux_unit_of_weight(text: str) -> tuple[WeightKind, FluxUnit] | None:
    """Return what a weight of this unit is, and the unit of flux of which it is the square, the inverse square or the first power.

    None if astropy does not read the unit so, as it is written: a variance may be in ADU.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", units.UnitsWarning)
            # astropy does not read JWST's (MJy/sr)2 as it stands.
            whole = re.fullmatch(r"\((.+)\) ?(?:\*\*|\^)?(-?\d)", text.strip())
            unit = units.Unit(whole[1]) ** int(whole[2]) if whole else units.Unit(text.strip())
    except (ValueError, TypeError, ArithmeticError):
        return None
    for kind, power in POWERS.items():
        # mag and dex are logarithms.
        found = _flux_of(unit ** (1.0 / power)) if isinstance(unit, units.UnitBase) else None
        if found is not None:
            return kind, found
    return None


def is_per_second(text: str) -> bool:
    """Return whether a unit is one of counts or electrons per second, such as ELECTRONS/S, adu / s, DN s-1 or cps."""
    return PER_SECOND.search(text.strip()) is not None


def _parsed(text: str) -> FluxUnit | None:
    """Return the unit of flux that astropy reads in `text`, case-sensitively; None if it reads none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", units.UnitsWarning)  # more than one solidus: erg/s/cm2/Hz
            unit = units.Unit(text)
    except (ValueError, TypeError, ArithmeticError):
        return None
    if not isinstance(unit, units.UnitBase):
        return None  # mag and dex, which are logarithms
    if units.pix in unit.bases:
        unit = unit * units.pix  # a flux per pixel is what a pixel's number is anyway
    if units.beam in unit.bases and (unit * units.beam).is_equivalent(units.Jy):
        raise TileError(
            f"the unit {text!r} is a flux per beam, and the beam's area in pixels is not read; convert the image to Jy per pixel"
        )
    return _flux_of(unit)


def _flux_of(unit: units.UnitBase) -> FluxUnit | None:
    """Return a unit of astropy's as one of flux density or surface brightness; None if it is neither."""
    if unit.is_equivalent(units.nJy):
        return FluxUnit(_rounded(unit.to(units.nJy)))
    if unit.is_equivalent(units.nJy / units.sr):
        return FluxUnit(_rounded(unit.to(units.nJy / units.sr)), per_steradian=True)
    return None


def _rounded(factor: float) -> float:
    # astropy's factors are powers of ten to 1e-16: without this, 1 uJy would be 999.9999999999999 nJy.
    return float(f"{factor:.13g}")


def _other_capitals(text: str) -> dict[str, FluxUnit]:
    """Return readings of `text` with the capitals of astropy's units instead of its own."""
    spelled: dict[str, list[str]] = {}
    names = [f"{prefix}Jy" for prefix in PREFIXES] + [f"{prefix}Jansky" for prefix in LONG_PREFIXES]
    for name in (*names, *OTHER_NAMES):
        spelled.setdefault(name.lower(), []).append(name)
    known = {name for spellings in spelled.values() for name in spellings}
    parts = re.split(r"([A-Za-z]+2?)", text)
    # A part that is a unit keeps its capitals: mJy/SR is mJy/sr, while MJY/SR could be MJy/sr too.
    choices = [[part] if part in known else spelled.get(part.lower(), [part]) for part in parts]
    readings = {}
    for choice in itertools.product(*choices):
        reading = _parsed("".join(choice))
        if reading is not None:
            readings["".join(choice)] = reading
    return readings
