"""Types of values that several sections of run.toml use: sizes in bytes, magnitudes, widths."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

__all__ = ["Bytes", "Label", "Magnitude", "Separation", "Width", "one_or_several", "parse_bytes"]

# Decimal units are powers of 1000, binary ones (with i) powers of 1024, as IEC 80000-13 defines them.
BYTE_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_bytes(value: Any) -> int:
    """Return the number of bytes that an integer or text such as ``"8 GiB"`` stands for.

    Parameters
    ----------
    value : int or str
        An integer, or a number with a unit of `BYTE_UNITS`; upper and lower case are the same.

    Raises
    ------
    ValueError
        The text is not a number with such a unit.
    """
    # bool is a subclass of int: `true` would pass for one byte.
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"\s*([0-9][0-9_.]*)\s*([A-Za-z]*)\s*", str(value))
    if match is None or match[2].upper() not in BYTE_UNITS:
        raise ValueError(f"{value!r} is no size; write for example 8 GiB or 500 MB")
    return int(float(match[1].replace("_", "")) * BYTE_UNITS[match[2].upper()])


def one_or_several(*kinds: type) -> BeforeValidator:
    """Return a validator that wraps a single value of one of `kinds` in a tuple, so that ``bundle = "a.pt"`` needs no list."""
    return BeforeValidator(lambda value: (value,) if isinstance(value, kinds) else value)


# TOML has inf and nan as numbers: sections refuse them, and so must values of tables. No PSF, radius or pixel of a cutout is a degree wide.
Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]
Magnitude = Annotated[float, Field(allow_inf_nan=False)]
Width = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
Separation = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
# Names that are printed and written into outputs: one line, and no part of a path.
Label = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f/\\]{1,64}$")]
