"""Types of values that several sections of run.toml hold."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

__all__ = ["Bytes", "Magnitude", "Width", "one_or_several", "parse_bytes"]

BYTE_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_bytes(value: Any) -> int:
    """Return a number of bytes, given as an integer or as text such as ``"8 GiB"``.

    Raises
    ------
    ValueError
        The text is no number with a unit of `BYTE_UNITS`.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"\s*([0-9][0-9_.]*)\s*([A-Za-z]*)\s*", str(value))
    if match is None or match[2].upper() not in BYTE_UNITS:
        raise ValueError(f"{value!r} is no size; write for example 8 GiB or 500 MB")
    return int(float(match[1].replace("_", "")) * BYTE_UNITS[match[2].upper()])


def one_or_several(*kinds: type) -> BeforeValidator:
    """Return a validator that makes a tuple of a single value of one of `kinds`: ``bundle = "a.pt"`` needs no list."""
    return BeforeValidator(lambda value: (value,) if isinstance(value, kinds) else value)


# Infinity and NaN are numbers in TOML, but no zero point and no width.
Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]
Magnitude = Annotated[float, Field(allow_inf_nan=False)]
Width = Annotated[float, Field(gt=0, allow_inf_nan=False)]
