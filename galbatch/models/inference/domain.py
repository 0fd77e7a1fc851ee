"""The domain of a network: the range of its training set, and whether an object lies inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from scipy.linalg import lapack
from torch import nn

from galbatch.core.sky_noise import in_frame, robust_scatter, thinned
from galbatch.models.metadata import DomainInfo
from galbatch.models.networks import prefix_arguments

__all__ = [
    "FeatureDistance",
    "ObjectNumbers",
    "describe_domain",
    "feature_distance",
    "is_out_of_domain",
    "is_unknown_to",
    "sky_scatter",
]

Floats = npt.NDArray[np.float64]
Images = npt.NDArray[np.float32]
Range = tuple[float, float]

MAX_OBJECTS = 20_000  # At most as many for the covariance of the features, and as many for the limits.
# Pixels of a band that run together: a full GaMPEN's first maps take 256 bytes for each.
PIXELS_AT_ONCE = 2**21
HELD_OUT_SHARE = 0.25  # The share of the images that is held out where the caller gives no rows.

# The share of held-out objects like those of the training set that lie outside the limits. A smaller one, such as 0.001, could not
# be found on the few thousand objects that trainings hold out.
FALSE_ALARM_RATE = 0.01

# The share by which correlations are shrunk. With it the covariance of any number of objects can be inverted, and six digits are
# enough. On galbatch's demo networks shares from 0.001 to 0.1 find real pixels equally well.
SHRINKAGE = 0.1
# The smallest std of a feature, in units of the median of all: features that hardly ever fire have no std of their own.
SMALLEST_STD = 0.1
COVARIANCE_DIGITS = 6

# Two ways to measure the FWHM of a PSF agree to about this share, whereas the limits of a simulation are exact.
PSF_MARGIN = 0.02

# The sky noise is measured as in cutout stores (core/sky_noise.py), without detected light. Training images have no mask; a pixel
# counts as light if the mean of the 5 x 5 pixels around it lies this many sigma above 0.
LIGHT_SIGMA = 5.0
SMOOTHED_PX = 5
N_ITERATIONS = 4  # Light raises the noise by which it is recognized, so both are found again this many times.


@dataclass(frozen=True)
class ObjectNumbers:
    """Numbers that are known for the objects of training images, in addition to their pixels.

    Attributes
    ----------
    sky_sigma_njy : (object, band), sky noise per pixel as in a cutout store; None: measured in the images
    auxiliary : (object, number) float32; None for a network that takes none
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
    """Return the domain of a network: statistics of its training set, and limits for a false alarm rate of 1 %.

    Mean and covariance of the features are computed from the objects that were trained on, the limits from the others:
    objects that the network was fitted to, or that the covariance was computed from, have too small distances.

    Parameters
    ----------
    network : network in eval mode, on any device, with the methods `prefix`, `last_features` and, if it crops, `crop`
    images : (object, band, y, x) float32, nJy, finite; a memory map is read in pieces; without bands for a network that takes
        columns alone, whose domain is that of its features
    unit_njy : the bundle's unit in nJy
    psf_fwhm_arcsec : array (object, band), NaN where not known; or one range per band, which is used unchanged; None: not known
    held_out : (row,) rows of `images` that the network was not fitted to; with 1000 of them the false alarm rate is good to a
        third of its value. None: every fourth row, which is good only for networks that do not overfit
    known : sky noise and auxiliary inputs of the objects
    """
    known = known or ObjectNumbers()
    fitted, others = _divided(len(images), held_out)
    features, _ = _last_features(network, images, fitted, unit_njy, known.auxiliary)
    mean, covariance = features.mean(axis=0), _shrunk_covariance(features)
    held_out_features, crop = _last_features(network, images, others, unit_njy, known.auxiliary)
    sky = light = None
    if images.shape[1]:
        light = np.concatenate(
            [images[part].sum(axis=(2, 3), dtype=np.float64) for part in _pieces(others, images)]
        )
        sky = _sky_noise(images, others, known)
    # An array holds one measurement per object; anything else is a range per band.
    psf = psf_fwhm_arcsec if isinstance(psf_fwhm_arcsec, np.ndarray) else None
    limits = _limits(
        feature_distance(held_out_features, mean, covariance),
        sky,
        None if psf is None else np.asarray(psf)[others],
    )
    given = None if psf is not None or psf_fwhm_arcsec is None else _as_ranges(np.asarray(psf_fwhm_arcsec))
    return DomainInfo(
        psf_fwhm_arcsec=limits.psf if given is None else given,
        sky_sigma_njy=limits.sky,
        flux_njy=None if light is None else (float(light.max(axis=1).min()), float(light.max())),
        features_mean=tuple(mean.tolist()),
        features_covariance=tuple(
            tuple(float(f"{value:.{COVARIANCE_DIGITS}g}") for value in row) for row in covariance.tolist()
        ),
        distance_limit=limits.distance,
        crop_limits=None if crop is None else (float(crop.min()), float(crop.max())),
        false_alarm_rate=FALSE_ALARM_RATE,
        n_held_out=len(others),
    )


