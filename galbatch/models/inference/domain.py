"""The domain of a network: what its training set looked like to it, and whether an object looks like that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import nn

from galbatch.core.sky_noise import in_frame, robust_scatter, thinned
from galbatch.models.metadata import DomainInfo

__all__ = ["ObjectNumbers", "describe_domain", "feature_distance", "is_out_of_domain", "sky_scatter"]

Floats = npt.NDArray[np.float64]
Images = npt.NDArray[np.float32]
Range = tuple[float, float]

MAX_OBJECTS = 20_000  # of those the features are described by, and of those the limits are found on
PIXELS_AT_ONCE = 2**21  # of a band; a full GaMPEN's first maps take 64 times 4 bytes for each
HELD_OUT_SHARE = 0.25  # of the images, where the caller does not say which are held out

# Of what a network never saw. A thousandth could not be found on the few thousand objects that trainings hold out.
FALSE_ALARM_RATE = 0.01

# Ensures that the covariance can be inverted however few the objects, and that six digits of it suffice. On
# galbatch's demo networks shares from 0.001 to 0.1 find real pixels equally well.
SHRINKAGE = 0.1
# Of a feature, over the median of all: features that hardly ever fire have no std of their own.
SMALLEST_STD = 0.1
COVARIANCE_DIGITS = 6

PSF_MARGIN = (
    0.02  # two ways to measure a PSF's width agree to about this; a simulation has limits to the last digit
)

# The sky is measured as cutout stores do (core/sky_noise.py), leaving out detected light. Without a mask, light is
# what lies this far above 0 on average over 5 x 5 pixels.
LIGHT_SIGMA = 5.0
SMOOTHED_PX = 5
N_ITERATIONS = 4  # of the noise of what is left without the light, and the light above that noise


@dataclass(frozen=True)
class ObjectNumbers:
    """Numbers that are known of the objects of training images, apart from their pixels.

    Attributes
    ----------
    sky_sigma_njy : (object, band), as a cutout store has it; None: measured in the images
    auxiliary : (object, auxiliary input) float32, of networks that take some
    """

    sky_sigma_njy: npt.NDArray[np.floating[Any]] | None = None
    auxiliary: npt.NDArray[np.float32] | None = None


def describe_domain(
    network: nn.Module,
    images: Images,
    *,
    unit_njy: float,
    psf_fwhm_arcsec: Sequence[Range] | npt.NDArray[np.floating[Any]] | None = None,
    held_out: npt.NDArray[np.integer[Any]] | None = None,
    known: ObjectNumbers | None = None,
) -> DomainInfo:
    """Describe a training set, and find limits that a stated share of objects like those lies beyond.

    Mean and covariance of the features are of the objects that were trained on. The limits are of the others: of
    what a network has fitted, and of what a covariance was computed from, the distances are too short.

    Parameters
    ----------
    network : in eval mode, with `last_features` and, if it crops, `crop`; on any device
    images : (object, band, y, x) float32, nJy, finite; a memory map is read in pieces
    unit_njy : the bundle's unit in nJy
    psf_fwhm_arcsec : (object, band), NaN: not known; or a range per band, taken as it is. None: not known
    held_out : rows of `images` that the network was not fitted to, a thousand or more if the rate is to hold to a third
        of itself; None: every fourth row, which is good only for networks that do not overfit
    known : what else is known of the objects
    """
    known = known or ObjectNumbers()
    fitted, others = _divided(len(images), held_out)
    features, _ = _last_features(network, images, fitted, unit_njy, known.auxiliary)
    mean, covariance = features.mean(axis=0), _shrunk_covariance(features)
    held_out_features, crop = _last_features(network, images, others, unit_njy, known.auxiliary)
    if known.sky_sigma_njy is None:
        sky = np.concatenate([sky_scatter(images[part]) for part in _pieces(others, images)])
    else:
        sky = np.asarray(known.sky_sigma_njy, dtype=np.float64)[others]
    # An array is measured object by object; a range per band is taken as it is.
    psf = psf_fwhm_arcsec if isinstance(psf_fwhm_arcsec, np.ndarray) else None
    limits = _limits(
        feature_distance(held_out_features, mean, covariance),
        sky,
        None if psf is None else np.asarray(psf)[others],
    )
    light = np.concatenate(
        [images[part].sum(axis=(2, 3), dtype=np.float64) for part in _pieces(others, images)]
    )
    given = None if psf is not None or psf_fwhm_arcsec is None else _as_ranges(np.asarray(psf_fwhm_arcsec))
    return DomainInfo(
        psf_fwhm_arcsec=limits.psf if given is None else given,
        sky_sigma_njy=limits.sky,
        flux_njy=(float(light.max(axis=1).min()), float(light.max())),
        features_mean=tuple(mean.tolist()),
        features_covariance=tuple(
            tuple(float(f"{value:.{COVARIANCE_DIGITS}g}") for value in row) for row in covariance.tolist()
        ),
        distance_limit=limits.distance,
        crop_limits=None if crop is None else (float(crop.min()), float(crop.max())),
        false_alarm_rate=FALSE_ALARM_RATE,
        n_held_out=len(others),
    )


def is_out_of_domain(
    domain: DomainInfo,
    distance: Floats | None,
    *,
    sky_sigma_njy: npt.NDArray[np.floating[Any]],
    psf_fwhm_arcsec: npt.NDArray[np.floating[Any]],
) -> npt.NDArray[np.bool_]:
    """Tell which objects lie beyond any limit of the domain, (object,) bool.

    Parameters
    ----------
    domain : of the bundle
    distance : (object,) of `feature_distance`, over the limit; NaN is not beyond; None: not known
    sky_sigma_njy, psf_fwhm_arcsec : (object, band); NaN is not beyond
    """
    beyond = np.zeros(len(sky_sigma_njy), bool)
    for measured, ranges in (
        (sky_sigma_njy, domain.sky_sigma_njy),
        (psf_fwhm_arcsec, domain.psf_fwhm_arcsec),
    ):
        if ranges is not None:
            beyond |= _beyond(measured, ranges)
    if distance is not None:
        beyond |= distance > 1.0
    return beyond


def feature_distance(features: Floats, mean: Floats, covariance: Floats) -> Floats:
    """Return the Mahalanobis distance, (object,) float64, of features (object, feature) from a training set's."""
    # Solved with the triangular factor, never inverted: the covariance may be near singular.
    factor = np.linalg.cholesky(covariance)
    whitened = np.linalg.solve(factor, (features - mean).T)
    return np.sqrt((whitened**2).sum(axis=0))


