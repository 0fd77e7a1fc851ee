"""The fields of a bundle's metadata: input, head, parameters, domain, calibration, origin.

Frozen dataclasses; `parse_metadata` makes them from JSON and refuses unknown keys and wrong types.
"""

# No postponed annotations: config looks for the nearest known key in the classes the fields name.
import math
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

__all__ = [
    "STRICT",
    "AuxiliaryInput",
    "BundleMetadata",
    "CalibrationInfo",
    "DomainInfo",
    "HeadInfo",
    "HeadOptions",
    "InputInfo",
    "LabelInfo",
    "ParameterInfo",
    "Range",
    "ResultTable",
]

STRICT: dict[str, Any] = {"extra": "forbid"}  # read by config.parse_strictly
Range = tuple[float, float]


@dataclass(frozen=True)
class AuxiliaryInput:
    """A number per object that a network takes with the image, such as E(B-V) or a catalog color.

    Attributes
    ----------
    name : of the column of the object list, unless ``[[models]] auxiliary_inputs`` names another
    unit : VOUnits, "" for none
    description : for human readers
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    name: str
    unit: str = ""
    description: str = ""


@dataclass(frozen=True)
class InputInfo:
    """The images a network takes: (object, band, y, x) float32.

    Attributes
    ----------
    bands : names of the bands, in the order of the axis
    size_px, pixel_scale_arcsec : the grid
    unit : name of the pixel unit
    zero_point_mag : AB zero point of the unit: 27.0 for HSC's ADU, 31.4 for nJy
    background : what was done to the sky before; words before a colon are compared with the survey's
    release : data release of the training images; "" if they are of none
    auxiliary_inputs : numbers per object that the script's `prefix` takes as a second argument, (object, auxiliary
        input) float32
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    bands: tuple[str, ...]
    size_px: int
    pixel_scale_arcsec: float
    unit: str
    zero_point_mag: float
    background: str = ""
    release: str = ""
    auxiliary_inputs: tuple[AuxiliaryInput, ...] = ()

    def problems(self) -> list[str]:
        """Return what contradicts itself; empty if nothing does."""
        problems = []
        if self.size_px < 1 or self.pixel_scale_arcsec <= 0 or not self.bands:
            problems.append("input must have a size, a pixel scale above 0 and bands")
        names = [one.name for one in self.auxiliary_inputs]
        if len(set(names)) != len(names):
            problems.append(f"input: auxiliary_inputs must differ in name, found {names}")
        return problems


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """The options of heads, each of which belongs to some kinds; the settings of a training have the same fields.

    Attributes
    ----------
    edges : of a binned head, for each parameter the rising edges of its bins, in its physical unit; None for other kinds
    components : of a mixture head, the number of its Gaussians; 0 for other kinds
    """

    edges: Annotated[
        tuple[tuple[float, ...], ...] | None,
        Field(description="binned: the rising edges of each parameter's bins, in its physical unit"),
    ] = None
    components: Annotated[int, Field(ge=0, description="mixture: the number of Gaussians")] = 0


@dataclass(frozen=True)
class HeadInfo(HeadOptions):
    """How the outputs of a pass are read; each kind's file in heads/ says how they are laid out.

    Attributes
    ----------
    kind : name of the kind of head
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    kind: str


@dataclass(frozen=True)
class LabelInfo:
    """A label for objects whose median lies at or between the limits; the first that fits is taken."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    text: str
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class ParameterInfo:
    """One parameter: output = (transform(value) - location) / scale.

    Attributes
    ----------
    name : as in the catalog's columns, with the unit's suffix
    unit : VOUnits, "" for none
    description : for the catalog
    transform : logit, ln, log10 or identity
    location, scale : of the transformed values, from the training set
    limits : logit: values at or beyond them become exactly 0 and 1. Others: values are clamped to them
    training_range : smallest and largest value seen in training; a median outside sets EXTRAPOLATED
    magnitude : name of the AB magnitude derived from this flux in nJy; None for no such columns
    labels : texts for ranges of the median
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    name: str
    unit: str
    description: str
    transform: Literal["logit", "ln", "log10", "identity"]
    location: float = 0.0
    scale: float = 1.0
    limits: Range | None = None
    training_range: Range | None = None
    magnitude: str | None = None
    labels: tuple[LabelInfo, ...] = ()

    def problems(self) -> list[str]:
        """Return what contradicts itself; empty if nothing does."""
        problems = []
        if self.scale <= 0:
            problems.append(f"scale must be above 0, found {self.scale}")
        if self.transform == "logit" and self.limits is None:
            problems.append("logit needs limits, such as [0.01, 0.99]")
        if self.limits is not None:
            low, high = self.limits
            if low >= high:
                problems.append(f"limits must rise, found {self.limits}")
            elif self.transform == "logit" and not 0 <= low < high <= 1:
                problems.append(f"limits of a logit must lie in [0, 1], found {self.limits}")
        if self.magnitude is not None and self.unit != "nJy":
            problems.append("a magnitude is derived from nJy only")
        return [f"parameter {self.name}: {problem}" for problem in problems]


@dataclass(frozen=True)
class DomainInfo:
    """The range of the training set. An object outside any of it gets OUT_OF_DOMAIN; None: not checked.

    Background product and release of the training images are the input's; a plan compares them with the survey's.

    Attributes
    ----------
    psf_fwhm_arcsec, sky_sigma_njy : ranges, one per band
    flux_njy : range of the stamp's light in the brightest band, for human readers. Not checked: the sum over a stamp is
        mostly sky and neighbors for all but bright galaxies, and fluxes outside the training range are EXTRAPOLATED
    features_mean, features_covariance : of the last features (pass without dropout)
    distance_limit : largest Mahalanobis distance of the last features; ``<model>_ood_distance`` is in units of it
    crop_limits : the transformer's scale s in the training set; at or beyond them: CROP_AT_LIMIT
    false_alarm_rate : share of objects like those trained on that get OUT_OF_DOMAIN, all checks together; None: unknown
    n_held_out : objects that nothing was fitted to, on which the limits were found for this rate
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    psf_fwhm_arcsec: tuple[Range, ...] | None = None
    sky_sigma_njy: tuple[Range, ...] | None = None
    flux_njy: Range | None = None
    features_mean: tuple[float, ...] | None = None
    features_covariance: tuple[tuple[float, ...], ...] | None = None
    distance_limit: float | None = None
    crop_limits: Range | None = None
    false_alarm_rate: float | None = None
    n_held_out: int = 0

    def problems(self, n_bands: int) -> list[str]:
        """Return what contradicts itself, or the number of bands; empty if nothing does."""
        problems = []
        for name in ("psf_fwhm_arcsec", "sky_sigma_njy"):
            ranges = getattr(self, name)
            if ranges is not None and len(ranges) != n_bands:
                problems.append(f"{name} has {len(ranges)} ranges for {n_bands} bands")
        if self.false_alarm_rate is not None and not 0 <= self.false_alarm_rate < 1:
            problems.append(f"false_alarm_rate must lie in [0, 1), found {self.false_alarm_rate}")
        feature = (self.features_mean, self.features_covariance, self.distance_limit)
        if sum(value is None for value in feature) not in (0, 3):
            problems.append("features_mean, features_covariance and distance_limit go together")
        elif self.features_mean is not None and self.features_covariance is not None:
            n = len(self.features_mean)
            if {len(self.features_covariance), *map(len, self.features_covariance)} != {n}:
                problems.append(f"features_covariance is not {n} x {n}")
            elif not _is_positive_definite(self.features_covariance):
                problems.append("features_covariance is not positive definite, so distances have no meaning")
        return [f"domain: {problem}" for problem in problems]


