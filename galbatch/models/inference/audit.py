"""The audit of adaptive sampling, which compares the errors estimated at stopping with those found from more passes.

One object in a thousand (`galbatch.models.networks.is_audited`) gets `max_passes` though it could stop earlier. The n passes
with which it would have stopped are the first of the N that it gets, so quantiles from n and from N passes are expected to
differ by sqrt(1 - n/N) times the error that was estimated from n.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch.models.inference.stopping import QuantileEstimate

__all__ = ["Audit", "BlockAudit"]

Floats = npt.NDArray[np.float64]

# Objects that must be compared before actual over stated is shown, which is known to 13 % then, and before it is a reason to doubt.
MIN_SHOWN = 30
MIN_DOUBTED = 100
# From 100 objects it is known to 7 %.
DOUBTED = 1.2


@dataclass(frozen=True)
class Audit:
    """Sums over audited objects, which can be added up over groups, blocks and partitions.

    Attributes
    ----------
    levels : levels of the quantiles
    n_objects : number of audited objects
    n_not_converged : number of those that would not have stopped before `max_passes`; they are not compared
    n_values : number of quantiles compared at each level: stopped objects times quantities
    stated, actual : sum of the squares of the expected, and of the actual, differences at each level, in posterior standard
        deviations
    largest : largest actual difference, in posterior standard deviations
    """

    # The names are keys in the footers of leaves, so they must not change. What is stated is the catalog's `_mc_error`.

    levels: tuple[float, ...]
    n_objects: int = 0
    n_not_converged: int = 0
    n_values: int = 0
    stated: tuple[float, ...] = ()
    actual: tuple[float, ...] = ()
    largest: float = 0.0

    def __add__(self, other: Audit) -> Audit:
        """Return the audit of both samples together; they must have the same levels."""
        return Audit(
            self.levels,
            self.n_objects + other.n_objects,
            self.n_not_converged + other.n_not_converged,
            self.n_values + other.n_values,
            _added(self.stated, other.stated),
            _added(self.actual, other.actual),
            max(self.largest, other.largest),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the form that is written into a leaf's footer, of JSON's types."""
        return {key: list(part) if isinstance(part, tuple) else part for key, part in asdict(self).items()}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Audit:
        """Return the audit that `as_dict` was called on."""
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
        return cls(**fields)

    @property
    def n_compared(self) -> int:
        """The number of audited objects that could stop before `max_passes`."""
        return self.n_objects - self.n_not_converged

    @property
    def actual_over_stated(self) -> float | None:
        """The RMS actual over the RMS expected difference at all levels; None with fewer than 30 objects that were compared."""
        if self.n_compared < MIN_SHOWN or not sum(self.stated):
            return None
        return float(np.sqrt(sum(self.actual) / sum(self.stated)))

    @property
    def doubt(self) -> str:
        """A sentence for the user where errors are larger than stated, by 1.2 over 100 objects or more; else empty."""
        ratio = self.actual_over_stated
        if ratio is None or ratio <= DOUBTED or self.n_compared < MIN_DOUBTED:
            return ""
        return (
            f"Monte Carlo errors are {ratio:.2f} times those stated ({self.n_compared} audited objects): objects "
            "stopped too early; calibrate the network on the cutouts of this run (galbatch models calibrate --stopping-only --store), or set "
            "[posterior] min_passes, and run again"
        )

    @property
    def text(self) -> str:
        """The human-readable text that is written into the catalog's properties."""
        if not self.n_objects:
            return "no object was audited"
        counted = f"{self.n_objects} object{'s' if self.n_objects > 1 else ''}, {self.n_not_converged} not converged"
        if not self.n_values:
            return counted
        at_levels = [
            f"at {level:g}: {self._rms([stated]):.4f} and {self._rms([actual]):.4f}"
            for level, stated, actual in zip(self.levels, self.stated, self.actual, strict=True)
        ]
        ratio = self.actual_over_stated
        shown = "" if ratio is None else f", actual over stated {ratio:.2f}"
        if self.n_compared < MIN_SHOWN:
            shown = ", of too few objects to judge by"
        return (
            f"{counted}; RMS difference from max_passes in posterior standard deviations: stated "
            f"{self._rms(self.stated):.4f}, actual {self._rms(self.actual):.4f}, largest {self.largest:.4f}{shown}; "
            + ", ".join(at_levels)
        )

    def _rms(self, sums: Sequence[float]) -> float:
        """Return the root mean square from sums of squares over `n_values` values each."""
        return float(np.sqrt(sum(sums) / (len(sums) * self.n_values)))


def _added(first: tuple[float, ...], second: tuple[float, ...]) -> tuple[float, ...]:
    """Return the sums level by level; an empty tuple means that nothing was compared."""
    if not first or not second:
        return first or second
    return tuple(a + b for a, b in zip(first, second, strict=True))


class BlockAudit:
    """The audit of the objects of a block, while their passes run.

    Parameters
    ----------
    audited : (object,) bool, which objects of the block are audited
    levels : levels of the quantiles

    Attributes
    ----------
    found : audit of each object compared so far, by its row
    """

    def __init__(self, audited: npt.NDArray[np.bool_], levels: Sequence[float]) -> None:
        self.audited = audited
        self.levels = tuple(levels)
        self.found: dict[int, Audit] = {}
        # By row: the number of passes, the quantiles and their errors when the object could stop for the first time.
        self._stopped: dict[int, tuple[int, Floats, Floats]] = {}

    def stop(
        self,
        rows: npt.NDArray[np.intp],
        found: QuantileEstimate,
        n_passes: int,
        *,
        which: npt.NDArray[np.bool_],
    ) -> None:
        """Record the estimates of audited objects that could stop now for the first time.

        Parameters
        ----------
        rows : (object,) indices in the block
        found : estimates for these objects
        n_passes : number of passes that they have
        which : (object,) bool, whether the object could stop
        """
        for i in np.flatnonzero(which & self.audited[rows]).tolist():
            self._stopped.setdefault(int(rows[i]), (n_passes, found.output[i], found.error[i]))

    def compare(
        self,
        rows: npt.NDArray[np.intp],
        found: QuantileEstimate,
        n_passes: int,
        *,
        which: npt.NDArray[np.bool_],
    ) -> None:
        """Compare the recorded estimates with those from the largest number of passes.

        Parameters
        ----------
        rows : (object,) indices in the block
        found : estimates for these objects from all passes
        n_passes : number of passes that they have
        which : (object,) bool, whether all outputs of the object are finite
        """
        for i in np.flatnonzero(which & self.audited[rows]).tolist():
            row = int(rows[i])
            if row not in self._stopped:
                self.found[row] = Audit(self.levels, n_objects=1, n_not_converged=1)
                continue
            n_first, output, error = self._stopped[row]
            expected = error * np.sqrt(1.0 - n_first / n_passes)  # (quantity, level)
            std = found.std[i][:, None]
            apart = output - found.output[i]
            # A posterior without width, such as that of equal passes, does not change with their number.
            difference = np.divide(apart, std, out=np.zeros_like(apart), where=std > 0)
            self.found[row] = Audit(
                self.levels,
                n_objects=1,
                n_values=len(output),
                stated=tuple(np.square(expected).sum(axis=0).tolist()),
                actual=tuple(np.square(difference).sum(axis=0).tolist()),
                largest=float(np.abs(difference).max()),
            )
