"""Cutouts in, result columns out: the one place where a network meets a block."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from galbatch.config import PosteriorConfig
from galbatch.errors import BundleError, NotInThisVersion
from galbatch.models.bundle import Bundle
from galbatch.models.domain import feature_distance
from galbatch.models.heads import Passes, correlation_of, read_passes
from galbatch.models.keys import draw_keys, member_keys
from galbatch.models.metadata import BundleMetadata, ParameterInfo
from galbatch.models.posterior import Summary, quantities_of, summarize_draws, summarize_mixture
from galbatch.models.results import quantile_suffix, result_columns
from galbatch.types import CutoutBlock, ModelFlag, njy_per_unit

__all__ = ["RawPasses", "infer_block", "run_passes"]

PREFIX_OBJECTS = 16  # a full GaMPEN's first maps are 15 MB an object at 239 px
CACHE_BYTES = (
    8 * 2**20
)  # of first maps a batch may hold: beyond the processor's cache a pass takes 1.5 times as long
CENTER_PX = 1  # a NaN this near the central pixel leaves nothing to measure
SINGLE_PASS = 1  # without dropout all passes are equal

Values = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class RawPasses:
    """What the script gave for some objects.

    Attributes
    ----------
    outputs : (object, pass, output) float32
    last : (object, feature) float32, without dropout; None if the script has none
    crop : (object,) float32, the transformer's scale; None if the script has none
    top_index, top_activation : (object, rank) int64 and float32; None if the script has none
    """

    outputs: npt.NDArray[np.float32]
    last: npt.NDArray[np.float32] | None = None
    crop: npt.NDArray[np.float32] | None = None
    top_index: npt.NDArray[np.int64] | None = None
    top_activation: npt.NDArray[np.float32] | None = None


def infer_block(
    bundle: Bundle,
    cutouts: CutoutBlock,
    *,
    name: str,
    posterior: PosteriorConfig,
    selected: npt.NDArray[np.bool_],
) -> Values:
    """Run a network on a block.

    Parameters
    ----------
    bundle : the network
    cutouts : on the bundle's grid, with as many bands as it takes, in its order
    name : prefix of the columns
    posterior : passes, quantiles, seed, batch
    selected : (object,) bool; the others get no values and NOT_SELECTED

    Returns
    -------
    One array (object,) per result column. NaN, null, -1: no value, and then a flag says why.

    Raises
    ------
    BundleError
        The cutouts' grid or number of bands is not the bundle's.
    NotInThisVersion
        ``passes = "adaptive"``.
    """
    _check_cutouts(bundle, cutouts)
    n_passes = _number_of_passes(bundle.metadata, posterior)
    columns = result_columns(bundle.metadata, name=name, posterior=posterior)
    values: Values = {column.name: _empty(column.dtype, column.name, len(cutouts)) for column in columns}
    flags = np.where(selected, 0, int(ModelFlag.NOT_SELECTED)).astype(np.int32)
    images, gaps, hopeless = _cleaned(cutouts.image)
    flags[selected & gaps] |= ModelFlag.NONFINITE_INPUT
    rows = np.flatnonzero(selected & ~hopeless)
    if len(rows):
        keys = draw_keys(
            cutouts.object_id[rows],
            seed=posterior.seed,
            bundle_sha256=bundle.sha256,
            passes=np.arange(n_passes),
        )
        images = images[rows] * np.float32(1.0 / njy_per_unit(bundle.metadata.input.zero_point_mag))
        raw = run_passes(bundle, images, keys, batch=posterior.batch)
        finite = np.asarray(np.isfinite(raw.outputs).all(axis=(1, 2)))
        flags[rows[~finite]] |= ModelFlag.MODEL_FAILED
        found = _summarize(bundle.metadata, raw, keys, posterior)
        good = _all_finite(found, finite)
        flags[rows[finite & ~good]] |= ModelFlag.MODEL_FAILED
        for key, column in found.items():
            values[f"{name}_{key}"][rows[good]] = column[good]
        values[f"{name}_passes"][rows] = n_passes
        flags[rows[good]] |= _value_flags(bundle.metadata, found, posterior)[good]
        flags[rows] |= _input_flags(bundle.metadata, raw, cutouts, rows)
    values[f"{name}_flags"] = flags
    return values


def _check_cutouts(bundle: Bundle, cutouts: CutoutBlock) -> None:
    if cutouts.grid != bundle.grid:
        raise BundleError(
            f"{bundle.metadata.name}: takes cutouts of {bundle.grid.label}, given {cutouts.grid.label}"
        )
    if len(cutouts.bands) != len(bundle.bands):
        raise BundleError(
            f"{bundle.metadata.name}: takes {len(bundle.bands)} bands ({', '.join(bundle.bands)}), "
            f"given {', '.join(cutouts.bands) or 'none'}"
        )


def _number_of_passes(metadata: BundleMetadata, posterior: PosteriorConfig) -> int:
    if not isinstance(posterior.passes, int):
        raise NotInThisVersion(
            '[posterior] passes = "adaptive" is not in this version; give a number, such as 64'
        )
    if metadata.dropout_rate == 0 and (posterior.method == "mixture" or metadata.head.kind == "point"):
        return SINGLE_PASS
    return posterior.passes


def _empty(dtype: str, name: str, n_objects: int) -> npt.NDArray[Any]:
    """What stands where there is no value."""
    if dtype == "string":
        return np.full(n_objects, None, dtype=object)
    if np.dtype(dtype).kind == "f":
        return np.full(n_objects, np.nan, dtype)
    return np.full(n_objects, 0 if name.endswith(("_passes", "_flags")) else -1, dtype)


def _cleaned(
    image: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Images with 0 for non-finite pixels; (object,) which had some; which have a band or center without light."""
    finite = np.isfinite(image)
    gaps = np.asarray(~finite.all(axis=(1, 2, 3)))
    middle = image.shape[-1] // 2
    center = slice(max(0, middle - CENTER_PX), middle + CENTER_PX + 1)
    no_center = np.asarray(~finite[:, :, center, center].all(axis=(1, 2, 3)))
    no_band = ~np.asarray(finite.any(axis=(2, 3))).all(axis=1)
    cleaned = np.where(finite, image, np.float32(0.0))
    return cleaned, gaps, np.asarray(no_center | no_band)


