"""The structure of a FITS file: the cards by which a reader finds an HDU's data and the next HDU.

astropy believes them: a wrong one ends in an exception of its own, or in a loop over 10^11 axes.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from astropy.io import fits
from astropy.io.fits.hdu.compressed._compression import CfitsioException

from galbatch.errors import GalbatchError, TileError

__all__ = ["FAULTS", "is_damage", "require_structure", "told_damage"]

BLOCK_BYTES = 2880
CARD_BYTES = 80
MAX_HEADER_BLOCKS = 4096
"""Headers of 147,000 cards: the longest of surveys, with the history of a thousand exposures, have some 20,000."""

MAX_HDUS = 8
"""HDUs that are looked at: image, mask, weight and what belongs to them stand first; hundreds of an archive may follow."""

BITS = (8, 16, 32, 64, -32, -64)
MOST = 999
"""The most axes or columns of an HDU (FITS standard 4.0, sections 4.4.1 and 7.2.1)."""

LIBRARIES = ("/astropy/", "h5py/", "/numpy/")
"""Parts of the paths of the libraries that read files; h5py's compiled modules name theirs from its own folder on."""

FAULTS = (
    OSError,
    fits.VerifyError,
    CfitsioException,
    zlib.error,
    struct.error,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
)
"""Errors that these libraries raise over damaged headers and data; they check little, so that failed assertions and attributes of None
are among them."""


def require_structure(file: BinaryIO, path: str) -> None:
    """Raise unless the first HDUs of a file say where their data are and end; the file's position is kept.

    A file that is cut off, or is no FITS, is left to those who read it.

    Raises
    ------
    TileError
        A card that says the size of the data is missing or has a value that none can have.
    """
    start = file.tell()
    n_bytes = file.seek(0, os.SEEK_END)
    file.seek(start)
    try:
        for number in range(MAX_HDUS):
            cards = _cards(file)
            if cards is None:
                return
            data_bytes = _data_bytes(cards, f"{path}: HDU {number}")
            place = file.tell() + -(-data_bytes // BLOCK_BYTES) * BLOCK_BYTES
            if place >= n_bytes:
                return
            file.seek(place)
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
        for axis in range(1, len(_axes(cards, "ZNAXIS", where)) + 1):
            if _integer(cards, f"ZTILE{axis}", where, default=1) < 1:
                raise _wrong(where, f"ZTILE{axis}", cards[f"ZTILE{axis}"], "1 or more")
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
    except FAULTS as error:
        if not is_damage(error):
            raise
        said = " ".join(str(error).split()) or type(error).__name__
        raise TileError(
            f"{where}: is damaged, or no valid file of its kind ({said}); fetch it again or exclude it"
        ) from error


def is_damage(error: BaseException) -> bool:
    """Return whether an error says that a file is damaged, not that the disk failed or that galbatch's own code is wrong."""
    if isinstance(error, GalbatchError | FileNotFoundError):
        return False
    if isinstance(error, OSError):
        # EINVAL is a place before the file's beginning, which a header named; other numbers are of the disk or the network.
        return error.errno in (None, errno.EINVAL)
    if isinstance(error, fits.VerifyError | CfitsioException | zlib.error | struct.error):
        return True  # nothing of galbatch's own raises these
    return _is_of_a_library(error)


def _is_of_a_library(error: BaseException) -> bool:
    """Return whether an error was raised in a library that reads files, or below it, not in galbatch's own code."""
    trace, found = error.__traceback__, False
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        found = (found or any(library in name for library in LIBRARIES)) and "/galbatch/" not in name
        trace = trace.tb_next
    return found
