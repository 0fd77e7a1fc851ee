"""Zero points in a header's cards: per second or not, AB or Vega, and HST's inverse sensitivity.

Each card becomes a `Statement`; a card whose value is no zero point becomes the words that an error says of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from galbatch.ingest.headers.statements import Cards, Statement, njy_of_zero_point, number_of
from galbatch.ingest.headers.units import is_per_second

__all__ = [
    "ZERO_POINT_CARDS",
    "fluxmag0_statement",
    "no_zero_point",
    "photflam_statement",
    "photfnu_statement",
    "zero_point_statements",
]

ZERO_POINT_CARDS = ("MAGZERO", "MAGZPT", "PHOTZP", "MAGZP", "ZP", "FPA.ZP")
"""Cards that hold the zero point of one image unit; FPA.ZP is Pan-STARRS'."""

EXPOSURE_CARDS = ("EXPTIME", "EXP_TIME", "TEXPTIME", "EXPOSURE", "XPOSURE")
AIRMASS_CARDS = (("AMSTART", "AMEND"), ("ESO TEL AIRM START", "ESO TEL AIRM END"))
SYSTEM_CARDS = ("MAGSYS", "PHOTSYS", "MAGTYPE", "ZPSYS", "PHOTMSYS")
ORIGIN_CARDS = ("TELESCOP", "DATASET", "ORIGIN", "SURVEY", "INSTRUME")

# Magnitudes that are no zero point but say that there is none. 0 is what calibration pipelines write before they ran.
SENTINELS = frozenset({0.0, -1.0, 1.0, 99.0, -99.0, 99.99, -99.99, 999.0, -999.0, 9999.0, -9999.0})

# DES writes "Mag Zero-point in magnitudes/s" of coadds whose zero point is that of the image: it is not matched.
PER_SECOND = re.compile(
    r"\b(per|for (1|one))[ -]*(s|sec|second)\b|\b1[ -]?s(ec)?\b|\b(count|counts|adu|dn|e-?|electrons?|ct) ?/ ?s(ec)?\b",
    re.I,
)
NOT_AB = ("VEGA", "JOHNSON", "BESSEL", "LANDOLT", "2MASS", "STMAG", "GUNN", "THUAN")

# AB minus Vega magnitude by filter. 2MASS: kcorrect's twomass_to_maggies (2005-04-18), by the method of Blanton & Roweis 2007
# (AJ 133, 734); WISE: Explanatory Supplement to the All-Sky release, section IV.4.h.i.3, and Jarrett et al. 2011 (ApJ 735,
# 112); UKIRT: Hewett et al. 2006 (MNRAS 367, 454), table 7; VISTA: CASU's page on VISTA's filter set, calibration v1.3,
# which is described in Gonzalez-Fernandez et al. 2018 (MNRAS 474, 5459).
TWO_MASS_OFFSETS = {"J": 0.91, "H": 1.39, "K": 1.85, "KS": 1.85}
WISE_OFFSETS = {"1": 2.699, "2": 3.339, "3": 5.174, "4": 6.620}
UKIRT_OFFSETS = {"Z": 0.528, "Y": 0.634, "J": 0.938, "H": 1.379, "K": 1.900}
VISTA_OFFSETS = {"Z": 0.502, "Y": 0.600, "J": 0.916, "H": 1.366, "KS": 1.827, "K": 1.827}


def zero_point_statements(
    cards: Cards, keys: Sequence[str], band: str, *, vega_to_ab_mag: float | None
) -> Iterator[Statement | str]:
    """Yield what the zero-point cards say, in the order of `keys`: a statement, or why it is none.

    Parameters
    ----------
    band : str
        The band, where the file has no card BAND or FILTER.
    vega_to_ab_mag : float or None
        AB minus Vega magnitude by run.toml; None: the documented one, if the cards say which survey it is.
    """
    for key in keys:
        if key not in cards:
            continue
        magnitude = number_of(cards.get(key))
        if no_zero_point(magnitude):
            yield f"{key} = {cards.get(key)!r} is no zero point"
        else:
            assert magnitude is not None
            yield _statement(cards, key, magnitude, band=band, vega_to_ab_mag=vega_to_ab_mag)


