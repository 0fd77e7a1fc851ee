"""Bins of objects by a magnitude, a size or any other column."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galbatch.errors import UsageError

__all__ = ["Binning"]

Floats = npt.NDArray[np.float64]

N_BINS = 5


@dataclass(frozen=True, slots=True)
class Binning:
    """Bins by the values of a column.

    Attributes
    ----------
    name : str
        The column or quantity.
    n_bins : int
        Number of bins of about equal numbers of objects, if there are no `edges`.
    limits : tuple of float
        Ascending edges of the bins; empty: they follow from the values.
    """

    name: str
    n_bins: int = N_BINS
    limits: tuple[float, ...] = ()

    @classmethod
    def parse(cls, text: str, names: Collection[str]) -> Binning:
        """Return the binning of a text ``NAME``, ``NAME:5`` (number of bins) or ``NAME:18,20,22`` (edges).

        Parameters
        ----------
        text : str
        names : collection of str
            Names of all columns and quantities, which may hold a colon.

        Raises
        ------
        UsageError
            The name is unknown, or after the colon are neither a number nor ascending edges.
        """
        name, colon, numbers = text.rpartition(":")
        if text in names or not colon:
            name, numbers = text, ""
        if name not in names:
            raise UsageError(
                f"--bins {text}: no quantity or column {name}; there are {', '.join(sorted(names))}"
            )
        try:
            edges = tuple(float(word) for word in numbers.split(",") if word.strip())
        except ValueError:
            edges = (np.nan,)
        if len(edges) == 1 and edges[0] >= 1 and edges[0] == int(edges[0]):
            return cls(name, n_bins=int(edges[0]))
        if len(edges) == 1 or list(edges) != sorted(set(edges)):
            raise UsageError(
                f"--bins {text}: expected NAME, NAME:5 (a number of bins) or NAME:18,20,22 (ascending edges)"
            )
        return cls(name, limits=edges)

    def edges(self, values: Floats) -> Floats:
        """Return the edges of the bins, (bin + 1,) float64: at most `n_bins` bins where values repeat; (0,) without values."""
        if self.limits:
            return np.array(self.limits)
        finite = values[np.isfinite(values)]
        return (
            np.unique(np.quantile(finite, np.linspace(0, 1, self.n_bins + 1))) if len(finite) else np.empty(0)
        )

    @staticmethod
    def members(values: Floats, edges: Floats) -> list[npt.NDArray[np.bool_]]:
        """Return masks (object,) of the objects in each bin. A bin has its lower edge, the last one both; NaN is in none."""
        inside = [(values >= low) & (values < high) for low, high in itertools.pairwise(edges)]
        if inside:
            inside[-1] |= values == edges[-1]
        return inside
