"""Cutouts in, result columns out: the one place where a network meets a block."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch.config import PosteriorConfig
from galbatch.errors import BundleError, NotInThisVersion
from galbatch.models.bundle import Bundle
from galbatch.models.ensemble import Ensemble
from galbatch.models.flags import input_flags, ood_distance, value_flags
from galbatch.models.heads import Passes, correlation_of
from galbatch.models.keys import draw_keys, member_keys
from galbatch.models.metadata import BundleMetadata, ParameterInfo
from galbatch.models.posterior import Summary, quantities_of, summarize_draws, summarize_mixture
from galbatch.models.results import quantile_suffix, result_columns
from galbatch.models.sampling import RawPasses, run_passes
from galbatch.types import CutoutBlock, ModelFlag, njy_per_unit

__all__ = ["infer_block"]

CENTER_PX = 1  # a NaN this near the central pixel leaves nothing to measure
FEATURE_COLUMNS = ("feature_", "activation_", "frequency_")  # of SFNet; -1 or NaN where none fired
SINGLE_PASS = 1  # without dropout all passes are equal
NUMBERS_AT_ONCE = (
    2**22
)  # outputs summarized together, 32 MB in float64: 1,000 passes of 900 bins are 0.9 million an object

Values = dict[str, npt.NDArray[Any]]
Keys = npt.NDArray[np.int64]


def infer_block(
    network: Bundle | Ensemble,
    cutouts: CutoutBlock,
    *,
    name: str,
    posterior: PosteriorConfig,
    selected: npt.NDArray[np.bool_],
    columns: npt.NDArray[np.float32] | None = None,
) -> Values:
    """Run a network on a block.

    Parameters
    ----------
    network : a bundle, or several that are pooled
    cutouts : on the network's grid, with as many bands as it takes, in its order
    name : prefix of the result columns
    posterior : passes, quantiles, seed, batch
    selected : (object,) bool; the others get no values and NOT_SELECTED
    columns : (object, column) float32, the numbers beside the image of networks that take some; an object that lacks
        one (NaN) gets no values and NONFINITE_INPUT

    Returns
    -------
    One array (object,) per result column. NaN, null, -1: no value, and then a flag says why.

    Raises
    ------
    BundleError
        The cutouts' grid or number of bands, or the number of columns, is not the network's.
    NotInThisVersion
        ``passes = "adaptive"``.
    """
    ensemble = network if isinstance(network, Ensemble) else Ensemble((network,))
    _check_inputs(ensemble, cutouts, columns)
    n_passes = _number_of_passes(ensemble, posterior)
    specs = result_columns(ensemble.metadata, name=name, posterior=posterior)
    values: Values = {column.name: _empty(column.dtype, column.name, len(cutouts)) for column in specs}
    flags = np.where(selected, 0, int(ModelFlag.NOT_SELECTED)).astype(np.int32)
    images, gaps, hopeless = _cleaned(cutouts.image)
    if columns is not None:
        lacking = ~np.isfinite(columns).all(axis=1)
        gaps, hopeless = gaps | lacking, hopeless | lacking
    flags[selected & gaps] |= ModelFlag.NONFINITE_INPUT
    rows = np.flatnonzero(selected & ~hopeless)
    if len(rows):
        keys = [
            draw_keys(
                cutouts.object_id[rows], seed=posterior.seed, bundle_sha256=sha256, passes=range(n_passes)
            )
            for sha256 in ensemble.sha256
        ]
        some = None if columns is None else columns[rows]
        raws = _run_all(ensemble, images[rows], keys, some, batch=posterior.batch)
        finite = np.logical_and.reduce([np.isfinite(raw.outputs).all(axis=(1, 2)) for raw in raws])
        flags[rows[~finite]] |= ModelFlag.MODEL_FAILED
        found = _summarize(ensemble, raws, keys, posterior)
        good = _all_finite(found, finite)
        flags[rows[finite & ~good]] |= ModelFlag.MODEL_FAILED
        for key, column in found.items():
            values[f"{name}_{key}"][rows[good]] = column[good]
        values[f"{name}_passes"][rows] = n_passes
        flags[rows[good]] |= value_flags(ensemble, found, posterior)[good]
        for bundle, raw in zip(ensemble.bundles, raws, strict=True):
            flags[rows] |= input_flags(bundle.metadata, raw, cutouts, rows)
        if f"{name}_ood_distance" in values:
            values[f"{name}_ood_distance"][rows] = _largest_distance(ensemble, raws)
    values[f"{name}_flags"] = flags
    return values


def _check_inputs(ensemble: Ensemble, cutouts: CutoutBlock, columns: npt.NDArray[np.float32] | None) -> None:
    metadata = ensemble.metadata
    if cutouts.grid != ensemble.grid:
        raise BundleError(
            f"{metadata.name}: takes cutouts of {ensemble.grid.label}, given {cutouts.grid.label}"
        )
    if len(cutouts.bands) != len(ensemble.bands):
        raise BundleError(
            f"{metadata.name}: takes {len(ensemble.bands)} bands ({', '.join(ensemble.bands)}), "
            f"given {', '.join(cutouts.bands) or 'none'}"
        )
    wanted, given = len(metadata.input.columns), 0 if columns is None else columns.shape[1]
    if wanted != given:
        names = ", ".join(column.name for column in metadata.input.columns) or "none"
        raise BundleError(f"{metadata.name}: takes {wanted} columns ({names}), given {given}")


def _largest_distance(ensemble: Ensemble, raws: list[RawPasses]) -> npt.NDArray[np.float64]:
    """(object,) of the bundles' distances from their domains, in units of their limits."""
    found = [ood_distance(b.metadata, raw) for b, raw in zip(ensemble.bundles, raws, strict=True)]
    return np.asarray(np.maximum.reduce([distance for distance in found if distance is not None]))


