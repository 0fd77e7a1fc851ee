"""run.toml -> a validated, frozen config.

One tree of classes states each key's name, default, range and help text once; the reference page and the
error messages are made from it. Parsing reads run.toml and nothing else: inputs are looked at in plan.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from galbatch.errors import ConfigError

__all__ = [
    "CatalogConfig",
    "ClusterConfig",
    "CutoutsConfig",
    "FlagsConfig",
    "GalaxiesMlConfig",
    "GenericConfig",
    "ModelConfig",
    "ObjectsConfig",
    "PlanConfig",
    "PosteriorConfig",
    "RunConfig",
    "StampsConfig",
    "SurveyConfig",
    "parse_bytes",
    "parse_strictly",
    "read_config",
]

BYTE_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_bytes(value: Any) -> int:
    """Bytes from a number or from text such as ``"8 GiB"``."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"\s*([0-9][0-9_.]*)\s*([A-Za-z]*)\s*", str(value))
    if match is None or match[2].upper() not in BYTE_UNITS:
        raise ValueError(f"{value!r} is no size; write for example 8 GiB or 500 MB")
    return int(float(match[1].replace("_", "")) * BYTE_UNITS[match[2].upper()])


def _as_tuple(value: Any) -> Any:
    """One text is a list of one."""
    return (value,) if isinstance(value, str) else value


Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]
Magnitude = Annotated[float, Field(allow_inf_nan=False)]
Width = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Section(BaseModel):
    """Frozen; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


HduOf = int | str | dict[str, int | str]


class GenericConfig(_Section):
    """FITS images of any survey: which HDU holds what, and what its numbers mean."""

    pattern: str = Field(
        "",
        description="regular expression, searched in the path, whose groups `(?P<band>..)` and `(?P<tile>..)` give band and tile "
        "id; without a band the tables below tell it, or the card BAND or FILTER (its first word), or it is the only one in `bands`",
    )
    image: HduOf | None = Field(
        None,
        description="HDU of the image, by number or name; a table where a file holds several bands, {g = 1, r = 4}; empty: the "
        "first HDU with an image",
    )
    axis: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict, description="cubes: index of each band on the first axis, {g = 0, r = 1}"
    )
    mask: HduOf | None = Field(None, description="HDU of the mask, as `image`; empty: none")
    mask_replace: tuple[str, str] | None = Field(
        None,
        description='the mask is in another file, its name made by replacing text: ["_sci", "_mask"]; empty: in the same file',
    )
    mask_planes: dict[str, Annotated[int, Field(ge=0, le=63)]] | Literal["nonzero"] | None = Field(
        None,
        description="bit numbers by galbatch's mask names, {SAT = 1, NO_DATA = 8}; nonzero: any other value than 0 is BAD; "
        "empty: from the cards MP_* or MSKN* of the mask",
    )
    weight: HduOf | None = Field(None, description="HDU of the weight, as `image`; empty: none")
    weight_replace: tuple[str, str] | None = Field(
        None, description="the weight is in another file, as `mask_replace`"
    )
    weight_kind: Literal["variance", "inverse_variance", "standard_deviation"] = Field(
        "variance", description="what the weight holds"
    )
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


class StampsConfig(_Section):
    """What ready-made stamps do not say of themselves."""

    catalog: str = Field(
        "",
        exclude=True,  # a path: not for the fingerprint; what the catalog holds is part of the tiles' identity
        description="table with one row per stamp; empty: info.csv beside the stamps' folder or in it, if there is one. "
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


class GalaxiesMlConfig(_Section):
    """Which datasets of an HDF5 file hold what."""

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
        description="0-based pixel of the object on both axes; empty: size // 2, so 32 of 64 px and 63 of 127 px",
    )


class SurveyConfig(_Section):
    """Where the pixels come from."""

    layout: Literal["hsc", "lsst", "legacysurvey", "generic", "stamps", "galaxiesml"] = Field(
        description="how the survey lays out its files: hsc (calexp patches), lsst (coadds of the LSST pipelines), "
        "legacysurvey (bricks, and the viewer's cutouts), generic (any FITS image, see [survey.generic]), stamps "
        "(ready-made FITS stamps), galaxiesml (HDF5)"
    )
    tiles: str = Field(
        description="tiles: a glob, a directory or a table of tiles (Parquet, CSV), local or s3://; relative to run.toml's "
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
        """The bands as the rest of the run knows them: with the survey's name before them, if it has one."""
        return tuple(f"{self.name}_{band}" if self.name else band for band in self.bands)


