"""The [objects] section: the object list."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from galbatch.config.strict import Section

__all__ = ["ObjectsConfig"]


class ObjectsConfig(Section):
    """The [objects] section: which objects, and which of their columns are carried into the catalog."""

    path: str = Field(
        description="object list: Parquet (a file or a folder of files), FITS, CSV or VOTable, or the folder of a HATS catalog"
    )
    # Survey ids have 17 digits and more, and a float64 holds integers up to 2^53 (16 digits) only.
    id: str = Field(
        "object_id", description="column of the object id: integers (read without rounding to float) or text"
    )
    # Digits with leading zeros are another id without them, and ids of 2^63 and more fit no int64.
    id_type: Literal["as_stored", "text"] = Field(
        "as_stored",
        description='"text": ids are read as text, also where they consist of digits: leading zeros stay, and ids may exceed 64 bits',
    )
    hdu: int | str | None = Field(
        None,
        description="table of a file with several: number or EXTNAME of a FITS HDU; number, ID or name of a VOTable's table "
        "(a file with one table, or FITS_LDAC of SExtractor, needs none)",
    )
    ra: str = Field("ra_deg", description="column of the right ascension, deg")
    dec: str = Field("dec_deg", description="column of the declination, deg")
    keep: tuple[str, ...] = Field(
        (), description="columns copied into the catalog; conditions (`where`) may use them"
    )
    psf_fwhm_arcsec: dict[str, str] = Field(
        default_factory=dict,
        description='columns with the PSF width (FWHM, arcsec) at each object, one per band, for example {g = "g_seeing"}; a '
        "positive number in them takes precedence over the widths given with the tiles",
    )
    # Refusing is the default, so that no object goes missing from a catalog unnoticed.
    invalid: Literal["refuse", "drop"] = Field(
        "refuse",
        description="rows with a duplicate id or without a valid position: refuse the whole list, or drop these rows and list "
        "them in rejected.parquet",
    )
