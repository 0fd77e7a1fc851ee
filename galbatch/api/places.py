"""Positions and radii as people type them: degrees, sexagesimal, or the id or name of an object of the catalog."""

from __future__ import annotations

import re
from collections.abc import Sequence

import astropy.units as u
from astropy.coordinates import Angle

from galbatch import catalog
from galbatch.core.columns import DEC, RA
from galbatch.errors import UsageError

__all__ = ["parse_position", "parse_radius", "split_radius"]

ANGLE = re.compile(r"""[+-]?\d[\d.:hdms°'"]*""")
"""Text that may be an angle: 150.1, -2.2, 10:00:24.2, 10h00m24.2s, -02d13m05s."""

NUMBER = re.compile(r"\d+\.?\d*([eE][+-]?\d+)?")

JOINED = re.compile(r"(\d+[:h][\d.:hms]*)([+-]\d.*)")
"""Right ascension in hours and declination without a space: 10h00m24.2s-02d13m05s. Without hours it may be an id."""

EXPECTED = (
    "expected right ascension and declination in degrees (150.1 -2.2), sexagesimal (10:00:24.2 -02:13:05 or 10h00m24.2s "
    "-02d13m05s or 10 00 24.2 -02 13 05), or the id or name of an object of the catalog"
)


def parse_position(catalog_path: str, words: Sequence[str]) -> tuple[float, float]:
    """Return right ascension and declination, ICRS, deg, of a position as it is typed.

    Parameters
    ----------
    catalog_path : str
        The catalog in which ids are looked up.
    words : sequence of str
        Two angles, six numbers (hours, minutes, seconds, degrees, minutes, seconds), an id, or a name in a kept column of
        text. One word may hold all of them. Right ascension is in hours if it is sexagesimal, otherwise in degrees.

    Raises
    ------
    UsageError
        The words are no position, or the catalog has no object with this id or name.
    """
    # Papers print a minus that is no hyphen, and units are copied with the number.
    text = " ".join(words).replace("\N{MINUS SIGN}", "-").replace("deg", "d").replace(",", " ")
    angles = JOINED.sub(r"\1 \2", text).split()
    if all(ANGLE.fullmatch(word) for word in angles) and len(angles) in (2, 6):
        half = len(angles) // 2
        ra, dec = ":".join(angles[:half]), ":".join(angles[half:])
        in_hours = ":" in ra or "h" in ra
        return _degrees(ra, u.hourangle if in_hours else u.deg), _degrees(dec, u.deg)
    # A name may be several words, and begins with a letter then: NGC 4993.
    name = " ".join(words)
    if not words or name.startswith("--") or (len(words) > 1 and not name[0].isalpha()):
        raise UsageError(f"position {name}: {EXPECTED}")
    try:
        found = catalog.read_objects(catalog_path, [name])
    except UsageError as error:
        raise UsageError(f"position {name}: {error}; {EXPECTED}") from None
    return found.column(RA.name)[0].as_py(), found.column(DEC.name)[0].as_py()


def split_radius(words: Sequence[str]) -> tuple[list[str], str]:
    """Return the words of a position and the radius behind it, which may be two words: ``1 arcmin``."""
    # A word of letters alone: astropy takes "1arcmin" for a unit, too.
    is_word = len(words) > 2 and words[-1].isalpha()
    has_unit = is_word and u.Unit(words[-1], parse_strict="silent").is_equivalent(u.deg)
    n_words = 2 if has_unit else 1
    return list(words[:-n_words]), " ".join(words[-n_words:])


def parse_radius(word: str) -> float:
    """Return a radius in arcsec, from a number of arcsec or an angle with its unit such as ``1arcmin`` or ``0.1deg``.

    Raises
    ------
    UsageError
        It is no angle, or negative.
    """
    try:
        # Angle knows no exponents.
        radius = float(word) if NUMBER.fullmatch(word) else float(Angle(word, u.arcsec).arcsec)
    except ValueError:
        radius = -1.0
    if not radius >= 0:
        raise UsageError(
            f"RADIUS_ARCSEC {word}: expected 0 or more arcsec, or an angle with its unit: 1arcmin"
        )
    return radius


def _degrees(text: str, unit: u.UnitBase) -> float:
    try:
        return float(Angle(text, unit).deg)
    except ValueError as error:
        raise UsageError(f"position {text}: {error}; {EXPECTED}") from None
