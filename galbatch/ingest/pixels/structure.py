"""The structure of a FITS file: the cards by which a reader finds an HDU's data and the next HDU.

astropy believes them: a wrong one ends in an exception of its own, or in a loop over 10^11 axes.
"""

from __future__ import annotations

import contextlib
import errno
import math
import re
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from galbatch.errors import GalbatchError, TileError

__all__ = ["require_structure", "told_damage"]

BLOCK_BYTES = 2880
CARD_BYTES = 80
MAX_HEADER_BLOCKS = 4096
"""Headers of 147,000 cards: the longest of surveys, with the history of a thousand exposures, have some 20,000."""

MAX_HDUS = 8
"""HDUs that are looked at: image, mask, weight and what belongs to them stand first; hundreds of an archive may follow."""

BITS = (8, 16, 32, 64, -32, -64)
MOST = 999
"""The most axes or columns of an HDU (FITS standard 4.0, sections 4.4.1 and 7.2.1)."""

LIBRARIES = ("/astropy/", "/h5py/", "h5py/_hl", "h5py/h5", "/gzip.py", "/bz2.py", "/numpy/")
DAMAGE = (ValueError, TypeError, EOFError, LookupError, AttributeError, AssertionError, ArithmeticError, RuntimeError, MemoryError)


def require_structure(file: BinaryIO, path: str) -> None:
    """Raise unless the first HDUs of a file say where their data are and end; the file's position is kept.

    A file that is cut off, or is no FITS, is left to those who read it.

    Raises
    ------
    TileError
        A card that says the size of the data is missing or has a value that none can have.
    """
    start = file.tell()
    try:
        for number in range(MAX_HDUS):
            cards = _cards(file)
            if cards is None:
                return
            n_bytes = _data_bytes(cards, f"{path}: HDU {number}")
            file.seek(math.ceil(n_bytes / BLOCK_BYTES) * BLOCK_BYTES, 1)
    finally:
        file.seek(start)


def _cards(file: BinaryIO) -> dict[str, str] | None:
    """Read a header, and return the text of its values by keyword; None if there is none, or it has no end."""
    cards: dict[str, str] = {}
    for _ in range(MAX_HEADER_BLOCKS):
        block = file.read(BLOCK_BYTES)
        if len(block) < BLOCK_BYTES or (not cards and not block.startswith((b"SIMPLE", b"XTENSION"))):
            return None
        for at in range(0, BLOCK_BYTES, CARD_BYTES):
            card = block[at : at + CARD_BYTES].decode("latin-1")
            if card.rstrip() == "END":
                return cards
            if card[8:10] == "= ":
                cards.setdefault(card[:8].rstrip(), card[10:].partition("/")[0].strip())
    return None


def _data_bytes(cards: Mapping[str, str], where: str) -> int:
    """Return the size of an HDU's data; raise TileError where a card that says it is wrong."""
    bits = _integer(cards, "BITPIX", where, expected=f"one of {', '.join(map(str, BITS))}")
    if bits not in BITS:
        raise _wrong(where, "BITPIX", cards["BITPIX"], f"one of {', '.join(map(str, BITS))}")
    axes = _axes(cards, "NAXIS", where)
    if "TFIELDS" in cards or cards.get("XTENSION", "").startswith(("'BINTABLE", "'TABLE")):
        n_columns = _integer(cards, "TFIELDS", where, expected=f"0 to {MOST}")
        if not 0 <= n_columns <= MOST:
            raise _wrong(where, "TFIELDS", cards["TFIELDS"], f"0 to {MOST}")
    if cards.get("ZIMAGE") == "T":
        _axes(cards, "ZNAXIS", where)
        z_bits = _integer(cards, "ZBITPIX", where, expected=f"one of {', '.join(map(str, BITS))}")
        if z_bits not in BITS:
            raise _wrong(where, "ZBITPIX", cards["ZBITPIX"], f"one of {', '.join(map(str, BITS))}")
    more = _integer(cards, "PCOUNT", where, default=0)
    groups = _integer(cards, "GCOUNT", where, default=1)
    if more < 0 or groups < 0:
        raise _wrong(where, "PCOUNT and GCOUNT", f"{more} and {groups}", "0 or more")
    return abs(bits) // 8 * groups * (more + math.prod(axes)) if axes else 0


def _axes(cards: Mapping[str, str], key: str, where: str) -> list[int]:
    """Return the lengths of the axes that NAXIS or ZNAXIS counts."""
    n_axes = _integer(cards, key, where, expected=f"0 to {MOST}")
    if not 0 <= n_axes <= MOST:
        raise _wrong(where, key, cards[key], f"0 to {MOST}")
    lengths = [_integer(cards, f"{key}{axis}", where) for axis in range(1, n_axes + 1)]
    for axis, length in enumerate(lengths, start=1):
        if length < 0:
            raise _wrong(where, f"{key}{axis}", str(length), "0 or more")
    return lengths


def _integer(
    cards: Mapping[str, str],
    key: str,
    where: str,
    *,
    expected: str = "an integer",
    default: int | None = None,
) -> int:
    text = cards.get(key)
    if text is None and default is not None:
        return default
    if text is None or not re.fullmatch(r"[+-]?\d{1,18}", text):
        raise _wrong(where, key, text, expected)
    return int(text)


def _wrong(where: str, key: str, found: str | None, expected: str) -> TileError:
    said = "is missing" if found is None else f"is {found or 'empty'}"
    return TileError(
        f"{where}: card {key} {said}, expected {expected}; the header is damaged: fetch the file again or exclude it"
    )


@contextlib.contextmanager
def told_damage(where: str) -> Iterator[None]:
    """Turn what astropy and h5py raise over damaged headers and data into TileError; errors of other code pass as they are.

    Raises
    ------
    TileError
        With `where` and the library's own words.
    """
    try:
        yield
    except GalbatchError:
        raise
    except OSError as error:
        # Another number is of the disk or the network; EINVAL is a place before the file's beginning, which a header named.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise _damaged(where, error) from error
    except DAMAGE as error:
        if not _is_of_a_library(error):
            raise
        raise _damaged(where, error) from error


def _damaged(where: str, error: Exception) -> TileError:
    said = " ".join(str(error).split()) or type(error).__name__
    return TileError(f"{where}: is damaged, or no valid file of its kind ({said}); fetch it again or exclude it")


def _is_of_a_library(error: BaseException) -> bool:
    """Return whether the innermost function that raised is one of a library that reads files."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = "" if trace is None else trace.tb_frame.f_code.co_filename
    return any(library in name for library in LIBRARIES)