def sky_scatter(images: Images) -> Floats:
    """Measure the robust scatter of the sky, (object, band) float64, of images (object, band, y, x), in their unit.

    1.4826 MAD of the frame's pixels without light, as in a cutout store whose mask says DETECTED; NaN with fewer than
    32 of them. The noise that light is recognized by is that of differences of neighboring pixels, so that a galaxy which
    fills the frame counts as light, not as noise.
    """
    n_objects, n_bands, size_px = images.shape[:3]
    frame = thinned(in_frame(size_px))
    flat = images.reshape(n_objects, n_bands, -1)
    values = flat[..., frame].astype(np.float64)
    # Pairs of neighbors in the frame, by the flat index of their left pixel.
    is_left = in_frame(size_px)
    is_left[:, :-1] &= is_left[:, 1:]
    is_left[:, -1] = False
    left = thinned(is_left)
    steps = (flat[..., left + 1] - flat[..., left]).astype(np.float64) / np.sqrt(2.0)
    smoothed = ndimage.uniform_filter(images, (1, 1, SMOOTHED_PX, SMOOTHED_PX), mode="nearest").reshape(
        flat.shape
    )
    light, light_of_steps = smoothed[..., frame], smoothed[..., left]
    noise = robust_scatter(steps.copy(), centered=True)
    for _ in range(N_ITERATIONS):
        known = np.where(np.isfinite(noise), noise, 0.0)[..., None]
        noise = robust_scatter(np.where(light_of_steps > LIGHT_SIGMA * known, np.nan, steps), centered=True)
    known = np.where(np.isfinite(noise), noise, 0.0)[..., None]
    return robust_scatter(np.where(light > LIGHT_SIGMA * known, np.nan, values))