def no_zero_point(magnitude: float | None) -> bool:
    """Return whether a card's number is none of a zero point: missing, or a value that stands for "unknown"."""
    return magnitude is None or magnitude in SENTINELS or abs(magnitude) > 90


def _statement(
    cards: Cards, key: str, magnitude: float, *, band: str, vega_to_ab_mag: float | None
) -> Statement | str:
    """Return one card's zero point, with exposure time, extinction and magnitude system accounted for."""
    text, zero_point = f"{key} = {magnitude:g}", magnitude
    # CASU's pipeline (WSA, VSA) writes an EXTINCT card, and zero points of one second at unit airmass.
    is_casu = key == "MAGZPT" and "EXTINCT" in cards
    # afw writes MAGZERO_RMS beside the MAGZERO of a single exposure, from which it took 2.5 log10(exposure time).
    is_afw = key == "MAGZERO" and "MAGZERO_RMS" in cards
    per_second = is_casu or is_afw or key == "FPA.ZP" or PER_SECOND.search(cards.comment(key)) is not None
    per_second = per_second and not is_per_second(cards.text("BUNIT"))
    exposure_s = cards.first_number(EXPOSURE_CARDS)
    factor = exposure_s  # of the other reading's nJy
    if per_second:
        if exposure_s is None:
            return (
                f"{text} is that of one second, and no card {', '.join(EXPOSURE_CARDS)} has the exposure time"
            )
        zero_point += 2.5 * math.log10(exposure_s)
        text += f" (of one second, exposure {exposure_s:g} s)"
    elif exposure_s is not None:
        factor = 1.0 / exposure_s
    if is_casu:
        zero_point -= _extinction_mag(cards)
    is_vega, documented = _vega(cards, key, band, is_casu=is_casu)
    offset = documented if vega_to_ab_mag is None else vega_to_ab_mag
    if is_vega and offset is None:
        return (
            f"{text} is in another magnitude system than AB: state [survey] vega_to_ab_mag = {{{band} = ..}}"
        )
    derived = per_second or is_vega or vega_to_ab_mag is not None
    if offset is not None:
        text += f" (Vega, AB is {offset:g} more)"
        zero_point += offset
    njy = njy_of_zero_point(zero_point)
    return Statement(njy, text, definite=not derived, otherwise_njy=None if factor is None else njy * factor)


def _extinction_mag(cards: Cards) -> float:
    """Return the magnitudes by which an exposure's zero point lies below that at unit airmass, by CASU's EXTINCT."""
    pairs = [[number_of(cards.get(key)) for key in keys] for keys in AIRMASS_CARDS]
    known = next((values for pair in pairs if (values := [value for value in pair if value])), None)
    airmass = sum(known) / len(known) if known else cards.first_number(("AIRMASS",)) or 1.0
    return (number_of(cards.get("EXTINCT")) or 0.0) * (airmass - 1.0)


def _vega(cards: Cards, key: str, band: str, *, is_casu: bool) -> tuple[bool, float | None]:
    """Return whether a card's zero point is in another system than AB, and its documented offset, None if there is none."""
    origin = " ".join(cards.text(card) for card in ORIGIN_CARDS).upper()
    # "K", "Ks", "VISTA Ks": the filter is the last word. WISE's is a number.
    words = (cards.text("BAND") or cards.text("FILTER") or band).upper().split() or [""]
    table: Mapping[str, float] | None = None
    if "2MASS" in origin:
        table = TWO_MASS_OFFSETS
    elif "WISE" in origin or "WISE" in cards.comment("BAND").upper():
        words, table = [words[-1].removeprefix("W")], WISE_OFFSETS
    elif is_casu and "UKIRT" in origin:
        table = UKIRT_OFFSETS
    elif is_casu and "VISTA" in origin:
        table = VISTA_OFFSETS
    system = " ".join(cards.text(card) for card in SYSTEM_CARDS).upper()
    comment = cards.comment(key).upper()
    says_vega = any(name in system for name in NOT_AB) or system == "ST" or "VEGA" in comment
    # A card that says AB goes before the survey's usual system.
    if not says_vega and (re.search(r"\bAB\b", comment) or re.search(r"\bAB(MAG)?\b", system)):
        return False, None
    return says_vega or is_casu or table is not None, (table or {}).get(words[-1])


