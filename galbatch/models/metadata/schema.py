"""The fields of a bundle's metadata: head, parameters, domain, calibration, origin.

Frozen dataclasses; `parse_metadata` makes them from JSON and refuses unknown keys and wrong types.
"""

# No postponed annotations: config looks for the nearest known key in the classes the fields name.
import math
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from galbatch.core.columns import Statistic
from galbatch.core.ucds import is_redshift, quantity_ucd, ucd_problems
from galbatch.models.metadata.disagreement import DisagreementInfo
from galbatch.models.metadata.inputs import STRICT, InputInfo
from galbatch.models.metadata.prior import PriorInfo
from galbatch.models.metadata.stopping import StoppingInfo

__all__ = [
    "BundleMetadata",
    "CalibrationInfo",
    "DomainInfo",
    "HeadInfo",
    "HeadOptions",
    "LabelInfo",
    "ParameterInfo",
    "Range",
    "ResultTable",
]

Range = tuple[float, float]
# Each share is a pass to summarize; with a hundred, any weight is met to half a percent.
MOST_SHARES = 100


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """Options that only some kinds of heads have. They are fields of the settings of a training, too.

    Attributes
    ----------
    edges : edges of the bins of a binned head: for each parameter a rising sequence in its physical unit; None for other kinds
    components : number of Gaussians of a mixture head; 0 for other kinds
    length : number of numbers of a vector head; 0 for other kinds
    """

    edges: Annotated[
        tuple[tuple[float, ...], ...] | None,
        Field(description="binned: the rising edges of each parameter's bins, in its physical unit"),
    ] = None
    components: Annotated[int, Field(ge=0, description="mixture: the number of Gaussians")] = 0
    length: Annotated[int, Field(ge=0, description="vector: how many numbers it has")] = 0


