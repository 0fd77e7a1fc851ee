"""Bias, scatter, outliers and coverage of a sample of differences, with errors from bootstrap samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galbatch.core.statistics import normalized_mad

__all__ = ["STATISTICS", "Sample", "Statistics"]

Floats = npt.NDArray[np.float64]

STATISTICS = {
    "bias": "median of the differences, catalog minus other table",
    "std": "standard deviation of the differences",
    "nmad": "1.4826 times the median absolute deviation of the differences from the bias",
    "outliers": "share of objects whose difference is far from the bias",
    "coverage68": "share of the other table's values in the catalog's 68.27 % interval",
    "coverage95": "share of the other table's values in the catalog's 95.45 % interval",
}
"""Names and meanings of the statistics, in the order of `Statistics.measured`."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """The statistics of a sample.

    Attributes
    ----------
    n, n_coverage : int
        Number of objects, and of those that count for the coverage.
    measured, errors : (statistic,) float64
        In the order of `STATISTICS`; NaN where the sample does not give them.
    """

    n: int
    n_coverage: int
    measured: Floats
    errors: Floats

    def values(self) -> dict[str, float | int | None]:
        """Return number, statistics and errors by the names that they have in tables; None where there is no value."""
        found: dict[str, float | int | None] = {"n": self.n, "n_coverage": self.n_coverage}
        for name, value, error in zip(STATISTICS, self.measured.tolist(), self.errors.tolist(), strict=True):
            found |= {name: value, f"{name}_error": error}
        return {name: None if value != value else value for name, value in found.items()}


@dataclass(frozen=True, eq=False)
class Sample:
    """Differences between a catalog and a reference, and whether the catalog's intervals hold the reference.

    Attributes
    ----------
    difference : (object,) float64
        Finite.
    inside : (object, 2) float64
        1 where the 68 % and the 95 % interval hold the reference, 0 where they do not; NaN where the object does not count.
    """

    difference: Floats
    inside: Floats

    def __len__(self) -> int:
        return len(self.difference)

    def take(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Sample:
        """Return the objects at `rows`: numbers, which may repeat, or a mask."""
        return Sample(self.difference[rows], self.inside[rows])

    def statistics(self, *, outlier_nmads: float, n_bootstrap: int, seed: int) -> Statistics:
        """Return the statistics, and as their errors the standard deviations over bootstrap samples (Efron 1979).

        Parameters
        ----------
        outlier_nmads : float
            An outlier differs from the bias by more than this many NMADs.
        n_bootstrap : int
            Number of bootstrap samples, each of as many objects as the sample, drawn with replacement.
        seed : int
            Seed of the bootstrap samples.
        """
        n = len(self)
        values = self._values(outlier_nmads)
        errors = np.full(len(STATISTICS), np.nan)
        if n > 1 and n_bootstrap > 1:
            rng = np.random.default_rng(seed)
            drawn = [self.take(rng.integers(n, size=n))._values(outlier_nmads) for _ in range(n_bootstrap)]
            known = np.isfinite(values)
            # A coverage is NaN in samples that happen to hold no object that counts.
            errors[known] = np.nanstd(np.stack(drawn)[:, known], axis=0, ddof=1)
        return Statistics(n, int(np.isfinite(self.inside).any(axis=1).sum()), values, errors)

    def _values(self, outlier_nmads: float) -> Floats:
        if not len(self):
            return np.full(len(STATISTICS), np.nan)
        bias, nmad = float(np.median(self.difference)), normalized_mad(self.difference)
        outliers = np.mean(np.abs(self.difference - bias) > outlier_nmads * nmad)
        counts = np.isfinite(self.inside)
        # (interval,) the shares; 0 / 0 is NaN.
        with np.errstate(invalid="ignore"):
            shares = np.where(counts, self.inside, 0).sum(axis=0) / counts.sum(axis=0)
        return np.array([bias, np.std(self.difference), nmad, outliers, *shares])
