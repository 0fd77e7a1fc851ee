"""Steps of the doctor, their answers and outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Finding", "Step", "StepResult"]


@dataclass(frozen=True)
class Finding:
    """The answer of a step: lines for people, and the same as JSON.

    Attributes
    ----------
    rows : label and text of each line
    data : what is measured, as JSON has it: names keep their meaning, later versions only add some
    """

    rows: tuple[tuple[str, str], ...]
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """A question to this machine.

    Attributes
    ----------
    name : such as passes:rebuilt-float16:239
    limit_s : time after which it is given up, in seconds
    arguments : of the function that answers, as JSON has them
    """

    name: str
    limit_s: float
    arguments: Mapping[str, Any]

    @property
    def subject(self) -> str:
        """The part of the name before the first colon, which chooses the function."""
        return self.name.partition(":")[0]


@dataclass(frozen=True)
class StepResult:
    """The outcome of a step.

    Attributes
    ----------
    finding : the answer; None if there is none
    problem : why there is none; "" if there is one
    seconds : time that it took
    """

    step: Step
    finding: Finding | None
    problem: str
    seconds: float