@dataclass(frozen=True)
class ResultTable:
    """A table in a model card: its caption, the columns' heads, the rows (None: no value)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int | None, ...], ...]


@dataclass(frozen=True)
class CalibrationInfo:
    """The result of a calibration, and the correction that follows from it.

    Attributes
    ----------
    inflation_factors : for each parameter: the posterior of every object is inflated by it, in the transformed space,
        about its mean over passes; None: no correction is known
    apply : whether runs inflate unless ``[[models]] calibrated`` says otherwise
    n_objects : held-out objects that the factors were found on; the results are of others
    data : what those objects were
    results : on objects that neither training nor calibration saw
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    inflation_factors: tuple[float, ...] | None = None
    apply: bool = True
    n_objects: int = 0
    data: str = ""
    results: tuple[ResultTable, ...] = ()

    def problems(self, n_parameters: int) -> list[str]:
        """Return what contradicts the number of parameters; empty if nothing does."""
        factors = self.inflation_factors
        if factors is None or (len(factors) == n_parameters and all(0 < f < math.inf for f in factors)):
            return []
        return [f"calibration: {n_parameters} inflation_factors above 0 needed, found {list(factors)}"]


@dataclass(frozen=True)
class BundleMetadata:
    """The metadata of a bundle.

    Attributes
    ----------
    name, version : of the network
    architecture : gampen, sfnet or another name; the script itself says what is computed
    input, head, parameters, domain : described at their own classes
    dropout_rate : of every dropout layer; 0: the passes do not differ
    n_top_features : the k of SFNet; 0 for networks without such features
    members : networks in the script: a pass puts out `members` times the outputs of one, one member after another
    calibration : None: never calibrated
    training_data, training : what it was trained on, and with which settings
    origin : of converted networks: the files, their hashes, the settings of the conversion
    licence, citation : of the weights
    format : version of this description
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    name: str
    version: str
    architecture: str
    input: InputInfo
    head: HeadInfo
    parameters: tuple[ParameterInfo, ...]
    dropout_rate: float
    domain: DomainInfo = DomainInfo()
    n_top_features: int = 0
    members: int = 1
    calibration: CalibrationInfo | None = None
    training_data: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    citation: str = ""
    format: int = 1

    def problems(self) -> list[str]:
        """Return what contradicts itself, but for the head, whose kinds are known above; empty if nothing does."""
        names = [parameter.name for parameter in self.parameters]
        problems = []
        if self.format != 1:
            problems.append(f"format {self.format} is not known; this version of galbatch reads format 1")
        if not names or len(set(names)) != len(names):
            problems.append(f"parameters must be there and differ in name, found {names}")
        if not 0 <= self.dropout_rate < 1:
            problems.append(f"dropout_rate must lie in [0, 1), found {self.dropout_rate}")
        if self.members < 1:
            problems.append(f"members must be 1 or more, found {self.members}")
        problems += self.input.problems()
        for parameter in self.parameters:
            problems += parameter.problems()
        problems += self.domain.problems(len(self.input.bands))
        return problems + (self.calibration.problems(len(names)) if self.calibration is not None else [])


def _is_positive_definite(matrix: tuple[tuple[float, ...], ...]) -> bool:
    try:
        np.linalg.cholesky(np.asarray(matrix))
    except np.linalg.LinAlgError:
        return False
    return True