@dataclass(frozen=True)
class HeadInfo(HeadOptions):
    """The head of a network: the kind of distribution that the outputs of a pass stand for, and its options.

    Attributes
    ----------
    kind : name of the kind, such as gaussian; the file of that name in heads/ says how the outputs are laid out
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    kind: str


@dataclass(frozen=True)
class LabelInfo:
    """A label for objects whose median lies between two limits, which are included. The first label that fits is used.

    Attributes
    ----------
    text : the label
    at_least, at_most : limits in the parameter's unit; None: no limit on that side
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    text: str
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class ParameterInfo:
    """One estimated parameter. The network gives its standardized value, (transform(value) - location) / scale.

    Attributes
    ----------
    name : name in the catalog's columns, with the unit's suffix, such as re_arcsec
    unit : unit in VOUnits; "" for a number without unit
    description : description of the catalog's columns
    transform : logit, ln, log10 or identity
    location, scale : mean and standard deviation of the transformed values in the training set
    limits : smallest and largest value, in the parameter's unit. With logit, values at or beyond them become exactly 0 or 1;
        with other transforms values are clamped to them
    training_range : smallest and largest value seen in training; a median outside sets EXTRAPOLATED
    magnitude : name of the AB magnitude that is derived from this flux in nJy; None: no magnitude is derived
    labels : labels for ranges of the median
    ucd : UCD1+ of the quantity, such as src.redshift.phot; "": it follows from name, unit and bands
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
    ucd: str = ""

    @property
    def is_redshift(self) -> bool:
        """Whether the parameter is a redshift, by `ucd` or, without it, by its name; a redshift has no unit."""
        return is_redshift(self.ucd or quantity_ucd(self.name, self.unit, ()), self.unit)

    def problems(self) -> list[str]:
        """Return messages on values that contradict each other; empty if there are none."""
        problems = ucd_problems(self.ucd, (one.ucd for one in Statistic)) if self.ucd else []
        if self.scale <= 0:
            problems.append(f"scale must be above 0, found {self.scale}")
        if self.transform == "logit" and self.limits is None:
            # Without limits a label of 0 or 1 would be infinite after the transform.
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
    """The ranges that the training set covers. An object outside any of them is flagged OUT_OF_DOMAIN; None: not checked.

    The background product and the release of the training images are in `InputInfo`; the plan of a run compares them with
    the survey's.

    Attributes
    ----------
    psf_fwhm_arcsec, sky_sigma_njy : ranges of the PSF's FWHM and of the sky noise per pixel, one per band
    flux_njy : range of the summed pixels of a training image in its brightest band, for human readers. It is not checked:
        for all but bright galaxies the sum is mostly sky and neighbors, and fluxes outside the training range are
        EXTRAPOLATED
    features_mean, features_covariance : mean (feature,) and covariance (feature, feature) of the last features, in the pass
        without dropout
    distance_limit : largest Mahalanobis distance of the last features; ``<model>_ood_distance`` is in units of it
    crop_limits : range of the spatial transformer's scale s in the training set; at or beyond its ends CROP_AT_LIMIT is set
    false_alarm_rate : share of objects like those of the training set that get OUT_OF_DOMAIN, by all checks together; None:
        not known
    n_held_out : number of objects, not used in training, on which the limits were found for this rate
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
        """Return messages on values that contradict each other or the number of bands; empty if there are none."""
        problems = []
        # One range per band: images are checked band by band, in the order of the input's bands.
        for name in ("psf_fwhm_arcsec", "sky_sigma_njy"):
            ranges = getattr(self, name)
            if ranges is not None and len(ranges) != n_bands:
                problems.append(f"{name} has {len(ranges)} ranges for {n_bands} bands")
        if self.false_alarm_rate is not None and not 0 <= self.false_alarm_rate < 1:
            problems.append(f"false_alarm_rate must lie in [0, 1), found {self.false_alarm_rate}")
        # A distance needs all three; with some of them the check would be skipped without a word.
        feature = (self.features_mean, self.features_covariance, self.distance_limit)
        if sum(value is None for value in feature) not in (0, 3):
            problems.append("features_mean, features_covariance and distance_limit go together")
        elif self.features_mean is not None and self.features_covariance is not None:
            n = len(self.features_mean)
            if {len(self.features_covariance), *map(len, self.features_covariance)} != {n}:
                problems.append(f"features_covariance is not {n} x {n}")
            # The Cholesky factor is what distances are computed with, so that a covariance without one is of no use.
            elif not _is_positive_definite(self.features_covariance):
                problems.append("features_covariance is not positive definite, so distances have no meaning")
        return [f"domain: {problem}" for problem in problems]


@dataclass(frozen=True)
class ResultTable:
    """A table in a model card: its caption, the headings of its columns, and its rows, with None for a missing value."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int | None, ...], ...]


@dataclass(frozen=True)
class CalibrationInfo:
    """The result of a calibration, and the correction that follows from it.

    Attributes
    ----------
    inflation_factors : one factor per parameter, by which the posterior of every object is widened about its mean over the
        passes, in the transformed space; None: no correction is known
    apply : whether runs apply the correction where ``[[models]] calibrated`` is not given
    n_objects : number of held-out objects on which the factors were found; the results are those of other objects
    data : description of those objects
    results : tables of results on objects that neither training nor calibration used
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    inflation_factors: tuple[float, ...] | None = None
    apply: bool = True
    n_objects: int = 0
    data: str = ""
    results: tuple[ResultTable, ...] = ()

    def problems(self, n_parameters: int) -> list[str]:
        """Return messages on factors that do not fit the number of parameters; empty if there are none."""
        # A factor of 0 or infinity would make every posterior a point, or flat.
        factors = self.inflation_factors
        if factors is None or (len(factors) == n_parameters and all(0 < f < math.inf for f in factors)):
            return []
        return [f"calibration: {n_parameters} inflation_factors above 0 needed, found {list(factors)}"]


