"""Columns of the object list by which a survey says that a row is not an object of its own, and how the default cut knows them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

__all__ = ["EXCLUDE_KEY", "PRIMARY", "excluded_values"]

EXCLUDE_KEY = b"exclude"
"""Entry of a kept column's field metadata: a row with this value (``true`` and ``false`` for flags) is left out by the default cut."""

PRIMARY = r"(.*_)?is_?primary|brick_primary"
"""Pattern, in lower case, of the columns that are true for one of several rows of an object: HSC's ``isprimary``, LSST's
``detect_isPrimary``, Legacy Surveys' ``brick_primary``."""

DUPLICATE = r"(.*_)?is_?duplicate(d)?"

LEGACY_TYPE, LEGACY_DUPLICATE = "type", "DUP"
"""The Tractor's type of a source that stands for another one (a Gaia star on a galaxy); told by the bricks' columns beside it."""

LEGACY_BRICK = ("brickid", "brickname")


def excluded_values(names: Sequence[str]) -> Mapping[str, str]:
    """Return the columns among a list's names by which rows are left out, each with the value of these rows."""
    found = {}
    lower = {name.lower() for name in names}
    for name in names:
        if re.fullmatch(PRIMARY, name.lower()):
            found[name] = "false"
        elif re.fullmatch(DUPLICATE, name.lower()):
            found[name] = "true"
        elif name.lower() == LEGACY_TYPE and lower.intersection(LEGACY_BRICK):
            found[name] = LEGACY_DUPLICATE
    return found