def _divided(
    n_objects: int, held_out: npt.NDArray[np.integer[Any]] | None
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Divide the rows into those that the features are described by, and those that the limits are found on."""
    rows = np.arange(n_objects)
    others = (
        np.unique(held_out) if held_out is not None and len(held_out) else rows[:: round(1 / HELD_OUT_SHARE)]
    )
    return _subsample(np.setdiff1d(rows, others)), _subsample(others)


def _subsample(rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return at most MAX_OBJECTS of the rows, at equal distances."""
    if len(rows) <= MAX_OBJECTS:
        return rows
    return rows[np.linspace(0, len(rows) - 1, MAX_OBJECTS).astype(np.intp)]


def _pieces(rows: npt.NDArray[np.intp], images: Images) -> list[npt.NDArray[np.intp]]:
    """Divide the rows into pieces whose images have PIXELS_AT_ONCE pixels at most."""
    step = max(1, PIXELS_AT_ONCE // images.shape[-1] ** 2)
    return [rows[start : start + step] for start in range(0, len(rows), step)]


@torch.inference_mode()
def _last_features(
    network: Any,
    images: Images,
    rows: npt.NDArray[np.intp],
    unit_njy: float,
    auxiliary: npt.NDArray[np.float32] | None,
) -> tuple[Floats, Floats | None]:
    """Compute the last features (object, feature) and, of networks that crop, the scales (object,), both float64."""
    device = next(network.parameters()).device
    features, crops = [], []
    for part in _pieces(rows, images):
        batch = torch.from_numpy(images[part] / np.float32(unit_njy)).to(device)
        others = () if auxiliary is None else (torch.from_numpy(auxiliary[part]).to(device),)
        features.append(network.last_features(network.prefix(batch, *others)).double().cpu().numpy())
        if hasattr(network, "crop"):
            crops.append(network.crop(batch).double().cpu().numpy())
    return np.concatenate(features), np.concatenate(crops) if crops else None


def _shrunk_covariance(features: Floats) -> Floats:
    """Return the covariance of features (object, feature), its correlations shrunk toward none, no variance near 0."""
    std = features.std(axis=0, ddof=1)
    covariance = np.atleast_2d(np.cov(features, rowvar=False))
    live = std[std > 0]
    smallest = SMALLEST_STD * float(np.median(live)) if len(live) else 1.0
    shrunk = (1.0 - SHRINKAGE) * covariance
    shrunk[np.diag_indices_from(shrunk)] += SHRINKAGE * std**2 + np.maximum(smallest**2 - std**2, 0.0)
    return shrunk


@dataclass(frozen=True)
class _Limits:
    """The limits of `DomainInfo`."""

    distance: float
    sky: tuple[Range, ...] | None
    psf: tuple[Range, ...] | None


def _limits(distance: Floats, sky: Floats, psf: Floats | None) -> _Limits:
    """Find limits that FALSE_ALARM_RATE of the objects lie beyond, all checks together.

    Each check is given the same tail; the tail is the largest with which no more than that share lies beyond any.
    """
    least, most = 0.0, FALSE_ALARM_RATE
    # Bisection to a billionth of the rate.
    for _ in range(30):
        tail = 0.5 * (least + most)
        limits = _limits_at(tail, distance, sky, psf)
        beyond = distance > limits.distance
        for measured, ranges in ((sky, limits.sky), (psf, limits.psf)):
            if measured is not None and ranges is not None:
                beyond |= _beyond(measured, ranges)
        least, most = (tail, most) if beyond.mean() <= FALSE_ALARM_RATE else (least, tail)
    return _limits_at(least, distance, sky, psf)


def _limits_at(tail: float, distance: Floats, sky: Floats, psf: Floats | None) -> _Limits:
    widths = None if psf is None else _quantile_ranges(psf, tail)
    if widths is not None:
        widths = tuple((low * (1.0 - PSF_MARGIN), high * (1.0 + PSF_MARGIN)) for low, high in widths)
    return _Limits(float(np.quantile(distance, 1.0 - tail)), _quantile_ranges(sky, tail), widths)


def _quantile_ranges(values: Floats, tail: float) -> tuple[Range, ...] | None:
    """Return for each band the range of values (object, band) without half the tail on either side; None if a band has no values."""
    if not np.isfinite(values).any(axis=0).all():
        return None
    return _as_ranges(np.nanquantile(values, [tail / 2, 1.0 - tail / 2], axis=0).T)


def _beyond(values: npt.NDArray[np.floating[Any]], ranges: Sequence[Range]) -> npt.NDArray[np.bool_]:
    """Return (object,) whether values (object, band) lie outside a band's range; NaN is neither."""
    low, high = np.asarray(ranges).T
    return np.logical_or.reduce((values < low) | (values > high), axis=1)


def _as_ranges(ranges: Floats) -> tuple[Range, ...]:
    return tuple((float(low), float(high)) for low, high in ranges)
