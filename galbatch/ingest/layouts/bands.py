"""The bands of a survey as people and files write them: by value, in any case, with or without the camera's name.

A file says its band by a card or by its name, and run.toml lists bands in one spelling of many: ``H``, ``h``, ``HSC-I``, ``i``, 1 for
WISE's ``W1``. `matching_band` is the only place that decides whether two spellings are one band. An exact match goes before others, so
that a survey may have ``z`` and ``Z``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from galbatch.errors import TileError
from galbatch.ingest.pixels import open_fits, stem_of
from galbatch.storage import FileAccessLog

__all__ = ["band_in_name", "band_statements", "matching_band", "plain_band", "said_of_bands"]

BAND_CARDS = ("BAND", "FILTER", "FILTER1", "FILTER2", "FILTNAM1", "FPA.FILTERID", "FPA.FILTER")
"""Cards that may name the band, in the order in which they are asked: ACS has two wheels, WFPC2 FILTNAM1, Pan-STARRS FPA.FILTERID."""

# An exposure of the LSST pipelines has hundreds of HDUs, all of one band.
MAX_HDUS_SHOWN = 20

# Wheels without a filter, and cards of coadds that several filters went into.
NO_BAND = re.compile(r"^(clear.*|none|n/a|_unknown_|unknown|open|empty|blank)?$", re.IGNORECASE)

# Words beside a band that say which camera or survey it is of: HSC-G, NIR_H, OCAM_r_SDSS, VISTA Ks.
CAMERAS = frozenset(
    [
        "hsc",
        "des",
        "decam",
        "sdss",
        "ps1",
        "panstarrs",
        "lsst",
        "comcam",
        "cfht",
        "megacam",
        "omegacam",
        "ocam",
        "vista",
        "vircam",
        "ukidss",
        "ukirt",
        "wfcam",
        "nir",
        "2mass",
        "wise",
        "unwise",
    ]
)
# The number of a glass, and of the pipelines' own filters: i_03, z.00000, r.MP9602.
NUMBER = re.compile(r"^(mp)?\d+$")
# Bands under another name: HSC's replaced glasses, 90prime's and Mosaic-3's filters, and K for the short one.
OTHER_NAMES = {"r2": "r", "i2": "i", "bokr": "r", "zd": "z", "ks": "k"}

# Cutout tools write the band before the suffix, HSC's service anywhere. Other single letters in a name are none.
NAME_FILTERS = (
    re.compile(r"[-_](HSC-[A-Z]\d?|NB\d+)[-_.]"),
    re.compile(r"[-_]([ugrizyjhk]|ks|w[1-4])$", re.IGNORECASE),
)


def plain_band(text: object) -> str:
    """Return the short name of a band, in lower case, by which spellings are compared.

    ``HSC-R2`` and ``r_03`` are r, ``NB0387`` is nb0387, ``z.00000`` is z, ``NIR_H`` is h, ``Ks`` is k.
    """
    short = str(text).strip().lower()
    words = [word for word in re.split(r"[-_ ./]+", short) if word]
    telling = [word for word in words if word not in CAMERAS and not NUMBER.match(word)]
    if len(telling) == 1 and len(words) > 1:
        short = telling[0]
    # SDSS writes g', J-PLUS gSDSS.
    short = re.sub(r"^([ugriz])('|sdss)$", r"\1", short)
    return OTHER_NAMES.get(short, short)


def matching_band(text: object, bands: Sequence[str]) -> str | None:
    """Return the one of `bands` that a card or a name means; None if it means none of them, or two alike.

    The whole text is compared first, then its first word (DECam's FILTER holds five, the band first), then its last
    (``VISTA Ks``).
    """
    whole = str(text).strip()
    words = whole.split()
    for candidate in dict.fromkeys([whole, *words[:1], *words[-1:]]):
        if candidate in bands:
            return candidate
        alike = [band for band in bands if plain_band(band) == plain_band(candidate)]
        # WISE's BAND is the bare number.
        alike = alike or [band for band in bands if plain_band(band) == f"w{plain_band(candidate)}"]
        if len(alike) == 1:
            return alike[0]
    return None


def band_in_name(path: str, bands: Sequence[str]) -> str | None:
    """Return the band that a file's name says, as it is written there; None if it says none.

    Parameters
    ----------
    bands : the survey's own: names of others than the usual filters count only if they are one of these
    """
    stem = stem_of(path)
    for pattern in NAME_FILTERS:
        match = pattern.search(f"{stem}." if pattern is NAME_FILTERS[0] else stem)
        if match is not None:
            return match[1]
    last = re.split(r"[-_.]", stem)[-1]
    return last if last != stem and matching_band(last, bands) is not None else None


def band_statements(cards: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what cards say of the band: (card, text) of those that are there and name a filter, in the order that counts."""
    # NIRCam's narrow filters are in the pupil wheel, before a wide one that FILTER names.
    pupil = str(cards.get("PUPIL", "")).strip()
    if re.fullmatch(r"F\d{3}[NMW]", pupil):
        yield "PUPIL", pupil
    for key in BAND_CARDS:
        value = cards.get(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        text = str(value).strip()
        if value is not None and not isinstance(value, bool) and not NO_BAND.match(text):
            yield key, text


def said_of_bands(path: str, bands: Sequence[str], files: FileAccessLog) -> str:
    """Return the words of an error on what a file says of its bands, by cards of all HDUs and by its name."""
    said: dict[str, None] = {}
    try:
        with open_fits(path, files) as hdus:
            for hdu in hdus[:MAX_HDUS_SHOWN]:
                said |= dict.fromkeys(f"{key} = {text}" for key, text in band_statements(hdu.header))
    except (TileError, FileNotFoundError):
        return f"{path} cannot be read"
    named = band_in_name(path, bands)
    shown = [*said, *([f"{named} by its name"] if named else [])]
    return f"{path} says {', '.join(shown) or 'nothing of its band'}"
