"""The [objects] section: the object list."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from galbatch.config.strict import Section

__all__ = ["ObjectsConfig"]


class ObjectsConfig(Section):
    """The [objects] section: which objects, and which of their columns are carried into the catalog."""

    path: str = Field(
        description="object list: Parquet, FITS, CSV or VOTable, or the folder of a HATS catalog"
    )
    id: str = Field(
        "object_id", description="column of the object id: integers (never through float) or text"
    )
    ra: str = Field("ra_deg", description="column of the right ascension, deg")
    dec: str = Field("dec_deg", description="column of the declination, deg")
    keep: tuple[str, ...] = Field((), description="columns carried into the catalog; `where` may use them")
    psf_fwhm_arcsec: dict[str, str] = Field(
        default_factory=dict,
        description='columns that hold the PSF\'s width (FWHM, arcsec) per band, for example {g = "g_seeing"}; where they '
        "hold a number, it goes before what the tiles state",
    )
    invalid: Literal["refuse", "drop"] = Field(
        "refuse",
        description="duplicate ids and positions that are none: refuse the list, or drop the rows into rejected.parquet",
    )
