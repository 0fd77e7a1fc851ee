"""What a bundle says of itself: input, head, parameters, domain, origin. Stored in it as galbatch.json.

Frozen dataclasses, validated strictly: unknown keys and wrong types are errors.
"""

# No postponed annotations: config looks for the nearest known key in the classes the fields name.
import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from galbatch.config import parse_strictly
from galbatch.errors import BundleError, ConfigError
from galbatch.models.metadata.names import with_current_names

__all__ = [
    "AuxiliaryInput",
    "BundleMetadata",
    "CalibrationInfo",
    "DomainInfo",
    "HeadInfo",
    "InputInfo",
    "LabelInfo",
    "ParameterInfo",
    "ResultTable",
    "head_outputs",
    "read_metadata",
    "write_metadata",
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
    description : for people
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


@dataclass(frozen=True)
class HeadInfo:
    """How the outputs of a pass are read, for n parameters.

    gaussian: n means, n log d_i and n (n - 1) / 2 entries of L, in the order (1,0), (2,0), (2,1), ...;
    the covariance is L D L^T. point: n values. binned: for each parameter a logit per bin, whose softmax is
    the bins' probabilities. mixture: `components` logits of weights, then for each component n means, then for
    each n log sigma (not squared); within a component the parameters are independent.

    Attributes
    ----------
    kind : which
    edges : binned: for each parameter the rising edges of its bins, in its physical unit; else None
    components : mixture: how many; else 0
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    kind: Literal["gaussian", "point", "binned", "mixture"]
    edges: tuple[tuple[float, ...], ...] | None = None
    components: int = 0


@dataclass(frozen=True)
class LabelInfo:
    """A word for objects whose median lies at or between the limits; the first that fits is taken."""

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
    labels : words for ranges of the median
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


@dataclass(frozen=True)
class DomainInfo:
    """What the training set looked like. An object outside any of it gets OUT_OF_DOMAIN; None: not checked.

    Background product and release of the training images are the input's; a plan compares them with the survey's.

    Attributes
    ----------
    psf_fwhm_arcsec, sky_sigma_njy : ranges, one per band
    flux_njy : range of the stamp's light in the brightest band; for people. Not checked: the sum over a stamp is
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


@dataclass(frozen=True)
class ResultTable:
    """A table for people in a model card: its caption, the columns' heads, the rows (None: no value)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int | None, ...], ...]


@dataclass(frozen=True)
class CalibrationInfo:
    """What a calibration found, and the correction that follows from it.

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


@dataclass(frozen=True)
class BundleMetadata:
    """All a bundle says of itself.

    Attributes
    ----------
    name, version : of the network
    architecture : gampen, sfnet or another name; the script itself says what is computed
    input, head, parameters, domain : see there
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

    @property
    def n_outputs(self) -> int:
        """Numbers a pass puts out for a row."""
        return self.members * head_outputs(self.head, len(self.parameters))


def head_outputs(head: HeadInfo, n_parameters: int) -> int:
    """Numbers that one network with this head puts out for `n_parameters` parameters."""
    n = n_parameters
    if head.kind == "gaussian":
        return (3 * n + n * n) // 2
    if head.kind == "binned":
        return sum(len(edges) - 1 for edges in head.edges or ())
    return head.components * (1 + 2 * n) if head.kind == "mixture" else n


def write_metadata(metadata: BundleMetadata) -> str:
    """As JSON.

    Raises
    ------
    BundleError
        It holds numbers that are not finite.
    """
    try:
        return json.dumps(dataclasses.asdict(metadata), allow_nan=False)
    except ValueError:
        raise BundleError(f"{metadata.name}: its metadata hold numbers that are not finite") from None


def read_metadata(text: str | bytes, source: str) -> BundleMetadata:
    """From JSON.

    Raises
    ------
    BundleError
        It is no JSON, has unknown or missing keys, or values that contradict each other.
    """
    try:
        metadata = parse_strictly(
            BundleMetadata,
            with_current_names(json.loads(text, parse_constant=_no_number)),
            source=f"{source}: galbatch.json",
        )
    except ValueError as error:  # of JSON, or of its encoding
        raise BundleError(f"{source}: galbatch.json is no JSON: {error}") from None
    except ConfigError as error:
        raise BundleError(str(error)) from None
    problems = _contradictions(metadata)
    if problems:
        raise BundleError("\n".join(f"{source}: galbatch.json: {problem}" for problem in problems))
    return metadata


def _no_number(constant: str) -> float:
    raise ValueError(f"{constant} is no number")


def _contradictions(metadata: BundleMetadata) -> list[str]:
    names = [parameter.name for parameter in metadata.parameters]
    problems = []
    if metadata.format != 1:
        problems.append(f"format {metadata.format} is not known; this version of galbatch reads format 1")
    if not names or len(set(names)) != len(names):
        problems.append(f"parameters must be there and differ in name, found {names}")
    if not 0 <= metadata.dropout_rate < 1:
        problems.append(f"dropout_rate must lie in [0, 1), found {metadata.dropout_rate}")
    if metadata.input.size_px < 1 or metadata.input.pixel_scale_arcsec <= 0 or not metadata.input.bands:
        problems.append("input must have a size, a pixel scale above 0 and bands")
    auxiliary = [one.name for one in metadata.input.auxiliary_inputs]
    if len(set(auxiliary)) != len(auxiliary):
        problems.append(f"input: auxiliary_inputs must differ in name, found {auxiliary}")
    if metadata.members < 1:
        problems.append(f"members must be 1 or more, found {metadata.members}")
    problems += _parameter_problems(metadata) + _head_problems(metadata) + _domain_problems(metadata)
    return problems


def _head_problems(metadata: BundleMetadata) -> list[str]:
    head, n = metadata.head, len(metadata.parameters)
    problems = []
    if (head.kind == "binned") != (head.edges is not None):
        problems.append(f"head {head.kind}: edges belong to a binned head, and to no other")
    if head.edges is not None:
        if len(head.edges) != n:
            problems.append(f"head: {len(head.edges)} lists of edges for {n} parameters")
        if any(len(edges) < 2 or list(edges) != sorted(set(edges)) for edges in head.edges):
            problems.append("head: each parameter needs two edges or more, rising")
    if (head.kind == "mixture") != (head.components > 0):
        problems.append(f"head {head.kind}: components must be 1 or more for a mixture, and 0 for others")
    factors = None if metadata.calibration is None else metadata.calibration.inflation_factors
    if factors is not None and (len(factors) != n or not all(0 < factor < math.inf for factor in factors)):
        problems.append(f"calibration: {n} inflation_factors above 0 needed, found {list(factors)}")
    return problems


def _parameter_problems(metadata: BundleMetadata) -> list[str]:
    problems = []
    for parameter in metadata.parameters:
        if parameter.scale <= 0:
            problems.append(f"parameter {parameter.name}: scale must be above 0, found {parameter.scale}")
        if parameter.transform == "logit" and parameter.limits is None:
            problems.append(f"parameter {parameter.name}: logit needs limits, such as [0.01, 0.99]")
        if parameter.limits is not None and parameter.limits[0] >= parameter.limits[1]:
            problems.append(f"parameter {parameter.name}: limits must rise, found {parameter.limits}")
        elif parameter.transform == "logit" and not _within_0_1(parameter.limits or (0.0, 1.0)):
            problems.append(
                f"parameter {parameter.name}: limits of a logit must lie in [0, 1], found {parameter.limits}"
            )
        if parameter.magnitude is not None and parameter.unit != "nJy":
            problems.append(f"parameter {parameter.name}: a magnitude is derived from nJy only")
    return problems


def _within_0_1(limits: Range) -> bool:
    return limits[0] >= 0 and limits[1] <= 1


def _domain_problems(metadata: BundleMetadata) -> list[str]:
    domain, n_bands = metadata.domain, len(metadata.input.bands)
    problems = [
        f"domain: {name} has {len(ranges)} ranges for {n_bands} bands"
        for name, ranges in (
            ("psf_fwhm_arcsec", domain.psf_fwhm_arcsec),
            ("sky_sigma_njy", domain.sky_sigma_njy),
        )
        if ranges is not None and len(ranges) != n_bands
    ]
    if domain.false_alarm_rate is not None and not 0 <= domain.false_alarm_rate < 1:
        problems.append(f"domain: false_alarm_rate must lie in [0, 1), found {domain.false_alarm_rate}")
    feature = (domain.features_mean, domain.features_covariance, domain.distance_limit)
    if sum(value is None for value in feature) not in (0, 3):
        problems.append("domain: features_mean, features_covariance and distance_limit go together")
    elif domain.features_mean is not None and domain.features_covariance is not None:
        n_features = len(domain.features_mean)
        if {len(domain.features_covariance), *map(len, domain.features_covariance)} != {n_features}:
            problems.append(f"domain: features_covariance is not {n_features} x {n_features}")
        elif not _is_positive_definite(domain.features_covariance):
            problems.append(
                "domain: features_covariance is not positive definite, so distances have no meaning"
            )
    return problems


def _is_positive_definite(covariance: tuple[tuple[float, ...], ...]) -> bool:
    try:
        np.linalg.cholesky(np.asarray(covariance))
    except np.linalg.LinAlgError:
        return False
    return True
