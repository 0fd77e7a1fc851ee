"""The [objects] section, the object list; and [extinction] and [[masks]], maps of the sky at its positions."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from galbatch.config.strict import Section, parse_strictly
from galbatch.config.values import one_or_several, require_hdus
from galbatch.errors import ConfigError

__all__ = ["ExtinctionConfig", "MaskConfig", "ObjectsConfig", "RegionConfig", "region_of_text"]

RightAscension = Annotated[float, Field(ge=-360, le=360, allow_inf_nan=False)]
Declination = Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False)]
Radius = Annotated[float, Field(gt=0, le=180, allow_inf_nan=False)]


class RegionConfig(Section):
    """The [objects] region: a part of the sky, stated in one of four ways."""

    moc: str | None = Field(None, description="file of a MOC (multi-order coverage map): FITS, JSON or ASCII")
    circle_deg: tuple[RightAscension, Declination, Radius] | None = Field(
        None, description="right ascension and declination of the center, and the radius, deg"
    )
    box_deg: tuple[RightAscension, RightAscension, Declination, Declination] | None = Field(
        None,
        description="lowest and highest right ascension, lowest and highest declination, deg; across 0 h as [350, 10, -1, 1]",
    )
    tracts: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        None,
        description="tracts, or bricks: what lies on a tile whose id is one of these, or begins with one and a slash",
    )

    @field_validator("tracts", mode="before")
    @classmethod
    def _numbers_are_text(cls, value: Any) -> Any:
        # HSC's and LSST's tracts are numbers, the tiles' ids are text.
        if not isinstance(value, list | tuple):
            return value
        return tuple(
            str(item) if isinstance(item, int) and not isinstance(item, bool) else item for item in value
        )

    @model_validator(mode="after")
    def _one_way(self) -> RegionConfig:
        stated = self.model_dump(exclude_none=True)
        if len(stated) != 1:
            found = f"found {' and '.join(stated)}" if stated else "found none"
            raise ValueError(f"one of {', '.join(type(self).model_fields)} states the region, {found}")
        if self.box_deg and (self.box_deg[2] >= self.box_deg[3] or self.box_deg[0] == self.box_deg[1]):
            raise ValueError(
                f"box_deg = {list(self.box_deg)} is empty; it is [lowest ra, highest ra, lowest dec, highest dec]"
            )
        return self

    def __str__(self) -> str:
        ((key, value),) = self.model_dump(exclude_none=True).items()
        return f"{{{key} = {list(value) if isinstance(value, tuple) else value}}}"


class ObjectsConfig(Section):
    """The [objects] section: which objects, and which of their columns are carried into the catalog."""

    path: str = Field(
        description="object list: Parquet (a file or a folder of files), FITS, CSV, VOTable or HDF5, or the folder of a HATS catalog"
    )
    # Survey ids have 17 digits and more, and a float64 holds integers up to 2^53 (16 digits) only.
    id: str = Field(
        "object_id", description="column of the object id: integers (read without rounding to float) or text"
    )
    # Digits with leading zeros are another id without them, and ids of 2^63 and more fit no int64.
    id_type: Literal["as_stored", "text", "integer"] = Field(
        "as_stored",
        description='"text": ids are read as text, also where they consist of digits: leading zeros stay, and ids may exceed 64 bits; '
        '"integer": ids of digits are integers, and leading zeros mean nothing (as stored, a CSV file with some is refused)',
    )
    hdu: int | str | None = Field(
        None,
        description="table of a file with several: number or EXTNAME of a FITS HDU; number, ID or name of a VOTable's table, a group or dataset of HDF5 "
        "(a file with one table, or FITS_LDAC of SExtractor, needs none)",
    )
    ra: str = Field(
        "ra_deg",
        description="column of the right ascension: degrees, or another angle where the file states its unit",
    )
    dec: str = Field(
        "dec_deg",
        description="column of the declination: degrees, or another angle where the file states its unit",
    )
    keep: tuple[str, ...] = Field(
        (), description="columns copied into the catalog; conditions (`where`) may use them"
    )
    psf_fwhm_arcsec: dict[str, str] = Field(
        default_factory=dict,
        description='columns with the PSF width (FWHM, arcsec) at each object, one per band, for example {g = "g_seeing"}; a '
        "positive number in them takes precedence over the widths given with the tiles",
    )
    where: str | None = Field(
        None,
        description="which rows of the list are objects of the run, by any of its columns: an expression as in [[models]] where; "
        "the others are not in the catalog. None: all",
    )
    region: RegionConfig | None = Field(
        None,
        description="which part of the sky the objects lie in; rows outside of it are not in the catalog. None: all",
    )
    # Refusing is the default, so that no object goes missing from a catalog unnoticed.
    invalid: Literal["refuse", "drop"] = Field(
        "refuse",
        description="rows with a duplicate id or without a valid position: refuse the whole list, or drop these rows and list "
        "them in rejected.parquet",
    )

    @field_validator("hdu")
    @classmethod
    def _hdus_count_from_zero(cls, value: int | str | None) -> int | str | None:
        require_hdus(value)
        return value

    def resolve_paths(self, absolute: Callable[[str], str]) -> ObjectsConfig:
        """Return a copy whose paths are passed through `absolute`."""
        changes: dict[str, Any] = {"path": absolute(self.path)}
        if self.region is not None and self.region.moc is not None:
            changes["region"] = RegionConfig(moc=absolute(self.region.moc))
        return self.model_copy(update=changes)

    def override(self, **values: Any) -> ObjectsConfig:
        """Return a copy with other values, as options of a command give them.

        Raises
        ------
        ConfigError
            A value is out of range.
        """
        return parse_strictly(ObjectsConfig, self.model_dump(exclude_unset=True) | values, source="options")


class ExtinctionConfig(Section):
    """The [extinction] section: a map of E(B-V), and what it takes from each band."""

    map: Annotated[tuple[str, ...], one_or_several(str)] = Field(
        min_length=1,
        description="map of E(B-V) in mag: a HEALPix map (FITS), or one or several FITS images with a WCS, such as the two of "
        "Schlegel, Finkbeiner and Davis; of several the one whose reference point is nearest counts",
    )
    column: str = Field("", description="column of a HEALPix map; empty: the first")
    interpolation: Literal["bilinear", "nearest"] = Field(
        "bilinear",
        description="between the four nearest pixels of the map, or the pixel that the object lies in",
    )
    a_b: dict[str, Annotated[float, Field(ge=0, le=100)]] = Field(
        min_length=1,
        description="extinction in mag per unit E(B-V) of the map, by band, such as {g = 3.64, r = 2.70}; with it magnitudes in these "
        "bands have columns `_dered_mag` beside `_mag`",
    )

    def resolve_paths(self, absolute: Callable[[str], str]) -> ExtinctionConfig:
        """Return a copy whose paths are made absolute by the function `absolute`."""
        return self.model_copy(update={"map": tuple(map(absolute, self.map))})


class MaskConfig(Section):
    """One [[masks]] section: a part of the sky that a column of the catalog is true in."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]*$", max_length=64, description="name of the column, true inside"
    )
    path: str = Field(
        description="regions of ds9 (.reg, in sky coordinates), a MOC (FITS), a HealSparse map (inside where it has a value other than 0), or polygons of mangle (.ply, .pol; inside where the weight is not 0)"
    )
    good: Literal["inside", "outside"] | None = Field(
        None,
        description="where objects and random points must lie to be used: the default cut and galbatch area leave out the others; empty: the mask is a column alone",
    )


def region_of_text(text: str) -> RegionConfig:
    """Return the region that a line of TOML states, as in ``circle_deg = [150, 2, 0.5]``.

    Raises
    ------
    ConfigError
        The text is no TOML, or states no region.
    """
    try:
        stated = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"region {text!r}: is no TOML, as in circle_deg = [150, 2, 0.5]: {error}") from None
    return parse_strictly(RegionConfig, stated, source=f"region {text!r}")
