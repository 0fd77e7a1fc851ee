"""The [catalog] section: the catalog to write."""

from __future__ import annotations

from pydantic import Field

from galbatch.config.strict import Section
from galbatch.config.values import Label, Line

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
    version: Line = Field(
        "", description="version of the catalog, such as 1.0; like the next four it goes into the properties"
    )
    license: Line = Field("", description="license of the catalog, such as CC-BY-4.0")
    doi: Line = Field("", description="DOI of the catalog, such as 10.5281/zenodo.1234567")
    bibcode: Line = Field("", description="bibcode of the paper that describes the catalog")
    authors: tuple[Line, ...] = Field((), description="authors of the catalog, in order")

    @property
    def stated(self) -> dict[str, str]:
        """The texts that run.toml states about the catalog, by the names of its properties; nothing that is empty."""
        texts = {
            "catalog_version": self.version,
            "license": self.license,
            "doi": self.doi,
            "bibcode": self.bibcode,
            "authors": ", ".join(self.authors),
        }
        return {f"galbatch_{key}": text for key, text in texts.items() if text}
