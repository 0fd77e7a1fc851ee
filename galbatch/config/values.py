"""Types of values that several sections of run.toml use: sizes in bytes, magnitudes, widths."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

__all__ = [
    "Bytes",
    "Label",
    "Line",
    "MagnitudeOffset",
    "Separation",
    "Width",
    "ZeroPoint",
    "one_or_several",
    "parse_bytes",
    "require_hdus",
]

# Decimal units are powers of 1000, binary ones (with i) powers of 1024, as IEC 80000-13 defines them.
BYTE_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


MOST_HDUS = 100_000


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
    try:
        n_bytes = float(match[1].replace("_", "")) * BYTE_UNITS[match[2].upper()]
    except ValueError:
        raise ValueError(f"{value!r} is no size; write for example 8 GiB or 500 MB") from None
    # Digits without end are infinite: the bound on sizes refuses them.
    return int(min(n_bytes, 2.0**63))


def one_or_several(*kinds: type) -> BeforeValidator:
    """Return a validator that wraps a single value of one of `kinds` in a tuple, so that ``bundle = "a.pt"`` needs no list."""
    return BeforeValidator(lambda value: (value,) if isinstance(value, kinds) else value)


def require_hdus(*values: int | str | None) -> None:
    """Raise ValueError if one of the numbers of HDUs is none; names are not looked at."""
    numbers = [value for value in values if isinstance(value, int)]
    if negative := [value for value in numbers if value < 0]:
        raise ValueError(f"HDUs are counted from 0, found {negative[0]}")
    # Their headers alone have 288 MB.
    if beyond := [value for value in numbers if value > MOST_HDUS]:
        raise ValueError(f"no file has more than {MOST_HDUS} HDUs, found {beyond[0]}")


# TOML has inf and nan as numbers: sections refuse them, and so must values of tables. No PSF, radius or pixel of a cutout is
# a degree wide, or a ten-thousandth of an arcsecond: a mirror of 39 m resolves 3e-3 arcsec.
# An exbibyte is more than all surveys together.
Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0, le=2**60)]
# Image units lie within 1e-6 to 1e15 nJy, which are the zero points 46.4 and -6.1: readers refuse others with the file.
ZeroPoint = Annotated[float, Field(ge=-10, le=50, allow_inf_nan=False)]
# That of W4 is the largest of a survey, 6.62 mag.
MagnitudeOffset = Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False)]
Width = Annotated[float, Field(ge=1e-4, le=3600, allow_inf_nan=False)]
Separation = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
# Names that are printed and written into outputs: one line, and no part of a path.
Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{0,500}$")]
Label = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f/\\]{1,64}$")]
