"""The stopping calibration of a bundle: how large the errors of quantiles are, given what an object's own passes show.

See `galbatch.models.inference.learned` for how runs use it, and `galbatch.models.calibration.stopping` for how it is made.
"""

# No postponed annotations: config looks for the nearest known key in the classes the fields name.
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

__all__ = ["StoppingInfo"]

# (parameter, level, checkpoint, bin)
Table = tuple[tuple[tuple[tuple[float, ...], ...], ...], ...]


@dataclass(frozen=True)
class StoppingInfo:
    """The stopping calibration: the expected variance of a pass, by the variance that an object's first passes have shown.

    The variance of a pass is that of its CDF at a quantile, over the squared density there, in squared posterior standard
    deviations; after n passes the squared error of the quantile is the variance over n. All numbers are of one bundle alone.

    Attributes
    ----------
    start : number of passes from which objects may stop
    levels : levels of the quantiles, in (0, 1), rising
    checkpoints : numbers of passes, rising
    upper : for each parameter, level and checkpoint the upper edges of bins of the variance that was shown, not falling
    expected : in the same order the expected variance in each bin, not falling
    n_objects, n_passes : numbers of held-out objects, and of passes of each
    actual_over_stated : RMS error over stated RMS error of the held-out objects when they stop, from `start` on; None where too few
        of them stop
    data : description of those objects
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    start: int
    levels: tuple[float, ...]
    checkpoints: tuple[int, ...]
    upper: Table
    expected: Table
    n_objects: int
    n_passes: int
    actual_over_stated: float | None = None
    data: str = ""

    def problems(self, n_parameters: int) -> list[str]:
        """Return messages on values that contradict each other or the number of parameters; empty if there are none."""
        problems = []
        if not _rises(self.levels) or not all(0 < level < 1 for level in self.levels):
            problems.append(f"levels must rise within (0, 1), found {list(self.levels)}")
        if not _rises(self.checkpoints) or self.checkpoints[0] < 2 or self.start < 2:
            problems.append("start and checkpoints must be 2 or more, and checkpoints rise")
        shape = (n_parameters, len(self.levels), len(self.checkpoints))
        for name, table in (("upper", self.upper), ("expected", self.expected)):
            sizes = {
                (len(table), len(of_parameter), len(of_level))
                for of_parameter in table
                for of_level in of_parameter
            }
            if sizes != {shape}:
                problems.append(
                    f"{name} must have {shape[0]} parameters x {shape[1]} levels x {shape[2]} checkpoints"
                )
        if not problems:
            pairs = zip(_bins(self.upper), _bins(self.expected), strict=True)
            if not all(
                len(a) == len(b) > 0 and min(a[0], b[0]) >= 0 and _is_sorted(a) and _is_sorted(b)
                for a, b in pairs
            ):
                problems.append(
                    "bins need as many upper edges as expected variances, which are 0 or more and do not fall"
                )
        return [f"stopping: {problem}" for problem in problems]


def _bins(table: Table) -> list[tuple[float, ...]]:
    return [bins for of_parameter in table for of_level in of_parameter for bins in of_level]


def _rises(values: tuple[float, ...]) -> bool:
    return len(values) > 0 and all(a < b for a, b in pairwise(values))


def _is_sorted(values: tuple[float, ...]) -> bool:
    return all(a <= b for a, b in pairwise(values))
