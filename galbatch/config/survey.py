"""The [survey] section: where the pixels come from, and for three layouts what their files do not tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from galbatch.config.strict import Section
from galbatch.config.values import Label, MagnitudeOffset, Width, ZeroPoint, require_hdus
from galbatch.core.types import WeightKind

__all__ = [
    "GalaxiesMlConfig",
    "GenericConfig",
    "Hdf5Config",
    "MultimodalUniverseConfig",
    "StampsConfig",
    "SurveyConfig",
    "is_tile_table",
]

TABLE_SUFFIXES = (".parquet", ".csv")


def is_tile_table(tiles: str) -> bool:
    """Return whether ``[survey] tiles`` names a table of tiles."""
    return tiles.lower().endswith(TABLE_SUFFIXES)


# The number or name of an HDU: one for all bands, or a table with one for each band.
HduChoice = int | str | dict[str, int | str]

# Masks are read as integers of at most 64 bits, hence bit numbers up to 63.
MaskPlanes = dict[str, Annotated[int, Field(ge=0, le=63)]] | Literal["nonzero", "zero"]


class GenericConfig(Section):
    """The [survey.generic] section: which HDUs of a FITS file hold image, mask and weight, and what their numbers mean."""

    pattern: str = Field(
        "",
        description="regular expression, searched in the path, whose groups `(?P<band>..)` and `(?P<tile>..)` give band and tile "
        "id. Where the pattern has no band, it is taken from the tables below, from the header card BAND or FILTER (first word), "
        "or it is the only one in `bands`",
    )
    image: HduChoice | None = Field(
        None,
        description="HDU of the image, by number or name; a table if a file holds several bands, such as {g = 1, r = 4}; empty: "
        "the first HDU with an image",
    )
    # No survey has a thousand bands; SPHEREx has 102 channels.
    axis: dict[str, Annotated[int, Field(ge=0, le=1000)]] = Field(
        default_factory=dict,
        description="image cubes (band, y, x): index of each band on the first axis, such as {g = 0, r = 1}",
    )
    mask: HduChoice | None = Field(None, description="HDU of the mask, written like `image`; empty: none")
    mask_replace: tuple[str, str] | None = Field(
        None,
        description="for a mask in a file of its own: the text to replace in the image file's name and its replacement, such as "
        '["_sci", "_mask"]; empty: the mask is in the same file',
    )
    mask_planes: MaskPlanes | None = Field(
        None,
        description="bit number of each of galbatch's mask planes, such as {SAT = 1, NO_DATA = 8}; nonzero: every value other "
        "than 0 means BAD; zero: 0 means BAD; empty: read from the mask's header cards MP_* or MSKN*",
    )
    weight: HduChoice | None = Field(None, description="HDU of the weight, written like `image`; empty: none")
    weight_replace: tuple[str, str] | None = Field(
        None, description="for a weight in a file of its own, written like `mask_replace`"
    )
    weight_kind: WeightKind = Field(
        "variance",
        description="meaning of the weight's values; coverage: number of exposures, exposure time or a relative weight, 0 where there "
        "are no data",
    )
    unit: str = Field(
        "",
        description="unit of the pixels as astropy writes it, if it is a unit of flux density (nJy, uJy, mJy, MJy, Jy, nanomaggy) or "
        "surface brightness (MJy/sr); for other units give `zero_point_mag` of [survey]",
    )
    zero_point_card: str = Field(
        "", description="header card that holds the AB zero point (the magnitude of one image unit)"
    )

    # Python counts -1 from the end: an HDU of that number would be the last one.
    @field_validator("image", "mask", "weight")
    @classmethod
    def _hdus_count_from_zero(cls, value: HduChoice | None) -> HduChoice | None:
        require_hdus(*value.values()) if isinstance(value, dict) else require_hdus(value)
        return value


class StampsConfig(Section):
    """The [survey.stamps] section: position, band and pixel scale of ready-made stamps that lack them."""

    catalog: str = Field(
        "",
        # Paths are not part of the fingerprint: the contents of this table are, as part of the tiles' identity.
        exclude=True,
        description="table with one row per stamp, which gives the positions of stamps without a WCS; empty: info.csv in the stamps' "
        "folder or its parent folder, if it exists",
    )
    file: str = Field("file_name", description="column of the stamp's file name; folders in it are ignored")
    ra: str = Field("ra", description="column of the right ascension, deg")
    dec: str = Field("dec", description="column of the declination, deg")
    band: str = Field(
        "", description="band of stamps that have none in the card BAND or FILTER or in the file name"
    )
    pixel_scale_arcsec: Width | None = Field(
        None,
        description="pixel scale of stamps without a WCS, whose north is then taken to be up; 0.168 for HSC",
    )
    mask_planes: MaskPlanes | None = Field(
        None,
        description="bit number of each of galbatch's mask planes in the stamps' masks, such as {BAD = 2, SAT = 8}; nonzero: every value "
        "other than 0 means BAD; zero: 0 means BAD; empty: read from cards MP_*, MSKN* or MSKNAM*, and a mask without them says nothing",
    )


class Hdf5Config(Section):
    """Keys that the sections of layouts in HDF5 share: the names of the datasets, what their values are, and the pixel grid."""

    # Other names that published files have for a key's dataset, and datasets that are done without where files lack them.
    alternatives: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    may_be_missing: ClassVar[frozenset[str]] = frozenset()

    image: str = Field(
        description="dataset of the images (object, band, y, x); or, with {band} in the name, one dataset (object, y, x) per band"
    )
    weight: str = Field("", description="dataset of the weights, written like `image`; empty: none")
    weight_kind: WeightKind | None = Field(
        None,
        description="meaning of the weights' values; empty: by the dataset's name (ivar, variance, rms ..)",
    )
    mask: str = Field(
        "",
        description="dataset of the masks, written like `image`, or (object, y, x) for all bands; empty: none",
    )
    mask_planes: MaskPlanes | None = Field(
        None,
        description="bit number of each of galbatch's mask planes; nonzero: every value other than 0 means BAD; zero: 0 (false) means BAD",
    )
    psf_fwhm: str = Field(
        "", description="dataset of the PSF's FWHM in arcsec, (object, band) or (object,); empty: none"
    )
    id: str = Field(
        "object_id", description="dataset of the object ids; each object's image is a tile named after its id"
    )
    ra: str = Field("ra", description="dataset of the right ascension, deg")
    dec: str = Field("dec", description="dataset of the declination, deg")
    band_names: str = Field(
        "",
        description="dataset of the bands' names, (object, band), the same in all rows; read where `bands` is empty",
    )
    scale: str = Field(
        "",
        description="dataset of the pixel scale in arcsec, (object, band) or (object,), the same in all rows; read where "
        "`pixel_scale_arcsec` is empty",
    )
    bands: tuple[str, ...] = Field((), description="bands in the order of the file's band axis")
    pixel_scale_arcsec: Width | None = Field(None, description="pixel scale")
    # An even number of pixels has no central one: size // 2 is a convention, half a pixel less would be the exact middle.
    center_px: float | None = Field(
        None,
        ge=0,
        le=1e5,
        description="0-based pixel of the object on both axes; empty: size // 2, which is 32 of 64 px and 63 of 127 px",
    )


def _described(key: str) -> str:
    """Return the help text of a key of `Hdf5Config`, for layouts with another default."""
    return Hdf5Config.model_fields[key].description or ""


class GalaxiesMlConfig(Hdf5Config):
    """The [survey.galaxiesml] section: the names of the datasets in the HDF5 files, and their pixel grid."""

    image: str = Field("image", description=_described("image"))
    bands: tuple[str, ...] = Field(("g", "r", "i", "z", "y"), description=_described("bands"))
    pixel_scale_arcsec: Width | None = Field(0.168, description="pixel scale; the default is HSC's")


class MultimodalUniverseConfig(Hdf5Config):
    """The [survey.multimodaluniverse] section: the names of the datasets in the HDF5 files; the defaults are the published ones."""

    alternatives: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "image": ("image_flux",),
        "scale": ("pixel_scale",),
    }
    may_be_missing: ClassVar[frozenset[str]] = frozenset({"weight", "mask", "psf_fwhm"})

    image: str = Field("image_array", description=f"{_described('image')}; image_flux is found as well")
    weight: str = Field("image_ivar", description=_described("weight"))
    mask: str = Field("image_mask", description=_described("mask"))
    mask_planes: MaskPlanes | None = Field("zero", description=_described("mask_planes"))
    psf_fwhm: str = Field("image_psf_fwhm", description=_described("psf_fwhm"))
    band_names: str = Field("image_band", description=_described("band_names"))
    scale: str = Field("image_scale", description=_described("scale"))


class SurveyConfig(Section):
    """One [survey] or [[survey]] section: where the pixels of a survey come from."""

    # A test compares these names with the registry of layouts: the config may not import it.
    layout: Literal[
        "hsc", "lsst", "legacysurvey", "generic", "stamps", "galaxiesml", "multimodaluniverse"
    ] = Field(
        description="how the survey lays out its files: hsc (calexp patches), lsst (coadds of the LSST pipelines), "
        "legacysurvey (bricks, and the viewer's cutouts), generic (any FITS image, see [survey.generic]), stamps "
        "(ready-made FITS stamps), galaxiesml and multimodaluniverse (stamps in HDF5)"
    )
    tiles: str = Field(
        description="the tiles: a glob pattern, a folder or a table of tiles (Parquet, CSV); a local path, relative to run.toml's "
        "folder, or an s3:// URL or another one that fsspec reads"
    )
    bands: tuple[Label, ...] = Field(
        min_length=1, description="bands to read, in the survey's own short names"
    )
    # The underscore is left out: it separates the name from the band.
    name: str = Field(
        "",
        pattern=r"^[a-z][a-z0-9]*$|^$",
        max_length=64,
        description="prefix of the survey's bands, needed if several [[survey]] have bands of the same name: with name des, band g "
        "becomes des_g",
    )
    psf_fwhm_arcsec: dict[str, Width] = Field(
        default_factory=dict,
        description="PSF width (FWHM, arcsec) per band where the files do not give it, for example {g = 0.85}",
    )
    psf_fwhm_card: str = Field(
        "",
        description="header card with the PSF's FWHM in arcsec; a number in `psf_fwhm_arcsec` takes precedence",
    )
    # There is no default: a wrong zero point makes every flux wrong without any sign of it.
    zero_point_mag: ZeroPoint | dict[str, ZeroPoint] | None = Field(
        None,
        description="AB zero point (the magnitude of one image unit) where the files do not give it: a number, or one per band, "
        "such as {g = 27.0, r = 27.0}; never assumed",
    )
    vega_to_ab_mag: MagnitudeOffset | dict[str, MagnitudeOffset] | None = Field(
        None,
        description="AB minus Vega magnitude of bands whose zero points in the files are Vega magnitudes, such as {K = 1.9}; empty: the "
        "documented offsets of 2MASS, WISE, UKIRT and VISTA",
    )
    release: str = Field(
        "", description="data release, such as pdr3 or dr10, where paths and headers do not give it"
    )
    background: str = Field(
        "",
        description="how the sky background was subtracted, such as global sky or local sky, where the layout does not know it; "
        "compared with the training data of each network",
    )
    dereddened: bool = Field(
        False,
        description="whether the fluxes of the tiles are corrected for Galactic extinction already; a network that was trained on the other kind is refused",
    )
    # The sections have defaults, so that a user writes only the one that the layout reads.
    generic: GenericConfig = Field(default_factory=GenericConfig, description="layout generic")
    stamps: StampsConfig = Field(default_factory=StampsConfig, description="layout stamps")
    galaxiesml: GalaxiesMlConfig = Field(default_factory=GalaxiesMlConfig, description="layout galaxiesml")
    multimodaluniverse: MultimodalUniverseConfig = Field(
        default_factory=MultimodalUniverseConfig, description="layout multimodaluniverse"
    )

    # A misspelled band in a table would leave the right band without its number.
    @model_validator(mode="after")
    def _tables_are_of_bands(self) -> SurveyConfig:
        for key in ("psf_fwhm_arcsec", "zero_point_mag", "vega_to_ab_mag"):
            value = getattr(self, key)
            unknown = sorted(set(value) - set(self.bands)) if isinstance(value, dict) else []
            if unknown:
                raise ValueError(
                    f"{key}: {', '.join(unknown)}: no such band; bands has {', '.join(self.bands)}"
                )
        return self

    # A mask plane or weight kind without a mask or weight would be ignored without a word. A table of tiles may name both.
    @model_validator(mode="after")
    def _describes_what_is_read(self) -> SurveyConfig:
        generic = self.generic
        if is_tile_table(self.tiles):
            return self
        if generic.mask_planes is not None and generic.mask is None and generic.mask_replace is None:
            raise ValueError(
                "[survey.generic] mask_planes names the bits of a mask, but none is read: give mask or mask_replace"
            )
        if generic.weight_kind != "variance" and generic.weight is None and generic.weight_replace is None:
            raise ValueError(
                "[survey.generic] weight_kind describes a weight, but none is read: give weight or weight_replace"
            )
        return self

    @model_validator(mode="after")
    def _sections_are_of_the_layout(self) -> SurveyConfig:
        for key, default in (
            ("generic", GenericConfig()),
            ("stamps", StampsConfig()),
            ("galaxiesml", GalaxiesMlConfig()),
            ("multimodaluniverse", MultimodalUniverseConfig()),
        ):
            if key != self.layout and getattr(self, key) != default:
                raise ValueError(
                    f"[survey.{key}] is read for layout {key} only, here layout is {self.layout}; take the section "
                    "out, or correct layout"
                )
        return self

    @property
    def run_bands(self) -> tuple[str, ...]:
        """The names of the bands in the whole run: with the survey's name as prefix, if it has one."""
        return tuple(f"{self.name}_{band}" if self.name else band for band in self.bands)

    def resolve_paths(self, absolute: Callable[[str], str]) -> SurveyConfig:
        """Return a copy whose paths are made absolute by the function `absolute`."""
        changes: dict[str, Any] = {"tiles": absolute(self.tiles)}
        if self.stamps.catalog:
            changes["stamps"] = self.stamps.model_copy(update={"catalog": absolute(self.stamps.catalog)})
        return self.model_copy(update=changes)
