"""The [survey] section: where the pixels come from, and what the files of three layouts do not say of themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from galbatch.config.strict import Section
from galbatch.config.values import Magnitude, Width
from galbatch.core.types import WeightKind

__all__ = ["GalaxiesMlConfig", "GenericConfig", "StampsConfig", "SurveyConfig"]


# An HDU by number or name, for all bands or for each.
HduChoice = int | str | dict[str, int | str]


class GenericConfig(Section):
    """The [survey.generic] section: which HDU of FITS images of any survey holds what, and what its numbers mean."""

    pattern: str = Field(
        "",
        description="regular expression, searched in the path, whose groups `(?P<band>..)` and `(?P<tile>..)` give band and tile "
        "id; without a band the tables below tell it, or the card BAND or FILTER (its first word), or it is the only one in `bands`",
    )
    image: HduChoice | None = Field(
        None,
        description="HDU of the image, by number or name; a table where a file holds several bands, {g = 1, r = 4}; empty: the "
        "first HDU with an image",
    )
    axis: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict, description="cubes: index of each band on the first axis, {g = 0, r = 1}"
    )
    mask: HduChoice | None = Field(None, description="HDU of the mask, as `image`; empty: none")
    mask_replace: tuple[str, str] | None = Field(
        None,
        description='the mask is in another file, its name made by replacing text: ["_sci", "_mask"]; empty: in the same file',
    )
    mask_planes: dict[str, Annotated[int, Field(ge=0, le=63)]] | Literal["nonzero"] | None = Field(
        None,
        description="bit numbers by galbatch's mask names, {SAT = 1, NO_DATA = 8}; nonzero: any other value than 0 is BAD; "
        "empty: from the cards MP_* or MSKN* of the mask",
    )
    weight: HduChoice | None = Field(None, description="HDU of the weight, as `image`; empty: none")
    weight_replace: tuple[str, str] | None = Field(
        None, description="the weight is in another file, as `mask_replace`"
    )
    weight_kind: WeightKind = Field("variance", description="what the weight holds")
    unit: str = Field(
        "",
        description="unit of the pixels if it is one of flux: nJy, uJy, mJy, Jy, nanomaggy; else `zero_point_mag` of [survey]",
    )
    zero_point_card: str = Field("", description="header card that holds the AB zero point of one image unit")

    @model_validator(mode="after")
    def _describes_what_is_read(self) -> GenericConfig:
        if self.mask_planes is not None and self.mask is None and self.mask_replace is None:
            raise ValueError(
                "mask_planes names the bits of a mask, but none is read: state mask or mask_replace"
            )
        if self.weight_kind != "variance" and self.weight is None and self.weight_replace is None:
            raise ValueError(
                "weight_kind is that of a weight, but none is read: state weight or weight_replace"
            )
        return self


class StampsConfig(Section):
    """The [survey.stamps] section: what ready-made stamps do not say of themselves."""

    catalog: str = Field(
        "",
        # A path is not for the fingerprint: what the catalog holds is part of the tiles' identity.
        exclude=True,
        description="table with one row per stamp; empty: info.csv in the stamps' folder or in its parent folder, if there is one. "
        "Stamps without a WCS take their position from it",
    )
    file: str = Field("file_name", description="column of the stamp's file name; folders in it do not count")
    ra: str = Field("ra", description="column of the right ascension, deg")
    dec: str = Field("dec", description="column of the declination, deg")
    band: str = Field(
        "", description="band of stamps that state none: no card BAND or FILTER, nothing in the file name"
    )
    pixel_scale_arcsec: float | None = Field(
        None, gt=0, description="pixel scale of stamps without a WCS, north up; 0.168 for HSC"
    )


class GalaxiesMlConfig(Section):
    """The [survey.galaxiesml] section: which datasets of an HDF5 file hold what."""

    image: str = Field(
        "image",
        description="dataset of the images, (object, band, y, x); or one for each band, (object, y, x), with {band} in the name",
    )
    variance: str = Field("", description="dataset of the variance, as `image`; empty: none")
    id: str = Field("object_id", description="dataset of the object id, which names the tile")
    ra: str = Field("ra", description="dataset of the right ascension, deg")
    dec: str = Field("dec", description="dataset of the declination, deg")
    bands: tuple[str, ...] = Field(
        ("g", "r", "i", "z", "y"), description="bands in the order of the file's band axis"
    )
    pixel_scale_arcsec: float = Field(0.168, gt=0, description="pixel scale; the default is HSC's")
    center_px: float | None = Field(
        None,
        description="0-based pixel of the object on both axes; empty: size // 2, which is 32 of 64 px and 63 of 127 px",
    )


class SurveyConfig(Section):
    """One [survey] section: where the pixels come from."""

    layout: Literal["hsc", "lsst", "legacysurvey", "generic", "stamps", "galaxiesml"] = Field(
        description="how the survey lays out its files: hsc (calexp patches), lsst (coadds of the LSST pipelines), "
        "legacysurvey (bricks, and the viewer's cutouts), generic (any FITS image, see [survey.generic]), stamps "
        "(ready-made FITS stamps), galaxiesml (HDF5)"
    )
    tiles: str = Field(
        description="tiles: a glob, a directory or a table of tiles (Parquet, CSV), local, s3:// or any URL that fsspec reads; relative to run.toml's "
        "folder"
    )
    bands: tuple[str, ...] = Field(min_length=1, description="bands to read, in the survey's own short names")
    name: str = Field(
        "",
        pattern=r"^[a-z][a-z0-9]*$|^$",
        description="prefix of the survey's bands where several [[survey]] are joined: with des, band g is des_g",
    )
    psf_fwhm_arcsec: dict[str, Width] = Field(
        default_factory=dict,
        description="PSF width per band where the files do not state it, for example {g = 0.85}",
    )
    psf_fwhm_card: str = Field(
        "",
        description="header card with the PSF's FWHM in arcsec; a number in `psf_fwhm_arcsec` goes before it",
    )
    zero_point_mag: Magnitude | dict[str, Magnitude] | None = Field(
        None,
        description="AB zero point of one image unit where the files do not state it: a number, or one per band, "
        "{g = 27.0, r = 27.0}; never assumed",
    )
    release: str = Field(
        "", description="data release, such as pdr3 or dr10, where path and headers do not say it"
    )
    background: str = Field(
        "",
        description="what was done to the sky, such as global sky or local sky, where the layout does not know; compared "
        "with what a bundle was trained on",
    )
    generic: GenericConfig = Field(default_factory=GenericConfig, description="layout generic")
    stamps: StampsConfig = Field(default_factory=StampsConfig, description="layout stamps")
    galaxiesml: GalaxiesMlConfig = Field(default_factory=GalaxiesMlConfig, description="layout galaxiesml")

    @model_validator(mode="after")
    def _tables_are_of_bands(self) -> SurveyConfig:
        for key in ("psf_fwhm_arcsec", "zero_point_mag"):
            stated = getattr(self, key)
            other = sorted(set(stated) - set(self.bands)) if isinstance(stated, dict) else []
            if other:
                raise ValueError(
                    f"{key}: {', '.join(other)}: no such band; bands has {', '.join(self.bands)}"
                )
        return self

    @model_validator(mode="after")
    def _sections_are_of_the_layout(self) -> SurveyConfig:
        for key, default in (
            ("generic", GenericConfig()),
            ("stamps", StampsConfig()),
            ("galaxiesml", GalaxiesMlConfig()),
        ):
            if key != self.layout and getattr(self, key) != default:
                raise ValueError(
                    f"[survey.{key}] is read for layout {key} only, here layout is {self.layout}; take the section "
                    "out, or correct layout"
                )
        return self

    @property
    def run_bands(self) -> tuple[str, ...]:
        """The bands as the rest of the run knows them: with the survey's name as prefix, if it has one."""
        return tuple(f"{self.name}_{band}" if self.name else band for band in self.bands)

    def resolve_paths(self, absolute: Callable[[str], str]) -> SurveyConfig:
        """Return the same survey with the paths that `absolute` makes of its own."""
        changes: dict[str, Any] = {"tiles": absolute(self.tiles)}
        if self.stamps.catalog:
            changes["stamps"] = self.stamps.model_copy(update={"catalog": absolute(self.stamps.catalog)})
        return self.model_copy(update=changes)
