"""A bundle's metadata from JSON and to JSON, and what contradicts itself in it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence

import numpy as np

from galbatch.config import parse_strictly
from galbatch.errors import BundleError, ConfigError
from galbatch.models.metadata.names import with_current_names
from galbatch.models.metadata.schema import BundleMetadata, DomainInfo, HeadInfo, ParameterInfo

__all__ = ["HeadRules", "parse_metadata", "write_metadata"]

HeadRules = Callable[[HeadInfo, Sequence[ParameterInfo]], list[str]]
"""Says what is wrong with a head for these parameters; the registry of heads does."""


def write_metadata(metadata: BundleMetadata) -> str:
    """Return metadata as JSON.

    Raises
    ------
    BundleError
        It holds numbers that are not finite.
    """
    data = dataclasses.asdict(metadata)
    # The kind stands before its options, which it gives a meaning to: a dataclass has inherited fields first.
    data["head"] = {"kind": metadata.head.kind, **data["head"]}
    try:
        return json.dumps(data, allow_nan=False)
    except ValueError:
        raise BundleError(f"{metadata.name}: its metadata hold numbers that are not finite") from None


def parse_metadata(text: str | bytes, source: str, *, head_rules: HeadRules) -> BundleMetadata:
    """Return metadata from JSON; `galbatch.models.heads.read_metadata` does it with the heads that are known.

    Parameters
    ----------
    text : JSON, as `write_metadata` gives it; fields may have the names that older versions wrote
    source : what messages begin with
    head_rules : says what is wrong with the head

    Raises
    ------
    BundleError
        It is no JSON, has unknown or missing keys, or values that contradict each other.
    """

    def refuse_constant(constant: str) -> float:
        raise ValueError(f"{constant} is no number")

    try:
        data = with_current_names(json.loads(text, parse_constant=refuse_constant))
        metadata = parse_strictly(BundleMetadata, data, source=f"{source}: galbatch.json")
    except ValueError as error:  # of JSON, or of its encoding
        raise BundleError(f"{source}: galbatch.json is no JSON: {error}") from None
    except ConfigError as error:
        raise BundleError(str(error)) from None
    problems = [
        *_network_problems(metadata),
        *_parameter_problems(metadata.parameters),
        *head_rules(metadata.head, metadata.parameters),
        *_calibration_problems(metadata),
        *_domain_problems(metadata.domain, n_bands=len(metadata.input.bands)),
    ]
    if problems:
        raise BundleError("\n".join(f"{source}: galbatch.json: {problem}" for problem in problems))
    return metadata


def _network_problems(metadata: BundleMetadata) -> list[str]:
    names = [parameter.name for parameter in metadata.parameters]
    auxiliary = [one.name for one in metadata.input.auxiliary_inputs]
    problems = []
    if metadata.format != 1:
        problems.append(f"format {metadata.format} is not known; this version of galbatch reads format 1")
    if not names or len(set(names)) != len(names):
        problems.append(f"parameters must be there and differ in name, found {names}")
    if not 0 <= metadata.dropout_rate < 1:
        problems.append(f"dropout_rate must lie in [0, 1), found {metadata.dropout_rate}")
    if metadata.input.size_px < 1 or metadata.input.pixel_scale_arcsec <= 0 or not metadata.input.bands:
        problems.append("input must have a size, a pixel scale above 0 and bands")
    if len(set(auxiliary)) != len(auxiliary):
        problems.append(f"input: auxiliary_inputs must differ in name, found {auxiliary}")
    if metadata.members < 1:
        problems.append(f"members must be 1 or more, found {metadata.members}")
    return problems


def _calibration_problems(metadata: BundleMetadata) -> list[str]:
    n = len(metadata.parameters)
    factors = None if metadata.calibration is None else metadata.calibration.inflation_factors
    if factors is None or (len(factors) == n and all(0 < factor < math.inf for factor in factors)):
        return []
    return [f"calibration: {n} inflation_factors above 0 needed, found {list(factors)}"]


def _parameter_problems(parameters: Sequence[ParameterInfo]) -> list[str]:
    problems = []
    for parameter in parameters:
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


def _within_0_1(limits: tuple[float, float]) -> bool:
    return limits[0] >= 0 and limits[1] <= 1


def _domain_problems(domain: DomainInfo, *, n_bands: int) -> list[str]:
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
