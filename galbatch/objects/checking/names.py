"""The meaning of a list's columns, guessed from the names that surveys use."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from galbatch.errors import ObjectListError

__all__ = ["guess_columns", "magnitude_columns", "plain_name"]

# Names that surveys use, in lower case and without underscores; the first that a list has is taken. Names of
# one survey precede the general ones: HSC and Rubin lists have both objectId and id.
ID_NAMES = ("objectid", "id", "sourceid", "objid", "coaddobjectid", "lsid", "releaseid", "number", "name")
POSITION_NAMES = (
    ("radeg", "decdeg"),
    ("ra", "dec"),
    ("coordra", "coorddec"),
    ("raj2000", "dej2000"),
    ("raj2000", "decj2000"),
    ("alphaj2000", "deltaj2000"),
    ("raicrs", "deicrs"),
    ("ra2000", "dec2000"),
    ("rightascension", "declination"),
    ("ramean", "decmean"),
    *((f"{band}ra", f"{band}dec") for band in "irgzyu"),
)


def plain_name(name: str) -> str:
    """Return a column's name in lower case and without underscores."""
    return name.lower().replace("_", "")


def guess_columns(path: str, names: Sequence[str], keys: Collection[str]) -> dict[str, str]:
    """Return the names of the columns that are id, ra and dec, as far as they are among `keys`, by the names that surveys use.

    Raises
    ------
    ObjectListError
        No column looks like one of them.
    """
    # In reverse, so that the first of several columns with one plain name stays.
    by_plain = {plain_name(name): name for name in reversed(names)}
    ids = [by_plain[name] for name in ID_NAMES if name in by_plain]
    pairs = [
        (by_plain[ra], by_plain[dec]) for ra, dec in POSITION_NAMES if ra in by_plain and dec in by_plain
    ]
    found = {"id": ids[:1], "ra": [pair[0] for pair in pairs[:1]], "dec": [pair[1] for pair in pairs[:1]]}
    if not names:
        raise ObjectListError(f"{path}: is empty; a line of column names and rows below it are needed")
    for key in keys:
        if not found[key]:
            raise ObjectListError(
                f"{path}: no column looks like the {key}; name it with --{key}; there are {', '.join(names)}"
            )
    return {key: found[key][0] for key in keys}


def magnitude_columns(names: Sequence[str]) -> list[str]:
    """Return the names of columns that hold magnitudes, without their errors and flags."""
    pattern = r"(.*_)?[a-z]?_?(mag|cmodel_mag|cmodelmag|psfmag|mag_auto|mag_psf|kron_mag)(_[a-z])?(_psf|_cmodel|_kron|_auto)?"
    return [name for name in names if re.fullmatch(pattern, name.lower())]