def _sky_noise(images: Images, rows: npt.NDArray[np.intp], known: ObjectNumbers) -> Floats:
    """Return the sky noise per pixel of the images at `rows`, (row, band): what is known, else measured in them."""
    if known.sky_sigma_njy is not None:
        return np.asarray(known.sky_sigma_njy, dtype=np.float64)[rows]
    return np.concatenate([sky_scatter(images[part]) for part in _pieces(rows, images)])


def is_out_of_domain(
    domain: DomainInfo,
    distance: Floats | None,
    *,
    sky_sigma_njy: npt.NDArray[np.floating[Any]],
    psf_fwhm_arcsec: npt.NDArray[np.floating[Any]],
) -> npt.NDArray[np.bool_]:
    """Return which objects lie outside any limit of the domain, (object,) bool.

    Parameters
    ----------
    domain : domain of the bundle
    distance : (object,) from `feature_distance`, in units of the limit; None: not known
    sky_sigma_njy, psf_fwhm_arcsec : (object, band) float32; NaN, also of a distance, is outside no limit: see `is_unknown_to`
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


def is_unknown_to(
    domain: DomainInfo, distance: Floats | None, *, sky_sigma_njy: npt.NDArray[np.floating[Any]]
) -> npt.NDArray[np.bool_]:
    """Return for which objects the domain cannot tell, (object,) bool: it limits the sky noise or the distance, and that is NaN.

    A PSF width of NaN is not among them: where a survey states none it is missing for all objects, and the column says so.
    """
    unknown = np.zeros(len(sky_sigma_njy), bool)
    if domain.sky_sigma_njy is not None:
        unknown |= np.isnan(sky_sigma_njy).any(axis=1)
    if distance is not None:
        unknown |= np.isnan(distance)
    return unknown


class FeatureDistance:
    """The Mahalanobis distance of features from those of a training set, for any number of objects.

    Parameters
    ----------
    mean, covariance : (feature,) and (feature, feature) float64, of the training set
    limit : distance that counts as one
    """

    def __init__(self, mean: npt.ArrayLike, covariance: npt.ArrayLike, limit: float = 1.0) -> None:
        self._mean, self._limit = np.asarray(mean, dtype=np.float64), limit
        # Solved with the triangular factor, never inverted: the covariance may be near singular. For 512 features the factor takes as long
        # as the distances of 256 objects.
        self._factor = np.linalg.cholesky(np.asarray(covariance, dtype=np.float64))

    @classmethod
    def of(cls, domain: DomainInfo) -> FeatureDistance | None:
        """Return the distance in units of a domain's limit; None if the domain does not state one."""
        mean, covariance, limit = domain.features_mean, domain.features_covariance, domain.distance_limit
        if mean is None or covariance is None or limit is None:
            return None
        return cls(mean, covariance, limit)

    def __call__(self, features: npt.NDArray[np.floating[Any]]) -> Floats:
        """Return the distances (object,) float64 of features (object, feature); NaN where features are not finite."""
        finite = np.isfinite(features).all(axis=1)
        apart = features[finite].astype(np.float64) - self._mean
        # One by one: LAPACK adds up in another order where it solves for several, and an object's value must not depend on its company.
        # scipy.linalg.solve_triangular has the same bits, and takes 5 to 10 times as long for 64 features and fewer. LAPACK has columns
        # one after another, so the factor of NumPy is the transposed one.
        whitened = (lapack.dtrtrs(self._factor.T, one, lower=0, trans=1)[0] for one in apart)
        found = np.full(len(features), np.nan)
        found[finite] = [np.sqrt(np.square(one).sum()) / self._limit for one in whitened]
        return found


def feature_distance(features: Floats, mean: Floats, covariance: Floats) -> Floats:
    """Return the Mahalanobis distance of features from those of a training set, as `FeatureDistance` with limit 1."""
    return FeatureDistance(mean, covariance)(features)


def sky_scatter(images: Images) -> Floats:
    """Return the robust standard deviation of the sky, 1.4826 MAD, of the pixels near the border of each image.

    Pixels with light are left out, as in a cutout store whose mask has DETECTED. The noise by which light is recognized is
    measured from differences of neighboring pixels, so that a galaxy which fills the image counts as light, not as noise.

    Parameters
    ----------
    images : (object, band, y, x) float32, in any unit

    Returns
    -------
    (object, band) float64, in the images' unit; NaN with fewer than 32 pixels
    """
    n_objects, n_bands, size_px = images.shape[:3]
    frame = thinned(in_frame(size_px))
    flat = images.reshape(n_objects, n_bands, -1)
    values = flat[..., frame].astype(np.float64)  # (object, band, pixel of the frame)
    # Pairs of horizontal neighbors in the frame, by the flat index of their left pixel. A difference has twice the variance.
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
    """Return the rows for mean and covariance of the features, and the rows for the limits."""
    rows = np.arange(n_objects)
    others = (
        np.unique(held_out) if held_out is not None and len(held_out) else rows[:: round(1 / HELD_OUT_SHARE)]
    )
    return _subsample(np.setdiff1d(rows, others)), _subsample(others)


