"""A file's statements of the scale of its pixels: the cards of an image, and the statement made from one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from astropy.io import fits

from galbatch.core.types import AB_ZERO_POINT_NJY, njy_per_unit

__all__ = ["Cards", "Statement", "njy_of_zero_point", "number_of", "zero_point_of"]


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a file on the flux in one image unit.

    Attributes
    ----------
    njy : float
        Flux of one image unit, nJy.
    text : str
        The card and its value, as an error shows them.
    definite : bool
        False if it was derived (from a magnitude per second, or a Vega magnitude): a zero point of run.toml then goes
        before it, instead of being an error where the two differ.
    otherwise_njy : float or None
        Flux of one image unit if the card's magnitude were that of one second, or were not: headers seldom say it.
        Another statement that agrees with this reading contradicts nothing.
    """

    njy: float
    text: str
    definite: bool = True
    otherwise_njy: float | None = None


def njy_of_zero_point(magnitude: float) -> float:
    """Return the flux in nJy of one image unit with this AB zero point; infinite where a float cannot hold it."""
    try:
        return njy_per_unit(magnitude)
    except OverflowError:
        return math.inf


def zero_point_of(njy: float) -> float:
    """Return the AB zero point of an image unit of `njy` nJy; NaN where there is none."""
    if not 0 < njy < math.inf:
        return math.nan
    return AB_ZERO_POINT_NJY - 2.5 * math.log10(njy)


def number_of(value: Any) -> float | None:
    """Return a card's value if it is a finite number; None for text, booleans, NaN and what is not there."""
    # A boolean is an int in Python: T would pass for a zero point of 1.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


class Cards:
    """The cards of an image: of its own header, else of the primary one.

    Parameters
    ----------
    headers : sequence of astropy.io.fits.Header
        Headers in the order in which they are asked.
    """

    def __init__(self, headers: Sequence[fits.Header]) -> None:
        self._headers = headers

    def __contains__(self, key: str) -> bool:
        return any(key in header for header in self._headers)

    def get(self, key: str) -> Any:
        """Return the value of a card; None if no header has it."""
        return next((header[key] for header in self._headers if key in header), None)

    def comment(self, key: str) -> str:
        """Return the comment of a card; "" without one."""
        return next((str(header.comments[key]) for header in self._headers if key in header), "")

    def text(self, key: str) -> str:
        """Return the value of a card as text without blanks around it; "" if no header has it."""
        value = self.get(key)
        return "" if value is None else str(value).strip()

    def first_number(self, keys: Sequence[str]) -> float | None:
        """Return the first positive number among the cards `keys`; None if there is none."""
        numbers = (number_of(self.get(key)) for key in keys)
        return next((value for value in numbers if value is not None and value > 0), None)