class ObjectsConfig(_Section):
    """Which objects, and what is carried along."""

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


class PlanConfig(_Section):
    """How the sky is divided into partitions."""

    max_objects_per_partition: int = Field(
        20_000, ge=1, description="a HEALPix pixel with more objects is split"
    )
    max_bytes_per_partition: Bytes = Field(
        8 * 2**30,
        description="a HEALPix pixel that reads plus writes more is split; a number or text such as 8 GiB",
    )


class CutoutsConfig(_Section):
    """The cutout store."""

    store: str = Field("cutouts.zarr", description="path of the Zarr store")
    planes: tuple[Literal["image", "mask", "variance"], ...] = Field(
        ("image",), description="planes that are stored; mask and variance are used for the flags in any case"
    )
    keep: bool = Field(
        True, description="false: a partition's cutouts go once its leaf is committed (stage all only)"
    )

    @model_validator(mode="after")
    def _image_is_stored(self) -> CutoutsConfig:
        if "image" not in self.planes:
            raise ValueError("planes must name image: the networks read it")
        return self


class FlagsConfig(_Section):
    """Thresholds of the pixel flags."""

    center_radius_arcsec: float = Field(
        1.0, gt=0, description="BAD_CENTER, SATURATED, BRIGHT_OBJECT look this far from the center"
    )
    neighbor_radius_arcsec: float = Field(
        3.0, ge=0, description="NEIGHBOR: another listed object is closer than this"
    )
    duplicate_radius_arcsec: float = Field(
        0.2, ge=0, description="DUPLICATE_POSITION: another listed object is closer than this"
    )
    bad_planes: tuple[Literal["BAD", "INTRP", "CR", "EDGE", "SUSPECT", "CLIPPED"], ...] = Field(
        ("BAD", "INTRP", "CR"),
        description="BAD_CENTER: mask planes that count; in coadds INTRP and CR are often set where one of many visits "
        "was mended",
    )
    low_snr: float = Field(
        5.0, ge=0, description="LOW_SNR: signal to noise in the center radius below this in every band"
    )