def _number_of_passes(ensemble: Ensemble, posterior: PosteriorConfig) -> int:
    """Of each network."""
    if not isinstance(posterior.passes, int):
        raise NotInThisVersion(
            '[posterior] passes = "adaptive" is not in this version; give a number, such as 64'
        )
    if not ensemble.has_dropout and (posterior.method == "mixture" or ensemble.is_point):
        return SINGLE_PASS
    return posterior.passes


def _run_all(
    ensemble: Ensemble,
    images: npt.NDArray[np.float32],
    keys: list[Keys],
    columns: npt.NDArray[np.float32] | None,
    *,
    batch: int,
) -> list[RawPasses]:
    """Passes of each bundle on cleaned images in nJy; those without dropout run once, which stands for all."""
    raws = []
    for bundle, of_bundle in zip(ensemble.bundles, keys, strict=True):
        n_passes = of_bundle.shape[1] if bundle.metadata.dropout_rate > 0 else SINGLE_PASS
        in_unit = images * np.float32(1.0 / njy_per_unit(bundle.metadata.input.zero_point_mag))
        raw = run_passes(bundle, in_unit, of_bundle[:, :n_passes], batch=batch, columns=columns)
        n_rows, _, n_outputs = raw.outputs.shape
        repeated = np.broadcast_to(raw.outputs, (n_rows, of_bundle.shape[1], n_outputs))
        raws.append(dataclasses.replace(raw, outputs=repeated))
    return raws


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


def _summarize(
    ensemble: Ensemble, raws: list[RawPasses], keys: list[Keys], posterior: PosteriorConfig
) -> Values:
    """Columns (object,), without the model's name, of the rows that were run; some rows at a time."""
    size = max(1, NUMBERS_AT_ONCE // sum(raw.outputs[0].size for raw in raws))
    slices = [slice(start, start + size) for start in range(0, len(keys[0]), size)]
    parts = [
        _summarize_rows(ensemble, [raw.rows(some) for raw in raws], [part[some] for part in keys], posterior)
        for some in slices
    ]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _summarize_rows(
    ensemble: Ensemble, raws: list[RawPasses], keys: list[Keys], posterior: PosteriorConfig
) -> Values:
    # Rows that failed are summarized too, as zeros: they are left out afterwards.
    passes = ensemble.passes(
        [np.nan_to_num(raw.outputs.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0) for raw in raws]
    )
    draws = _draws(ensemble, passes, keys, posterior)
    metadata, levels = ensemble.metadata, np.asarray(posterior.quantiles)
    found: Values = {}
    errors = []
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
    found |= _top_features(metadata, raws[0])
    return found if ensemble.has_posterior else _without_widths(found, metadata)


def _draws(
    ensemble: Ensemble, passes: Passes, keys: list[Keys], posterior: PosteriorConfig
) -> npt.NDArray[np.float64] | None:
    """Draws, if these stand for the posterior: method samples, and point heads, whose passes are nothing else."""
    if posterior.method == "mixture" and not ensemble.is_point:
        return None
    of_bundles = zip(ensemble.bundles, keys, strict=True)
    members = [member_keys(of_bundle, bundle.metadata.members) for bundle, of_bundle in of_bundles]
    return passes.draws(np.concatenate(members, axis=1))


def _top_features(metadata: BundleMetadata, raw: RawPasses) -> Values:
    columns = zip(FEATURE_COLUMNS, (raw.top_index, raw.top_activation, raw.top_frequency), strict=True)
    return {
        f"{prefix}{rank}": column[:, rank]
        for prefix, column in columns
        if column is not None
        for rank in range(metadata.n_top_features)
    }


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


def _without_widths(found: Values, metadata: BundleMetadata) -> Values:
    """Only the value itself: as median, mean and mode. Widths of one point would be inventions."""
    kept = tuple(
        f"{q.name}_{part}" for q in quantities_of(metadata.parameters) for part in ("q500", "mean", "mode")
    )
    return {
        key: column
        for key, column in found.items()
        if key in kept or key.startswith(FEATURE_COLUMNS) or key.endswith("_label")
    }


def _all_finite(found: Values, finite: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(object,) whose outputs and numbers in the catalog are all finite, in float32."""
    good = finite.copy()
    with np.errstate(over="ignore"):
        for key, column in found.items():
            if column.dtype.kind == "f" and not key.startswith(FEATURE_COLUMNS):
                good &= np.isfinite(column.astype(np.float32))
    return good
