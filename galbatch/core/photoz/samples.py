"""Samples of redshift estimates with known redshifts: their statistics, of all objects and in bins, with bootstrap errors."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from galbatch.core.photoz.densities import cde_loss
from galbatch.core.photoz.points import POINT_STATISTICS, point_statistics, scaled_errors
from galbatch.core.statistics import bootstrap_errors

__all__ = [
    "HEADINGS",
    "STATISTICS",
    "BinOfSample",
    "MeasuredRedshifts",
    "RedshiftSample",
    "equal_bins",
    "measured_in_bins",
]

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64] | npt.NDArray[np.bool_]

STATISTICS = POINT_STATISTICS | {
    "pit_mean": "mean of the probability integral transforms; 0.5 if the densities are right",
    "pit_std": "standard deviation of the probability integral transforms; 0.2887 if the densities are right",
    "cde_loss": "loss of the conditional densities up to its constant; of two estimates of the same objects the lower is better",
    "crps": "mean continuous ranked probability score, in redshift",
    "log_score": "mean natural logarithm of the density at z_spec; of two estimates of the same objects the higher is better",
}
"""Names and meanings of all statistics, in the order of `MeasuredRedshifts.values`."""

HEADINGS = {
    "bias": "bias",
    "sigma_nmad": "σ NMAD",
    "outliers_15": "beyond 0.15",
    "outliers_05": "beyond 0.05",
    "sigma_iqr": "σ IQR",
    "pit_mean": "PIT mean",
    "pit_std": "PIT σ",
    "cde_loss": "CDE loss",
    "crps": "CRPS",
    "log_score": "ln p",
}
"""Headings of the statistics in tables, in the order of `STATISTICS`."""


@dataclass(frozen=True, eq=False)
class RedshiftSample:
    """Redshift estimates of objects with known redshifts.

    Attributes
    ----------
    z_phot, z_spec : (object,) float64, finite
    transform : (object,) float64, probability integral transforms; NaN if not known
    square_integral : (object,) float64, integral of each squared density; NaN if not known
    log_density : (object,) float64, natural logarithm of the density at z_spec; NaN if not known
    crps : (object,) float64, continuous ranked probability scores; NaN if not known
    weights : (object,) float64, 0 or above
    bin_values : values (object,) of further quantities by which objects are binned, such as a magnitude
    """

    z_phot: Floats
    z_spec: Floats
    transform: Floats
    square_integral: Floats
    log_density: Floats
    crps: Floats
    weights: Floats
    bin_values: Mapping[str, Floats] = field(default_factory=dict)

    @classmethod
    def of_points(cls, z_phot: Floats, z_spec: Floats, **known: Floats) -> RedshiftSample:
        """Return a sample with equal weights; what is not given is not known."""
        unknown = np.full(len(z_phot), np.nan)
        names = ("transform", "square_integral", "log_density", "crps")
        transform, square_integral, log_density, crps = (known.get(name, unknown) for name in names)
        weights = np.ones(len(z_phot))
        return cls(z_phot, z_spec, transform, square_integral, log_density, crps, weights)

    def __len__(self) -> int:
        return len(self.z_phot)

    def take(self, rows: Rows) -> RedshiftSample:
        """Return the objects at `rows`: numbers, or a mask."""
        own = ("z_phot", "z_spec", "transform", "square_integral", "log_density", "crps", "weights")
        return replace(
            self,
            **{name: getattr(self, name)[rows] for name in own},
            bin_values={name: values[rows] for name, values in self.bin_values.items()},
        )

    def measured(self, *, n_bootstrap: int, seed: int) -> MeasuredRedshifts:
        """Return the statistics, and as their errors the standard deviations over bootstrap samples of the objects."""
        arrays = (
            scaled_errors(self.z_phot, self.z_spec),
            self.transform,
            self.square_integral,
            self.log_density,
            self.crps,
            self.weights,
        )
        errors = bootstrap_errors(_statistics, arrays, n_bootstrap=n_bootstrap, seed=seed)
        return MeasuredRedshifts(len(self), effective_number(self.weights), _statistics(*arrays), errors)


@dataclass(frozen=True, eq=False)
class MeasuredRedshifts:
    """The statistics of a sample.

    Attributes
    ----------
    n : number of objects
    n_effective : the number of equally weighted objects that know a mean as well (Kish 1965)
    values, errors : (statistic,) float64, in the order of `STATISTICS`; NaN where the sample does not give them
    """

    n: int
    n_effective: float
    values: Floats
    errors: Floats

    def named(self) -> dict[str, tuple[float, float]]:
        """Return value and error of each statistic, by its name."""
        return dict(
            zip(STATISTICS, zip(self.values.tolist(), self.errors.tolist(), strict=True), strict=True)
        )


@dataclass(frozen=True, eq=False)
class BinOfSample:
    """The statistics of the objects whose `name` lies from `low` to `high`; an empty name: of all objects."""

    name: str
    low: float
    high: float
    measured: MeasuredRedshifts

    @property
    def text(self) -> str:
        """Which objects these are, for human readers: ``all`` or ``z_phot 0.2 to 0.45``."""
        return f"{self.name} {self.low:.3g} to {self.high:.3g}" if self.name else "all"


def measured_in_bins(
    sample: RedshiftSample,
    edges: Mapping[str, Sequence[float] | Floats],
    *,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> Iterator[BinOfSample]:
    """Yield the statistics of all objects, then of the bins of each quantity.

    Parameters
    ----------
    sample : RedshiftSample
    edges : rising edges of the bins of ``z_phot``, ``z_spec`` and of names of `bin_values`. A bin has its lower edge, the last one both
    n_bootstrap, seed : number of bootstrap samples, and their seed
    """
    yield BinOfSample("", np.nan, np.nan, sample.measured(n_bootstrap=n_bootstrap, seed=seed))
    own = {"z_phot": sample.z_phot, "z_spec": sample.z_spec, **sample.bin_values}
    for name, of_bins in edges.items():
        values, ends = own[name], np.asarray(of_bins, dtype=np.float64)
        for number, (low, high) in enumerate(itertools.pairwise(ends)):
            is_last = number == len(ends) - 2
            inside = (values >= low) & ((values <= high) if is_last else (values < high))
            part = sample.take(inside).measured(n_bootstrap=n_bootstrap, seed=seed)
            yield BinOfSample(name, float(low), float(high), part)


def equal_bins(values: Floats, n_bins: int) -> Floats:
    """Return the edges of bins with about equal numbers of objects, (edge,) float64; (0,) without finite values."""
    finite = values[np.isfinite(values)]
    return np.unique(np.quantile(finite, np.linspace(0, 1, n_bins + 1))) if len(finite) else np.empty(0)


def effective_number(weights: Floats) -> float:
    """Return the effective number of objects with weights (object,): the square of their sum over the sum of squares."""
    squares = float(np.square(weights).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


def _statistics(
    dz: Floats,
    transform: Floats,
    square_integral: Floats,
    log_density: Floats,
    crps: Floats,
    weights: Floats,
) -> Floats:
    """Return the statistics of a sample, (statistic,), in the order of `STATISTICS`."""
    if not weights.sum() > 0:
        return np.full(len(STATISTICS), np.nan)
    pit_mean = np.average(transform, weights=weights)
    pit_std = np.sqrt(np.average(np.square(transform - pit_mean), weights=weights))
    return np.array(
        [
            *point_statistics(dz, weights),
            pit_mean,
            pit_std,
            # A truth where the density is 0 has the logarithm -inf; its density is 0.
            cde_loss(square_integral, np.exp(log_density), weights),
            np.average(crps, weights=weights),
            np.average(log_density, weights=weights),
        ]
    )
