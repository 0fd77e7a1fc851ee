"""Masks: which bit of a survey's mask means what, by its header, and all of it in galbatch's own bits."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from galbatch.core.flags import MaskBit
from galbatch.errors import TileError

__all__ = [
    "MASK_BIT_OF_PLANE",
    "NONZERO",
    "NO_BITS",
    "ZERO",
    "NamedBits",
    "decode_mask",
    "maskbits",
    "named_bits",
    "plane_bits",
    "planes_of_hdu",
    "require_bits",
]

N_BITS = {8: 8, 16: 16, 32: 32, 64: 64, -32: 24, -64: 53}
"""Bits of a mask by BITPIX: of floats those that they hold exactly."""

BITS_OF_AN_HDU = 64
"""Bits that are kept for each HDU of a mask that goes on in another one: no integer has more."""

NONZERO = "NONZERO"
"""Name in `Tile.mask_planes` of masks whose every value but 0 means BAD."""

ZERO = "ZERO"
"""Name in `Tile.mask_planes` of masks of good pixels: 0 means BAD."""

# The survey's names of planes, in galbatch's bits; planes of other names say nothing that the flags use. After
# afw's names come those of lsst.images (cell-based coadds), then those of Legacy Surveys' maskbits and of Pan-STARRS.
MASK_BIT_OF_PLANE = {
    "BAD": MaskBit.BAD,
    "UNMASKEDNAN": MaskBit.BAD,
    "SAT": MaskBit.SAT,
    "INTRP": MaskBit.INTRP,
    "CR": MaskBit.CR,
    "EDGE": MaskBit.EDGE,
    "SENSOR_EDGE": MaskBit.EDGE,
    "DETECTED": MaskBit.DETECTED,
    "DETECTED_NEGATIVE": MaskBit.NEGATIVE,
    "SUSPECT": MaskBit.SUSPECT,
    "CROSSTALK": MaskBit.SUSPECT,
    "NO_DATA": MaskBit.NO_DATA,
    "BRIGHT_OBJECT": MaskBit.BRIGHT_OBJECT,
    "CLIPPED": MaskBit.CLIPPED,
    "NEGATIVE": MaskBit.NEGATIVE,
    "SATURATED": MaskBit.SAT,
    "INTERPOLATED": MaskBit.INTRP,
    "COSMIC_RAY": MaskBit.CR,
    "DETECTION_EDGE": MaskBit.EDGE,
    "UNMASKED_NAN": MaskBit.BAD,
    "SATUR": MaskBit.SAT,
    "ALLMASK": MaskBit.BAD,
    "BRIGHT": MaskBit.BRIGHT_OBJECT,
    "MEDIUM": MaskBit.BRIGHT_OBJECT,
    "CLUSTER": MaskBit.BRIGHT_OBJECT,
    **dict.fromkeys(("DETECTOR", "FLAT", "DARK", "LOW", "CONV.BAD"), MaskBit.BAD),
    "BLANK": MaskBit.NO_DATA,
    "BURNTOOL": MaskBit.SUSPECT,
    **dict.fromkeys(("SPIKE", "GHOST", "STARCORE"), MaskBit.BRIGHT_OBJECT),
}


def plane_bits(header: fits.Header, where: str) -> dict[str, int]:
    """Return the bit number of each mask plane by its name, as the numbers differ between releases.

    From cards MP_<name> = bit, or from pairs MSKN<n> = name and MSKM<n> = 1 << bit, as the LSST pipelines
    write since 2026; where both are there, the latter count. Pan-STARRS writes pairs MSKNAM<nn> = name and
    MSKVAL<nn> = 1 << bit.

    Raises
    ------
    TileError
        A card holds no number, or a plane has a bit that the mask's integers do not have.
    """
    try:
        bits = _plane_bits(header)
    except (ValueError, TypeError) as error:
        raise TileError(
            f"{where}: the mask's cards MP_*, MSKN* or MSKNAM* do not number its planes ({error}); correct them, or state "
            "[survey.generic] mask_planes (layout generic)"
        ) from None
    require_bits(bits, header, where)
    return bits


def require_bits(bits: Mapping[str, int], header: fits.Header, where: str) -> None:
    """Raise unless a mask has all bits that its planes are said to be: a plane beyond them would never be set.

    Raises
    ------
    TileError
        A bit is negative, or the mask's integers have fewer.
    """
    n_bits = N_BITS.get(int(header["BITPIX"]), 64)
    beyond = [f"{name} = {bit}" for name, bit in bits.items() if not 0 <= bit < n_bits]
    if beyond:
        raise TileError(
            f"{where}: the mask has {n_bits} bits, numbered from 0, and its planes {', '.join(beyond)} lie beyond them; they may stand in "
            "another HDU: correct the cards, or state the right mask and mask_planes (layout generic)"
        )


@dataclass(frozen=True, slots=True)
class NamedBits:
    """The bits of a mask by the names of its planes.

    Attributes
    ----------
    names : bit number by name; bits of the first of `more_hdus` are counted from 64 on, of the next from 128
    more_hdus : numbers of the HDUs in which the mask goes on, of those with planes that flags are made of
    """

    names: Mapping[str, int]
    more_hdus: tuple[int, ...] = ()


NO_BITS = NamedBits({})
"""The bits of a mask that no one reads: none has a meaning."""


def named_bits(hdus: fits.HDUList, mask: int, where: str) -> NamedBits:
    """Return the bits of a mask's planes by the cards of its HDU, and of those in which it goes on.

    lsst.images writes masks of more than 31 planes as several HDUs MASK, one behind the other (EXTVER 1, 2, ..).

    Raises
    ------
    TileError
        As `plane_bits`; or a plane stands in two HDUs, so that nothing says which of them is meant.
    """
    bits = plane_bits(hdus[mask].header, where)
    more: list[int] = []
    place = dict.fromkeys(bits, mask)
    for number in _continuations(hdus, mask):
        found = plane_bits(hdus[number].header, where)
        for name in found:
            if name in place and name in MASK_BIT_OF_PLANE:
                raise TileError(
                    f"{where}: the mask plane {name} stands in HDU {place[name]} and in HDU {number}, and nothing says which is meant; "
                    "take its cards out of one of them, or exclude the file"
                )
        place |= dict.fromkeys(found, number)
        if any(name in MASK_BIT_OF_PLANE for name in found):
            more.append(number)
            bits |= {name: bit + BITS_OF_AN_HDU * len(more) for name, bit in found.items()}
    return NamedBits(bits, tuple(more))


def _continuations(hdus: fits.HDUList, mask: int) -> Iterator[int]:
    """Yield the numbers of the HDUs that follow a mask and have its name, if it has one."""
    name = str(hdus[mask].header.get("EXTNAME", "")).strip().upper()
    number = mask + 1
    while name and number < len(hdus) and str(hdus[number].header.get("EXTNAME", "")).strip().upper() == name:
        yield number
        number += 1


def planes_of_hdu(planes: Mapping[str, int], number: int) -> Mapping[str, int]:
    """Return the planes of the mask's HDU `number`, counted from 0, with the bits of that HDU's integers."""
    return {name: bit % BITS_OF_AN_HDU for name, bit in planes.items() if bit // BITS_OF_AN_HDU == number}


def _plane_bits(header: fits.Header) -> dict[str, int]:
    """Return the bits as `plane_bits` does."""
    new = [key for key in header if key.startswith("MSKN") and key[4:].isdigit()]
    if new:
        masks = {key: int(header.get(f"MSKM{key[4:]}", 1 << int(key[4:]))) for key in new}
        return {str(header[key]).strip().upper(): masks[key].bit_length() - 1 for key in new}
    bits = {key[3:].upper(): int(header[key]) for key in header if key.upper().startswith("MP_")}
    for key in header:
        if key.startswith("MSKNAM") and key[6:].isdigit():
            value = int(header.get(f"MSKVAL{key[6:]}", 0))
            # MASK.VALUE and its like are several bits together.
            if value.bit_count() == 1:
                bits[str(header[key]).strip().upper()] = value.bit_length() - 1
    return bits


# Bit numbers of Legacy Surveys' maskbits in DR9 and DR10 (legacysurvey.org/dr10/bitmasks), of those that say a pixel is bad.
MASKBITS = {
    "BRIGHT": 1,
    "SATUR_G": 2,
    "SATUR_R": 3,
    "SATUR_Z": 4,
    "ALLMASK_G": 5,
    "ALLMASK_R": 6,
    "ALLMASK_Z": 7,
    "MEDIUM": 11,
    "CLUSTER": 13,
    "SATUR_I": 14,
    "ALLMASK_I": 15,
}
MASKBITS_OF_ALL_BANDS = ("BRIGHT", "MEDIUM", "CLUSTER")
MASKBITS_OF_A_BAND = ("SATUR", "ALLMASK")


def maskbits(header: fits.Header, band: str) -> dict[str, int]:
    """Return the bits of Legacy Surveys' maskbits that mean something in a band, by names without the band's suffix."""
    # Cards BITNM<n> = name of the file itself go before the table: a later release may number them otherwise.
    bits = MASKBITS | {
        str(header[key]).strip().upper(): int(key[5:])
        for key in header
        if key.startswith("BITNM") and key[5:].isdigit()
    }
    chosen = {name: bits[name] for name in MASKBITS_OF_ALL_BANDS}
    own = {name: f"{name}_{band.upper()}" for name in MASKBITS_OF_A_BAND}
    return chosen | {name: bits[full] for name, full in own.items() if full in bits}


def decode_mask(stored: npt.NDArray[Any], planes: Mapping[str, int], *, out: npt.NDArray[np.uint16]) -> None:
    """Convert a survey's mask to galbatch's bits, by tables of 65536 entries, one for each 16 bits of the integer.

    Parameters
    ----------
    stored : (y, x) integers in any byte order, or integers read as floats
    planes : bit number by the survey's name of the plane
    out : (y, x) uint16, overwritten
    """
    if NONZERO in planes or ZERO in planes:
        bad = stored != 0 if NONZERO in planes else stored == 0
        np.multiply(bad, np.uint16(MaskBit.BAD), out=out)
        return
    # Masks with a BSCALE, and those with BLANK pixels, are read as floats; a bit test needs integers.
    undefined = None
    if stored.dtype.kind not in "iu":
        undefined = ~np.isfinite(stored)
        stored = np.where(undefined, 0, stored).astype(np.int64)
    known = _known_bits(tuple(planes.items()))
    # The lowest 16 bits set every pixel of `out`; higher ones are added where a known bit lies there.
    np.take(_mask_table(known, 0), stored.astype(np.uint16), out=out, mode="wrap")
    for shift in range(16, 8 * stored.dtype.itemsize, 16):
        if any(shift <= number < shift + 16 for number, _ in known):
            out |= _mask_table(known, shift)[(stored >> shift).astype(np.uint16)]
    if undefined is not None:
        out[undefined] |= np.uint16(MaskBit.NO_DATA)


@functools.lru_cache(maxsize=256)
def _known_bits(planes: tuple[tuple[str, int], ...]) -> tuple[tuple[int, int], ...]:
    """Return (bit number, galbatch's bit) of the planes that galbatch has a bit for, in order; the same for every window of a tile."""
    return tuple(
        sorted((number, int(MASK_BIT_OF_PLANE[name])) for name, number in planes if name in MASK_BIT_OF_PLANE)
    )


@functools.lru_cache(maxsize=256)
def _mask_table(known: tuple[tuple[int, int], ...], shift: int) -> npt.NDArray[np.uint16]:
    """Return galbatch's bits (65536,) of every value of the 16 bits that begin with bit `shift`."""
    values = np.arange(1 << 16)
    table = np.zeros(1 << 16, np.uint16)
    for number, bit in known:
        if shift <= number < shift + 16:
            table |= ((values >> (number - shift)) & 1).astype(np.uint16) * np.uint16(bit)
    return table
