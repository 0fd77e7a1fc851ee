"""The [plan] section: how the sky is divided into partitions."""

from __future__ import annotations

from pydantic import Field

from galbatch.config.strict import Section
from galbatch.config.values import Bytes

__all__ = ["PlanConfig"]


class PlanConfig(Section):
    """The [plan] section: how the sky is divided into partitions."""

    # A partition is the unit of retry and of output, and a worker holds the columns of all its objects until it is written.
    max_objects_per_partition: int = Field(
        # The rows of a partition are in memory: those of a billion objects take 100 GB.
        20_000,
        ge=1,
        le=10**9,
        description="a HEALPix pixel with more objects than this is split",
    )
    # Neighboring partitions both read the tiles that they share: smaller limits read more bytes in all.
    max_bytes_per_partition: Bytes = Field(
        8 * 2**30,
        description="a HEALPix pixel is split if reading its tiles and writing its cutouts takes more bytes than this; an integer "
        "or text such as 8 GiB",
    )
