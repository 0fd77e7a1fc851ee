"""The vector head: each pass gives a vector of numbers that are no posterior, such as a spectrum's latents or a spectrum itself."""

from __future__ import annotations

from collections.abc import Sequence

from galbatch.errors import BundleError
from galbatch.models.heads.base import Head, Loss
from galbatch.models.metadata import HeadInfo, ParameterInfo
from galbatch.models.posterior import Floats, PointPasses

__all__ = ["Vector"]


class Vector(Head):
    """The vector head. The outputs are the numbers of the vector, in the unit of the only parameter, whose name the column has.

    The catalog has the mean over the passes, as one list column, and neither quantiles nor widths.
    """

    kind = "vector"
    text = "a vector of numbers without a posterior"
    is_point = True
    is_vector = True
    options = ("length",)

    def n_outputs(self, info: HeadInfo, n_parameters: int) -> int:
        return info.length

    def problems(self, info: HeadInfo, parameters: Sequence[ParameterInfo]) -> list[str]:
        problems = []
        if info.length < 1:
            problems.append(f"length: how many numbers the vector has, 1 or more, found {info.length}")
        if len(parameters) != 1:
            problems.append(f"the vector is one parameter, found {len(parameters)}")
        for parameter in parameters:
            # The outputs are written as they are.
            plain = ParameterInfo(
                parameter.name, parameter.unit, parameter.description, "identity", ucd=parameter.ucd
            )
            if parameter != plain:
                problems.append(
                    f"{parameter.name}: a vector has transform identity, and of the other keys name, unit, description and ucd alone"
                )
        return problems

    def card_text(self, info: HeadInfo) -> str:
        return f"a vector of {info.length} numbers without a posterior"

    def read(
        self, outputs: Floats, info: HeadInfo, *, parameters: Sequence[ParameterInfo], n_members: int
    ) -> PointPasses:
        return PointPasses(outputs, n_members)

    def loss(self, info: HeadInfo, parameters: Sequence[ParameterInfo]) -> Loss:
        raise BundleError("head vector: has no loss, as vectors are of converted networks")