class ModelConfig(_Section):
    """One network to run."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="prefix of the model's columns")
    bundle: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        min_length=1,
        description="bundle file (.pt), or demo:gampen and demo:sfnet for the bundles shipped with galbatch; a list of "
        "bundles of one model is an ensemble, whose posteriors are pooled",
    )
    bands: tuple[str, ...] = Field(
        (),
        description="survey bands fed to the network, in the order of the bundle's; empty: the bundle's own names",
    )
    columns: tuple[str, ...] = Field(
        (),
        description="columns of the object list fed to a network that takes numbers beside the image, in the order of "
        "the bundle's; empty: the bundle's own names",
    )
    calibrated: bool | None = Field(
        None,
        description="whether the posteriors are stretched by the factors that galbatch models calibrate stored in the "
        "bundle; empty: as the bundle says",
    )
    where: str | None = Field(
        None, description="which objects the network is for, such as z_best < 0.25; empty: all"
    )


class PosteriorConfig(_Section):
    """How the posterior is sampled and summarized."""

    method: Literal["mixture", "samples"] = Field(
        "mixture",
        description="mixture: quantiles of the mixture over passes; samples: one draw a pass, as in the GaMPEN paper",
    )
    passes: int | Literal["adaptive"] = Field(
        "adaptive",
        description="Monte Carlo dropout passes per object; adaptive: as many as the tolerance asks for, object by object",
    )
    min_passes: int = Field(64, ge=2, le=100_000, description="adaptive: passes that every object gets")
    max_passes: int = Field(1000, ge=2, le=100_000, description="adaptive: passes that no object exceeds")
    tolerance: float = Field(
        0.05,
        gt=0,
        description="adaptive: Monte Carlo error of every quantile to be reached, in posterior standard deviations; "
        "NOT_CONVERGED above it",
    )
    quantiles: tuple[float, ...] = Field(
        (0.02275, 0.15865, 0.5, 0.84135, 0.97725),
        description="quantiles in the catalog; the default: median, 1 and 2 sigma",
    )
    seed: int = Field(1, ge=0, description="seed of the dropout masks and draws")
    batch: int = Field(256, ge=1, description="rows (object times pass) a forward sees at most")
    engine: Literal["auto", "torchscript", "rebuilt", "compiled"] = Field(
        "auto",
        description="torchscript: the bundle's own script; rebuilt: modules with its weights, of architectures that galbatch "
        "knows; compiled: these through torch.compile; auto: chosen once per run and recorded",
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of what follows the first dropout; auto: chosen once per run and recorded"
    )
    keep_components: bool = Field(
        False, description="keep the outputs of every pass in Zarr beside the catalog, for joint draws later"
    )

    @model_validator(mode="after")
    def _quantiles_are_probabilities(self) -> PosteriorConfig:
        if not self.quantiles or any(not 0 < q < 1 for q in self.quantiles):
            raise ValueError(f"quantiles must lie between 0 and 1, found {list(self.quantiles)}")
        if list(self.quantiles) != sorted(set(self.quantiles)) or 0.5 not in self.quantiles:
            raise ValueError("quantiles must rise, without repeats, and hold 0.5 (the median)")
        if isinstance(self.passes, int) and not 2 <= self.passes <= 100_000:
            raise ValueError(f"passes must be 2 to 100000, found {self.passes}")
        if self.min_passes > self.max_passes:
            raise ValueError(f"min_passes is {self.min_passes}, above max_passes, {self.max_passes}")
        return self


class CatalogConfig(_Section):
    """The result."""

    path: str = Field("catalog", description="folder of the HATS catalog")
    name: str = Field("galbatch", description="obs_collection in the catalog's properties")


class ClusterConfig(_Section):
    """Where workers come from."""

    kind: Literal["local", "local-cuda", "scheduler", "slurm", "kubernetes"] = Field(
        "local",
        description="local: worker processes on this machine; local-cuda: one for each of its GPUs; scheduler: those of a "
        "running Dask scheduler; slurm and kubernetes are not in this version",
    )
    workers: int | None = Field(
        None,
        ge=1,
        description="worker processes; empty: local one per two cores, local-cuda one per GPU; scheduler: so many are waited "
        "for, empty: one",
    )
    scheduler: str | None = Field(
        None, description="kind scheduler: the address to join, such as tcp://10.0.0.1:8786"
    )
    device: Literal["cpu", "cuda"] = Field(
        "cpu",
        description="kind scheduler: what its workers infer on; cuda asks for workers with the resource GPU. The workers of "
        "local have the cpu, those of local-cuda a GPU each",
    )
    wait_s: float = Field(
        120,
        ge=0,
        description="how long a run waits for workers that can do what is left to do, at its start and when there are none any more",
    )
    retries: int = Field(
        2,
        ge=0,
        description="how often a partition is tried again after I/O errors and lost workers; after lack of memory it is tried "
        "with half the batch, down to 1",
    )
    dashboard_address: str = Field(
        "127.0.0.1:8787", description="address of the Dask dashboard; port 0 takes a free one"
    )

    @model_validator(mode="after")
    def _kind_fits_the_rest(self) -> ClusterConfig:
        if self.kind == "scheduler" and not self.scheduler:
            raise ValueError(
                "kind = 'scheduler' joins a running one: name its address, [cluster] scheduler = \"tcp://host:8786\" or "
                "--scheduler tcp://host:8786"
            )
        if self.kind != "scheduler" and self.scheduler:
            raise ValueError(
                f"scheduler = {self.scheduler!r} is joined by kind = 'scheduler'; kind = {self.kind!r} starts its own workers: "
                "leave one of them out"
            )
        if self.kind == "local" and self.device == "cuda":
            raise ValueError(
                "kind = 'local' infers on the cpu; kind = 'local-cuda' on the GPUs of this machine"
            )
        return self


def _as_list(value: Any) -> Any:
    """``[survey]`` is a list of one ``[[survey]]``."""
    return (value,) if isinstance(value, dict | BaseModel) else value


class RunConfig(_Section):
    """run.toml as a whole."""

    survey: Annotated[tuple[SurveyConfig, ...], BeforeValidator(_as_list)] = Field(
        min_length=1,
        description="where the pixels come from; several [[survey]] are joined as bands of one cutout",
    )
    objects: ObjectsConfig = Field(description="which objects")
    plan: PlanConfig = Field(default_factory=PlanConfig, description="how the sky is divided")
    cutouts: CutoutsConfig = Field(default_factory=CutoutsConfig, description="the cutout store")
    flags: FlagsConfig = Field(default_factory=FlagsConfig, description="thresholds of the pixel flags")
    models: tuple[ModelConfig, ...] = Field(
        min_length=1, description="the networks to run, one [[models]] each"
    )
    posterior: PosteriorConfig = Field(default_factory=PosteriorConfig, description="sampling and summary")
    catalog: CatalogConfig = Field(default_factory=CatalogConfig, description="the result")
    cluster: ClusterConfig = Field(default_factory=ClusterConfig, description="where workers come from")

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands of all surveys."""
        return tuple(band for survey in self.survey for band in survey.run_bands)

    @model_validator(mode="after")
    def _bands_differ(self) -> RunConfig:
        twice = sorted({band for band in self.bands if self.bands.count(band) > 1})
        if twice:
            raise ValueError(
                f"[survey] bands must differ, named twice: {', '.join(twice)}; give each [[survey]] a name"
            )
        return self

    @model_validator(mode="after")
    def _psf_columns_are_of_bands(self) -> RunConfig:
        if other := sorted(set(self.objects.psf_fwhm_arcsec) - set(self.bands)):
            raise ValueError(
                f"[objects] psf_fwhm_arcsec: {', '.join(other)}: no such band; there are {', '.join(self.bands)}"
            )
        return self

    @model_validator(mode="after")
    def _model_names_differ(self) -> RunConfig:
        names = [model.name for model in self.models]
        if len(set(names)) != len(names):
            raise ValueError(f"[[models]] names must differ, found {names}")
        return self

    def with_cluster(
        self, *, workers: int | None = None, kind: str | None = None, scheduler: str | None = None
    ) -> RunConfig:
        """The same run with other workers; None keeps what run.toml says, and an address is joined.

        Raises
        ------
        ConfigError
            There is no such kind, or what is asked for does not go together.
        """
        kinds = get_args(ClusterConfig.model_fields["kind"].annotation)
        if kind is not None and kind not in kinds:
            near = difflib.get_close_matches(kind, kinds, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"--cluster {kind}: expected {', '.join(kinds[:-1])} or {kinds[-1]}{hint}")
        if scheduler is not None and kind not in (None, "scheduler"):
            raise ConfigError(
                f"--scheduler {scheduler} joins a running scheduler, --cluster {kind} starts workers: give one of them"
            )
        if scheduler is not None:
            kind = "scheduler"
        data = self.cluster.model_dump()
        if kind is not None and kind != self.cluster.kind:
            # What belongs to run.toml's own kind does not go along with another.
            data |= {"scheduler": None, "device": data["device"] if kind == "scheduler" else "cpu"}
        changes = {"workers": workers, "kind": kind, "scheduler": scheduler}
        data |= {key: value for key, value in changes.items() if value is not None}
        cluster = parse_strictly(ClusterConfig, data, "[cluster]")
        return self.model_copy(update={"cluster": cluster})


