"""The [catalog] section: the catalog to write."""

from __future__ import annotations

from pydantic import Field

from galbatch.config.strict import Section
from galbatch.config.values import Label

__all__ = ["CatalogConfig"]


class CatalogConfig(Section):
    """The [catalog] section: the catalog to write."""

    # The lock and the pass outputs are named after this path and lie next to it: readers of HATS list what lies inside.
    path: str = Field("catalog", description="folder of the HATS catalog")
    base: str | None = Field(
        None,
        description="an older catalog, of which values are taken where they would be the same; it is not changed",
    )
    name: Label = Field("galbatch", description="obs_collection in the catalog's properties")
