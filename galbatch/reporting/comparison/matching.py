"""Pairs of rows of two tables that are the same object, by id or by place, and the counts of all other rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from astropy import units as u
from astropy.coordinates import SkyCoord, search_around_sky

from galbatch.errors import UsageError

__all__ = ["Matching", "match_ids", "match_sky"]

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Matching:
    """The rows of two tables that are the same object. Each row of a table is matched, only there, or ambiguous.

    Attributes
    ----------
    here, there : (pair,) int64
        Row numbers in the catalog and in the other table.
    n_only_here, n_only_there : int
        Number of rows without any candidate in the other table.
    n_ambiguous_here, n_ambiguous_there : int
        Number of rows with several candidates, or with one that has several itself: they are left out.
    """

    here: Rows
    there: Rows
    n_only_here: int
    n_only_there: int
    n_ambiguous_here: int
    n_ambiguous_there: int

    def __len__(self) -> int:
        return len(self.here)

    @classmethod
    def of_candidates(cls, pairs: tuple[Rows, Rows], counts: tuple[Rows, Rows]) -> Matching:
        """Return the matching in which each row of a pair is the other's only candidate.

        Parameters
        ----------
        pairs : ((pair,) int64, (pair,) int64)
            Rows of the catalog and of the other table that may be the same object.
        counts : ((row,) int64, (row,) int64)
            Number of candidates of each row of the catalog and of the other table.
        """
        single = (counts[0][pairs[0]] == 1) & (counts[1][pairs[1]] == 1)
        here, there = pairs[0][single], pairs[1][single]
        without = [int(np.count_nonzero(count == 0)) for count in counts]
        ambiguous = [len(count) - none - len(here) for count, none in zip(counts, without, strict=True)]
        return cls(here, there, *without, *ambiguous)


def match_ids(here: pa.ChunkedArray, there: pa.ChunkedArray, *, where: str) -> Matching:
    """Return the rows with equal ids. An id that occurs several times in a table is ambiguous.

    Parameters
    ----------
    here, there : pyarrow.ChunkedArray
        Integers or text. If one table has integers and the other has text, the digits are compared.
    where : str
        File and column of the ids `there`, for the error message.

    Raises
    ------
    UsageError
        The ids are neither integers nor text.
    """
    if not (pa.types.is_integer(there.type) or pa.types.is_string(there.type)):
        raise UsageError(f"{where}: ids are {there.type}, expected integers or text; name the column by --id")
    if here.type != there.type:
        here, there = here.cast(pa.string()), pc.utf8_trim_whitespace(there.cast(pa.string()))
    both = pa.concat_arrays([here.combine_chunks(), there.combine_chunks()]).dictionary_encode()
    # Null ids match nothing: each gets no code.
    codes = both.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    mine, other = codes[: len(here)], codes[len(here) :]
    n_codes = len(both.dictionary)
    numbers = [np.bincount(one[one >= 0], minlength=n_codes + 1) for one in (mine, other)]
    counts = tuple(
        np.where(one >= 0, number[one], 0) for one, number in ((mine, numbers[1]), (other, numbers[0]))
    )
    place = np.zeros(n_codes + 1, np.int64)
    place[other] = np.arange(len(other))
    # Of an id that occurs several times any row will do: `of_candidates` drops the pair.
    rows = np.flatnonzero(counts[0] > 0)
    return Matching.of_candidates((rows, place[mine[rows]]), (counts[0], counts[1]))


def match_sky(here: tuple[Floats, Floats], there: tuple[Floats, Floats], *, radius_arcsec: float) -> Matching:
    """Return the rows that are the only ones within a radius of each other; rows without position match nothing.

    Parameters
    ----------
    here, there : ((row,) float64, (row,) float64)
        Right ascension and declination, ICRS, deg; NaN if unknown.
    radius_arcsec : float
        Largest separation; above 0.

    Raises
    ------
    UsageError
        The radius is not above 0, or a declination is outside -90..90.
    """
    if not 0 < radius_arcsec < np.inf:
        raise UsageError(f"--radius {radius_arcsec}: expected an angle above 0")
    known = [np.flatnonzero(np.isfinite(ra) & np.isfinite(dec)) for ra, dec in (here, there)]
    try:
        places = [
            SkyCoord(ra[rows], dec[rows], unit=u.deg)
            for rows, (ra, dec) in zip(known, (here, there), strict=True)
        ]
    except ValueError as error:
        raise UsageError(f"positions in degrees are needed: {error}") from None
    first, second, _, _ = search_around_sky(*places, radius_arcsec * u.arcsec)
    pairs = known[0][first], known[1][second]
    counts = tuple(
        np.bincount(rows, minlength=len(ra)) for rows, (ra, _) in zip(pairs, (here, there), strict=True)
    )
    return Matching.of_candidates(pairs, (counts[0], counts[1]))