T = TypeVar("T")


def parse_strictly(kind: type[T], data: Any, source: str) -> T:
    """Validate `data` as `kind`, a pydantic model or dataclass.

    Raises
    ------
    ConfigError
        One line for each thing wrong, beginning with `source` and the key; unknown keys come with the
        nearest known one.
    """
    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        problems = [dict(problem) for problem in error.errors(include_url=False)]
        # A list whose only item is wrong is also reported as empty: that line would mislead.
        told = [p for p in problems if not (p["type"] == "too_short" and p["input"])]
        lines = [_explain(kind, problem, source) for problem in told]
        raise ConfigError("\n".join(lines)) from None


def _explain(kind: type[Any], problem: dict[str, Any], source: str) -> str:
    location = problem["loc"]
    section = "".join(f"[{part}] " for part in location[:-1] if isinstance(part, str))
    key = str(location[-1]) if location else ""
    if not location or (problem["type"] == "value_error" and isinstance(location[-1], int)):
        # Of several keys together: the message names them.
        return f"{source}: {section}{problem['msg'].removeprefix('Value error, ')}"
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        near = difflib.get_close_matches(key, _known_keys(kind, location[:-1]), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{source}: {section}{key}: unknown key{hint}"
    if problem["type"] == "missing":
        return f"{source}: {section}{key}: missing; it has no default"
    message = problem["msg"].removeprefix("Value error, ")
    found = "" if problem["type"] == "value_error" else f" (found {problem['input']!r})"
    return f"{source}: {section}{key}: {message}{found}"


def _known_keys(kind: Any, location: tuple[Any, ...]) -> list[str]:
    """Names of the keys of the class that stands at `location` below `kind`."""
    for part in location:
        if isinstance(part, int):
            continue
        kind = _fields(kind).get(part, kind)
        while getattr(kind, "__args__", None):
            kind = kind.__args__[0]
    return list(_fields(kind))


def _fields(kind: Any) -> dict[str, Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: info.annotation for name, info in kind.model_fields.items()}
    return {name: info.type for name, info in getattr(kind, "__dataclass_fields__", {}).items()}


def read_config(path: str | Path) -> RunConfig:
    """Read and validate run.toml.

    Relative paths in it become absolute: they are relative to run.toml's folder.

    Raises
    ------
    ConfigError
        The file is not there, is no TOML, or holds an unknown key or a value out of range.
    """
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is no TOML: {error}") from None
    return _resolved(parse_strictly(RunConfig, data, source=path.name), path.resolve().parent)


def _resolved_survey(survey: SurveyConfig, absolute: Callable[[str], str]) -> SurveyConfig:
    changes: dict[str, Any] = {"tiles": absolute(survey.tiles)}
    if survey.stamps.catalog:
        catalog = absolute(survey.stamps.catalog)
        changes["stamps"] = survey.stamps.model_copy(update={"catalog": catalog})
    return survey.model_copy(update=changes)


def _resolved(config: RunConfig, folder: Path) -> RunConfig:
    def absolute(location: str) -> str:
        if "://" in location or location.startswith("demo:"):
            return location
        return str(folder / Path(location).expanduser())

    return config.model_copy(
        update={
            "survey": tuple(_resolved_survey(survey, absolute) for survey in config.survey),
            "objects": config.objects.model_copy(update={"path": absolute(config.objects.path)}),
            "cutouts": config.cutouts.model_copy(update={"store": absolute(config.cutouts.store)}),
            "models": tuple(
                m.model_copy(update={"bundle": tuple(map(absolute, m.bundle))}) for m in config.models
            ),
            "catalog": config.catalog.model_copy(update={"path": absolute(config.catalog.path)}),
        }
    )