@torch.inference_mode()
def run_passes(
    bundle: Bundle, images: npt.NDArray[np.float32], keys: npt.NDArray[np.int64], *, batch: int
) -> RawPasses:
    """Run the network: the prefix once an object, then one row for each object and pass.

    Parameters
    ----------
    bundle : the network
    images : (object, band, y, x) float32, finite, in the bundle's unit
    keys : (object, pass) int64
    batch : rows a forward sees at most
    """
    groups = []
    for start in range(0, len(images), PREFIX_OBJECTS):
        group = slice(start, start + PREFIX_OBJECTS)
        groups.append(_run_group(bundle, torch.from_numpy(images[group]), keys[group], batch))
    joined: dict[str, Any] = {}
    for field in dataclasses.fields(RawPasses):
        parts = [getattr(group, field.name) for group in groups]
        joined[field.name] = None if parts[0] is None else np.concatenate(parts)
    return RawPasses(**joined)


def _run_group(bundle: Bundle, images: torch.Tensor, keys: npt.NDArray[np.int64], batch: int) -> RawPasses:
    features = bundle.prefix(images)
    n_objects, n_passes = keys.shape
    row_bytes = features[0].numel() * features.element_size()
    batch = min(batch, max(8, CACHE_BYTES // row_bytes))
    flat = torch.from_numpy(keys.reshape(-1))
    row_object = torch.arange(len(flat)) // n_passes
    batches = (slice(start, start + batch) for start in range(0, len(flat), batch))
    outputs = [bundle.sample(features[row_object[rows]], flat[rows]) for rows in batches]
    script, last, top = bundle.script, None, (None, None)
    if bundle.has("last_features"):
        last = script.last_features(features)
        if bundle.has("top_features"):
            top = script.top_features(last)
    return RawPasses(
        torch.cat(outputs).reshape(n_objects, n_passes, -1).numpy(),
        None if last is None else last.numpy(),
        script.crop(images).numpy() if bundle.has("crop") else None,
        None if top[0] is None else top[0].numpy(),
        None if top[1] is None else top[1].numpy(),
    )


def _summarize(
    metadata: BundleMetadata, raw: RawPasses, keys: npt.NDArray[np.int64], posterior: PosteriorConfig
) -> Values:
    """Columns (object,), without the model's name, of the rows that were run."""
    # Rows that failed are summarized too, as zeros: they are left out afterwards.
    outputs = np.nan_to_num(raw.outputs.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    levels = np.asarray(posterior.quantiles)
    found: Values = {}
    errors = []
    passes = read_passes(outputs, metadata)
    draws = _draws(metadata, passes, keys, posterior)
    for quantity in quantities_of(metadata.parameters):
        if draws is not None:
            summary = summarize_draws(draws, quantity, levels, passes=passes)
        else:
            summary = summarize_mixture(passes, quantity, levels)
        found |= _named(summary, quantity.name, posterior)
        errors.append(summary.mc_error)
        if not quantity.is_magnitude and quantity.parameter.labels:
            found[f"{quantity.name}_label"] = _labels(
                summary.quantiles[:, levels == 0.5][:, 0], quantity.parameter
            )
    found["mc_error"] = np.max(errors, axis=0)
    found |= _correlations(metadata, passes)
    if raw.top_index is not None and raw.top_activation is not None:
        for rank in range(metadata.n_top_features):
            found[f"feature_{rank}"] = raw.top_index[:, rank]
            found[f"activation_{rank}"] = raw.top_activation[:, rank]
    return _without_widths(found, metadata) if _has_no_posterior(metadata) else found


def _draws(
    metadata: BundleMetadata, passes: Passes, keys: npt.NDArray[np.int64], posterior: PosteriorConfig
) -> npt.NDArray[np.float64] | None:
    """Draws, if these stand for the posterior: method samples, and point heads, whose passes are nothing else."""
    if posterior.method == "mixture" and metadata.head.kind != "point":
        return None
    return passes.draws(member_keys(keys, passes.n_members))


def _named(summary: Summary, name: str, posterior: PosteriorConfig) -> Values:
    quantiles = {
        f"{name}_{quantile_suffix(level)}": summary.quantiles[:, i]
        for i, level in enumerate(posterior.quantiles)
    }
    scalars = {f"{name}_{key}": getattr(summary, key) for key in ("mean", "std", "mode", "epistemic_std")}
    return {**quantiles, **scalars}


def _labels(median: npt.NDArray[np.float64], parameter: ParameterInfo) -> npt.NDArray[np.object_]:
    """(object,) text of the first label that fits the median; None: no label fits."""
    labels = np.full(len(median), None, dtype=object)
    for label in reversed(parameter.labels):
        low = -np.inf if label.at_least is None else label.at_least
        high = np.inf if label.at_most is None else label.at_most
        labels[(median >= low) & (median <= high)] = label.text
    return labels


def _correlations(metadata: BundleMetadata, passes: Passes) -> Values:
    correlation = correlation_of(passes.covariance())
    names = [parameter.name for parameter in metadata.parameters]
    return {
        f"corr_{names[i]}_{names[j]}": correlation[:, i, j]
        for i in range(len(names))
        for j in range(i + 1, len(names))
    }


def _has_no_posterior(metadata: BundleMetadata) -> bool:
    return metadata.head.kind == "point" and metadata.dropout_rate == 0


def _without_widths(found: Values, metadata: BundleMetadata) -> Values:
    """Only the value itself: as median, mean and mode. Widths of one point would be inventions."""
    kept = tuple(
        f"{q.name}_{part}" for q in quantities_of(metadata.parameters) for part in ("q500", "mean", "mode")
    )
    return {
        key: column
        for key, column in found.items()
        if key in kept or key.startswith(("feature_", "activation_")) or key.endswith("_label")
    }


def _all_finite(found: Values, finite: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(object,) whose outputs and numbers in the catalog are all finite, in float32."""
    good = finite.copy()
    with np.errstate(over="ignore"):
        for key, column in found.items():
            if column.dtype.kind == "f" and not key.startswith("activation_"):
                good &= np.isfinite(column.astype(np.float32))
    return good


def _value_flags(
    metadata: BundleMetadata, found: Values, posterior: PosteriorConfig
) -> npt.NDArray[np.int32]:
    """NO_POSTERIOR, NOT_CONVERGED, EXTRAPOLATED."""
    first = found[f"{metadata.parameters[0].name}_q500"]
    flags = np.zeros(len(first), np.int32)
    if _has_no_posterior(metadata):
        flags |= ModelFlag.NO_POSTERIOR
    elif "mc_error" in found:
        flags[found["mc_error"] > posterior.tolerance] |= ModelFlag.NOT_CONVERGED
    for parameter in metadata.parameters:
        if parameter.training_range is not None:
            median = found[f"{parameter.name}_q500"]
            low, high = parameter.training_range
            flags[(median < low) | (median > high)] |= ModelFlag.EXTRAPOLATED
    return flags


def _input_flags(
    metadata: BundleMetadata, raw: RawPasses, cutouts: CutoutBlock, rows: npt.NDArray[np.intp]
) -> npt.NDArray[np.int32]:
    """OUT_OF_DOMAIN, CROP_AT_LIMIT."""
    domain, flags = metadata.domain, np.zeros(len(rows), np.int32)
    outside = np.zeros(len(rows), bool)
    for measured, ranges in (
        (cutouts.sky_sigma_njy, domain.sky_sigma_njy),
        (cutouts.psf_fwhm_arcsec, domain.psf_fwhm_arcsec),
    ):
        if ranges is not None:
            low, high = np.asarray(ranges).T
            outside |= ((measured[rows] < low) | (measured[rows] > high)).any(axis=1)  # NaN is neither
    if raw.last is not None and domain.features_mean is not None and domain.distance_limit is not None:
        last = np.nan_to_num(raw.last.astype(np.float64))
        mean, covariance = np.asarray(domain.features_mean), np.asarray(domain.features_covariance)
        outside |= feature_distance(last, mean, covariance) > domain.distance_limit
    flags[outside] |= ModelFlag.OUT_OF_DOMAIN
    if raw.crop is not None and domain.crop_limits is not None:
        low_crop, high_crop = domain.crop_limits
        flags[~((raw.crop > low_crop) & (raw.crop < high_crop))] |= ModelFlag.CROP_AT_LIMIT
    return flags