def _subsample(rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return at most MAX_OBJECTS of the rows, evenly spaced."""
    if len(rows) <= MAX_OBJECTS:
        return rows
    return rows[np.linspace(0, len(rows) - 1, MAX_OBJECTS).astype(np.intp)]


def _pieces(rows: npt.NDArray[np.intp], images: Images) -> list[npt.NDArray[np.intp]]:
    """Return the rows in pieces whose images have at most PIXELS_AT_ONCE pixels per band."""
    step = max(1, PIXELS_AT_ONCE // max(1, images.shape[-1] ** 2))
    return [rows[start : start + step] for start in range(0, len(rows), step)]


@torch.inference_mode()
def _last_features(
    network: Any,
    images: Images,
    rows: npt.NDArray[np.intp],
    unit_njy: float,
    auxiliary: npt.NDArray[np.float32] | None,
) -> tuple[Floats, Floats | None]:
    """Return the last features (object, feature), and the scales of a network that crops, (object,), both float64."""
    device = next(network.parameters()).device
    features, crops = [], []
    for part in _pieces(rows, images):
        batch = torch.from_numpy(images[part] / np.float32(unit_njy)).to(device)
        others = None if auxiliary is None else torch.from_numpy(auxiliary[part]).to(device)
        start = network.prefix(*prefix_arguments(batch, others))
        features.append(network.last_features(start).double().cpu().numpy())
        if hasattr(network, "crop"):
            crops.append(network.crop(batch).double().cpu().numpy())
    return np.concatenate(features), np.concatenate(crops) if crops else None


def _shrunk_covariance(features: Floats) -> Floats:
    """Return the covariance (feature, feature) of features, with correlations shrunk towards 0 and no variance near 0."""
    std = features.std(axis=0, ddof=1)
    covariance = np.atleast_2d(np.cov(features, rowvar=False))
    live = std[std > 0]
    smallest = SMALLEST_STD * float(np.median(live)) if len(live) else 1.0
    shrunk = (1.0 - SHRINKAGE) * covariance
    shrunk[np.diag_indices_from(shrunk)] += SHRINKAGE * std**2 + np.maximum(smallest**2 - std**2, 0.0)
    return shrunk


@dataclass(frozen=True)
class _Limits:
    """Limits of a domain: of the distance of the features, and ranges of the sky noise and of the PSF's FWHM per band."""

    distance: float
    sky: tuple[Range, ...] | None
    psf: tuple[Range, ...] | None


def _limits(distance: Floats, sky: Floats | None, psf: Floats | None) -> _Limits:
    """Return limits such that at most FALSE_ALARM_RATE of the objects lie outside any of them.

    Each check cuts off the same share of objects, the tail, which is the largest that fulfills this.
    """
    # One check alone may cut off the whole rate; 30 bisections find the tail to a billionth of it.
    least, most = 0.0, FALSE_ALARM_RATE
    for _ in range(30):
        tail = 0.5 * (least + most)
        limits = _limits_at(tail, distance, sky, psf)
        beyond = distance > limits.distance
        for measured, ranges in ((sky, limits.sky), (psf, limits.psf)):
            if measured is not None and ranges is not None:
                beyond |= _beyond(measured, ranges)
        least, most = (tail, most) if beyond.mean() <= FALSE_ALARM_RATE else (least, tail)
    return _limits_at(least, distance, sky, psf)


def _limits_at(tail: float, distance: Floats, sky: Floats | None, psf: Floats | None) -> _Limits:
    """Return limits of which each has the share `tail` of the objects outside."""
    widths = None if psf is None else _quantile_ranges(psf, tail)
    if widths is not None:
        widths = tuple((low * (1.0 - PSF_MARGIN), high * (1.0 + PSF_MARGIN)) for low, high in widths)
    noise = None if sky is None else _quantile_ranges(sky, tail)
    return _Limits(float(np.quantile(distance, 1.0 - tail)), noise, widths)


def _quantile_ranges(values: Floats, tail: float) -> tuple[Range, ...] | None:
    """Return the range of values (object, band) in each band, without half the tail on either side; None if a band has none."""
    if not np.isfinite(values).any(axis=0).all():
        return None
    return _as_ranges(np.nanquantile(values, [tail / 2, 1.0 - tail / 2], axis=0).T)


def _beyond(values: npt.NDArray[np.floating[Any]], ranges: Sequence[Range]) -> npt.NDArray[np.bool_]:
    """Return whether values (object, band) lie outside the range of any band, (object,) bool; NaN counts as inside."""
    low, high = np.asarray(ranges).T
    return np.logical_or.reduce((values < low) | (values > high), axis=1)


def _as_ranges(ranges: Floats) -> tuple[Range, ...]:
    return tuple((float(low), float(high)) for low, high in ranges)
