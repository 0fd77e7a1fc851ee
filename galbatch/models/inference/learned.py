"""The learned stopping rule: the errors of quantiles as a stopping calibration expects them, not as an object's own passes show.

The variance that n passes of an object show is right on average, whatever their distribution. To stop an object *because* its own
is small is what misleads: of the objects that have shown no jump, some have them. So the calibration regresses the variance of
further, independent passes of the same object on the one shown (`StoppingInfo`): for a network whose passes only jump it hardly
depends on what was shown, and all objects run on alike; for a quiet one it is the one shown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy

from galbatch.config import PosteriorConfig
from galbatch.core.fingerprint import digest
from galbatch.models.bundle import EnsembleInfo
from galbatch.models.inference.stopping import QuantileEstimate
from galbatch.models.metadata import StoppingInfo
from galbatch.models.posterior import Floats, Quantity, quantities_of

__all__ = ["LearnedErrors", "VarianceTable", "stopping_digests"]


class VarianceTable:
    """The expected variance of a pass at the levels of a run, from the stopping calibration of one bundle.

    Between the calibration's levels (in standard deviations of a normal distribution) and its checkpoints (in the logarithm of the number) the
    variance is interpolated. Before the first checkpoint and after the last one these themselves are taken.

    Parameters
    ----------
    info : stopping calibration of the bundle
    quantities : quantities whose quantiles are estimated
    levels : (level,) levels of the quantiles, within those of the calibration
    """

    def __init__(self, info: StoppingInfo, quantities: Sequence[Quantity], levels: Sequence[float]) -> None:
        self._log_n = np.log(info.checkpoints)
        index = np.array([quantity.index for quantity in quantities])[:, None]
        wanted = np.stack([quantity.levels(np.asarray(levels, dtype=np.float64)) for quantity in quantities])
        first, weight = _between(scipy.special.ndtri(np.asarray(info.levels)), scipy.special.ndtri(wanted))
        n_bins = max(len(bins) for of_level in info.upper for checkpoints in of_level for bins in checkpoints)
        # An object above the last edge is in one more bin, which has the variance of the last one.
        upper, expected = _padded(info.upper, n_bins, np.inf), _padded(info.expected, n_bins + 1, None)
        last = np.array([[[bins[-1] for bins in of_level] for of_level in of_p] for of_p in info.upper])
        second = np.minimum(first + 1, len(info.levels) - 1)
        # Each part: weight (quantity, level), edges and variances (quantity, level, checkpoint, bin), last edges.
        self._parts = [
            (share, upper[index, at], expected[index, at], last[index, at])
            for share, at in ((1.0 - weight, first), (weight, second))
            if share.any()
        ]

    def expected(self, shown: Floats, n_passes: int) -> Floats:
        """Return the expected variance of a pass.

        Parameters
        ----------
        shown : (object, quantity, level) float64, variance that the first `n_passes` passes of an object have shown
        n_passes : number of passes of each object
        """
        first, weight = _between(self._log_n, np.log([n_passes]))
        found = np.zeros_like(shown)
        for share, at in ((1.0 - weight[0], first[0]), (weight[0], first[0] + 1)):
            if not share:
                continue
            for of_level, upper, expected, last in self._parts:
                which = (shown[..., None] > upper[:, :, at]).sum(axis=-1)
                binned = np.take_along_axis(expected[None, :, :, at], which[..., None], axis=-1)[..., 0]
                # Beyond what was seen in the calibration the object's own passes speak.
                own = np.where(shown > last[:, :, at], shown, 0.0)
                found += share * of_level * np.maximum(binned, own)
        return found


def _between(points: Floats, wanted: Floats) -> tuple[npt.NDArray[np.intp], Floats]:
    """Return for each wanted value the index of the point before it, and the weight of the next one, 0 outside the points."""
    first = np.clip(np.searchsorted(points, wanted, side="right") - 1, 0, len(points) - 1)
    width = np.append(np.diff(points), 1.0)[first]
    weight = np.clip((wanted - points[first]) / width, 0.0, 1.0)
    # A level such as 0.97725 is found by ndtri to rounding only, and needs no interpolation.
    weight = np.where((first == len(points) - 1) | (weight < 1e-6), 0.0, weight)
    return first, weight


def _padded(table: Sequence[Sequence[Sequence[Sequence[float]]]], n_bins: int, fill: float | None) -> Floats:
    """Return a table as an array (parameter, level, checkpoint, bin), with `fill`, or the last value, in bins that do not exist."""
    return np.array(
        [
            [
                [[*bins, *[bins[-1] if fill is None else fill] * (n_bins - len(bins))] for bins in of_level]
                for of_level in of_parameter
            ]
            for of_parameter in table
        ]
    )


@dataclass(frozen=True)
class LearnedErrors:
    """The errors of an ensemble's quantiles, as the stopping calibrations of its bundles expect them.

    Each bundle's part in the error is looked up in its own calibration, and the parts are added in quadrature, as the passes of
    different networks are independent.

    Attributes
    ----------
    infos : stopping calibration of each bundle; None for a bundle without dropout, which adds no error
    members : number of networks in each bundle
    tables : table of each bundle for the run's quantities and levels; None where there is no calibration
    """

    infos: tuple[StoppingInfo | None, ...]
    members: tuple[int, ...]
    tables: tuple[VarianceTable | None, ...]

    @classmethod
    def of(cls, ensemble: EnsembleInfo, posterior: PosteriorConfig) -> LearnedErrors | None:
        """Return the errors for a network and the settings of a run; None where the calibrations do not hold or there are none.

        They hold for mixtures over passes that differ, at levels between the lowest and the highest of every calibration.
        """
        stops_by_quantiles = posterior.method == "mixture" and ensemble.has_dropout and not ensemble.is_point
        if isinstance(posterior.passes, int) or not stops_by_quantiles:
            return None
        pairs = list(zip(ensemble.bundles, ensemble.stopping, strict=True))
        infos = tuple(info if bundle.metadata.passes_differ else None for bundle, info in pairs)
        quantities = quantities_of(ensemble.metadata.parameters)
        for bundle, info in pairs:
            if bundle.metadata.passes_differ and (
                info is None or not _covers(info, quantities, posterior.quantiles)
            ):
                return None
        return cls(
            infos,
            tuple(bundle.metadata.members for bundle in ensemble.bundles),
            tuple(
                None if info is None else VarianceTable(info, quantities, posterior.quantiles)
                for info in infos
            ),
        )

    @property
    def digests(self) -> tuple[str, ...]:
        """The digest of each bundle's stopping calibration, for fingerprints; "none" for a bundle without dropout."""
        return tuple("none" if info is None else digest(dataclasses.asdict(info)) for info in self.infos)

    @property
    def start(self) -> int:
        """The number of passes from which objects may stop: the largest of the calibrations'."""
        return max(info.start for info in self.infos if info is not None)

    def replace_errors(self, found: QuantileEstimate, n_passes: int) -> QuantileEstimate:
        """Return the estimate from `n_passes` passes with the expected errors, which need no allowance for undetected jumps."""
        n_members = sum(self.members)
        squared = np.zeros_like(found.error)
        for table, part, members in zip(self.tables, self._parts(found), self.members, strict=True):
            if table is not None:
                # A calibration is of its bundle alone, whose share of the ensemble's variance is (members / all members)^2.
                share = (members / n_members) ** 2
                shown = n_passes * np.square(part).sum(axis=-1) / share
                squared += share * table.expected(shown, n_passes) / n_passes
        return dataclasses.replace(
            found, error=np.sqrt(squared), undetected_jumps=np.zeros_like(found.undetected_jumps)
        )

    def _parts(self, found: QuantileEstimate) -> Iterator[Floats]:
        """Yield the errors (object, quantity, level, member) of the networks of each bundle."""
        stops = np.cumsum(self.members)
        for stop, members in zip(stops.tolist(), self.members, strict=True):
            yield found.member_error[..., stop - members : stop]


def _covers(info: StoppingInfo, quantities: Sequence[Quantity], levels: Sequence[float]) -> bool:
    """Return whether all levels lie within those of the calibration."""
    wanted = np.concatenate(
        [quantity.levels(np.asarray(levels, dtype=np.float64)) for quantity in quantities]
    )
    return bool(info.levels[0] <= wanted.min() and wanted.max() <= info.levels[-1])


def stopping_digests(ensemble: EnsembleInfo, posterior: PosteriorConfig) -> tuple[str, ...]:
    """Return the digest of each stopping calibration by which a run's objects stop, for its fingerprint; empty if by none."""
    learned = LearnedErrors.of(ensemble, posterior)
    return () if learned is None else learned.digests
