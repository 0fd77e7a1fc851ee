"""The [plan] section: how the sky is divided into partitions."""

from __future__ import annotations

from pydantic import Field

from galbatch.config.strict import Section
from galbatch.config.values import Bytes

__all__ = ["PlanConfig"]


class PlanConfig(Section):
    """The [plan] section: how the sky is divided into partitions."""

    max_objects_per_partition: int = Field(
        20_000, ge=1, description="a HEALPix pixel with more objects is split"
    )
    max_bytes_per_partition: Bytes = Field(
        8 * 2**30,
        description="a HEALPix pixel that reads plus writes more is split; a number or text such as 8 GiB",
    )