def fluxmag0_statement(cards: Cards) -> Statement | str | None:
    """Return what FLUXMAG0 says, the flux in image units of AB magnitude 0; why it says nothing; None without the card."""
    if "FLUXMAG0" not in cards:
        return None
    flux = number_of(cards.get("FLUXMAG0"))
    if flux is None or flux <= 0:
        return f"FLUXMAG0 = {cards.get('FLUXMAG0')!r} is no flux of magnitude 0"
    return Statement(njy_of_zero_point(2.5 * math.log10(flux)), f"FLUXMAG0 = {flux:.6g}")


def photflam_statement(cards: Cards) -> Statement | str | None:
    """Return what HST's PHOTFLAM and PHOTPLAM say; why they say nothing; None without PHOTFLAM.

    PHOTFLAM is the flux in erg / (s cm2 Angstrom) that gives one electron (or count) per second, PHOTPLAM the pivot
    wavelength in Angstrom: AB zero point -2.5 log10 PHOTFLAM - 5 log10 PHOTPLAM - 2.408 (ACS and WFC3 Data Handbooks).
    """
    if "PHOTFLAM" not in cards:
        return None
    sensitivity, wavelength = (cards.first_number((key,)) for key in ("PHOTFLAM", "PHOTPLAM"))
    shown = f"PHOTFLAM = {cards.get('PHOTFLAM')!r}, PHOTPLAM = {cards.get('PHOTPLAM')!r}"
    if sensitivity is None or wavelength is None:
        return f"{shown} are no sensitivity and wavelength"
    zero_point = -2.5 * math.log10(sensitivity) - 5.0 * math.log10(wavelength) - 2.408
    seconds = _seconds(cards, shown)
    if isinstance(seconds, str):
        return seconds
    zero_point += 2.5 * math.log10(seconds)
    text = f"PHOTFLAM = {sensitivity:g} at PHOTPLAM = {wavelength:g}"
    return Statement(njy_of_zero_point(zero_point), text, definite=False)


def photfnu_statement(cards: Cards) -> Statement | str | None:
    """Return what HST's PHOTFNU says; why it says nothing; None without it, or beside PHOTFLAM and PHOTPLAM.

    PHOTFNU is the flux in Jy that gives one count (or electron) per second (NICMOS Data Handbook, section 5.3.2; WFC3: Jy
    s / electron). Where PHOTFLAM is there, the one was made from the other.
    """
    if "PHOTFNU" not in cards or None not in [cards.first_number((key,)) for key in ("PHOTFLAM", "PHOTPLAM")]:
        return None
    sensitivity, shown = cards.first_number(("PHOTFNU",)), f"PHOTFNU = {cards.get('PHOTFNU')!r}"
    if sensitivity is None:
        return f"{shown} is no sensitivity"
    seconds = _seconds(cards, shown)
    if isinstance(seconds, str):
        return seconds
    return Statement(sensitivity * 1e9 / seconds, f"PHOTFNU = {sensitivity:g} Jy", definite=False)


def _seconds(cards: Cards, shown: str) -> float | str:
    """Return the exposure time of an image in counts, 1 s if they are per second; why that is not known, beside the cards shown."""
    unit = cards.text("BUNIT")
    if is_per_second(unit):
        return 1.0
    if not re.fullmatch(r"(electrons?|counts?|e-?|ct|cts|adu|dn)", unit, re.I):
        return f"{shown} are for electrons or counts (per second), and BUNIT is {unit or 'missing'!r}"
    exposure_s = cards.first_number(EXPOSURE_CARDS)
    if exposure_s is None:
        return f"{shown} are per second, and no card {', '.join(EXPOSURE_CARDS)} has the exposure time"
    return exposure_s