@dataclass(frozen=True)
class BundleMetadata:
    """The metadata of a bundle.

    Attributes
    ----------
    name, version : name and version of the network
    architecture : gampen, sfnet or another name; the script alone decides what is computed
    input, head, parameters, domain : images, kind of output, estimated parameters and ranges of the training set
    dropout_rate : rate of every dropout layer; 0: all passes are equal, unless the network `draws`
    n_top_features : number k of features that SFNet keeps; 0 for networks without such features
    draws : whether passes differ by what the network itself draws, whatever its dropout rate
    member_weights : how many equal shares of the posterior each member has, such as 3, 2, 1; empty: one each
    members : number of networks in the script; a pass returns the outputs of the first member, then those of the next
    calibration : result of a calibration; None: never calibrated
    prior : density of the training labels, under which the posteriors are; None: not known
    stopping : stopping calibration, by which runs decide when an object has enough passes; None: never measured
    disagreement : how estimates relate to the photometry of the cutouts; None: never measured
    training_data, training : description of the training data, and the settings of the training
    origin : for converted networks: the files, their hashes, and the settings of the conversion
    licence, citation : licence of the weights, and what to cite
    format : version of this schema
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
    draws: bool = False
    members: int = 1
    member_weights: tuple[int, ...] = ()
    calibration: CalibrationInfo | None = None
    stopping: StoppingInfo | None = None
    prior: PriorInfo | None = None
    disagreement: DisagreementInfo | None = None
    training_data: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    citation: str = ""
    format: int = 1

    @property
    def passes_differ(self) -> bool:
        """Whether two passes of an object differ, by dropout or by draws of the network's own."""
        return self.dropout_rate > 0 or self.draws

    @property
    def n_shares(self) -> int:
        """The number of equal shares of the posterior that all members have together."""
        return sum(self.member_weights) or self.members

    @property
    def passes_text(self) -> str:
        """Why passes differ, for human readers."""
        own = "draws of the network's own" if self.draws else ""
        dropout = f"Monte Carlo dropout, rate {self.dropout_rate:g}" if self.dropout_rate > 0 else ""
        return " and ".join(part for part in (dropout, own) if part) or "no dropout"

    def problems(self) -> list[str]:
        """Return messages on values that contradict each other; empty if there are none. The head is checked in heads/."""
        # All of them are collected, not the first alone, so that one reading of a description file shows what to correct.
        names = [parameter.name for parameter in self.parameters]
        problems = []
        if self.format != 1:
            problems.append(f"format {self.format} is not known; this version of galbatch reads format 1")
        if not names or len(set(names)) != len(names):
            # The names become those of the catalog's columns.
            problems.append(f"one or more parameters are needed, with different names, found {names}")
        if not 0 <= self.dropout_rate < 1:
            problems.append(f"dropout_rate must lie in [0, 1), found {self.dropout_rate}")
        if self.members < 1:
            problems.append(f"members must be 1 or more, found {self.members}")
        problems += self._weight_problems()
        problems += self.input.problems()
        problems += [text for parameter in self.parameters for text in parameter.problems()]
        n_bands = len(self.input.all_bands)
        problems += self.domain.problems(n_bands)
        if self.disagreement is not None:
            problems += self.disagreement.problems(tuple(names), n_bands)
        of_numbers = (self.stopping, self.prior, self.calibration)
        return problems + [text for one in of_numbers if one is not None for text in one.problems(len(names))]

    def _weight_problems(self) -> list[str]:
        """Return messages on weights of members that do not fit them."""
        weights = self.member_weights
        if not weights:
            return []
        problems = []
        if len(weights) != self.members or min(weights) < 1 or sum(weights) > MOST_SHARES:
            problems.append(
                f"member_weights: a whole number above 0 for each of {self.members} members, {MOST_SHARES} in all at most, "
                f"found {list(weights)}"
            )
        # The Monte Carlo error would count a member's passes once for each of its shares.
        if self.passes_differ:
            problems.append(
                "member_weights: only for members whose passes do not differ, without dropout and draws"
            )
        return problems


def _is_positive_definite(matrix: tuple[tuple[float, ...], ...]) -> bool:
    """Return whether a symmetric matrix has a Cholesky factor."""
    try:
        np.linalg.cholesky(np.asarray(matrix))
    except np.linalg.LinAlgError:
        return False
    return True
