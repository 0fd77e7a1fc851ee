"""What the training set looked like to the network, and whether an object looks like that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from galbatch.models.metadata import DomainInfo

__all__ = ["describe_domain", "feature_distance"]

Floats = npt.NDArray[np.float64]

MAX_OBJECTS = 20_000
ROWS_AT_ONCE = 256
TRAINING_SHARE = 0.999


def describe_domain(
    network: nn.Module,
    images: npt.NDArray[np.float32],
    *,
    unit_njy: float,
    psf_fwhm_arcsec: tuple[tuple[float, float], ...] | None = None,
) -> DomainInfo:
    """Describe a training set.

    Parameters
    ----------
    network : in eval mode, with `last_features` and, if it crops, `crop`
    images : (object, band, y, x) float32, nJy
    unit_njy : the bundle's unit in nJy
    psf_fwhm_arcsec : range per band; None: not known
    """
    images = images[:MAX_OBJECTS]
    features, crop = _look_at(network, images, unit_njy)
    mean = features.mean(axis=0)
    covariance = np.atleast_2d(np.cov(features, rowvar=False))
    # Features that never fire have no variance: the floor keeps the covariance invertible.
    floor = 1e-4 * np.trace(covariance) / len(covariance)
    covariance[np.diag_indices_from(covariance)] += max(floor, 1e-12)
    distance = feature_distance(features, mean, covariance)
    light = images.sum(axis=(2, 3), dtype=np.float64).max(axis=1)
    return DomainInfo(
        psf_fwhm_arcsec=psf_fwhm_arcsec,
        sky_sigma_njy=tuple(_sky_ranges(images)),
        flux_njy=(float(light.min()), float(light.max())),
        features_mean=tuple(mean.tolist()),
        features_covariance=tuple(map(tuple, covariance.tolist())),
        distance_limit=float(np.quantile(distance, TRAINING_SHARE)),
        crop_limits=None if crop is None else (float(crop.min()), float(crop.max())),
    )


def feature_distance(features: Floats, mean: Floats, covariance: Floats) -> Floats:
    """Mahalanobis distance, (object,) float64, of features (object, feature) from a training set's."""
    factor = np.linalg.cholesky(covariance)
    whitened = np.linalg.solve(factor, (features - mean).T)
    return np.asarray(np.sqrt((whitened**2).sum(axis=0)))


@torch.inference_mode()
def _look_at(network: Any, images: npt.NDArray[np.float32], unit_njy: float) -> tuple[Floats, Floats | None]:
    """Last features (object, feature) and, of networks that crop, the scales (object,)."""
    features, crops = [], []
    for start in range(0, len(images), ROWS_AT_ONCE):
        batch = torch.from_numpy(images[start : start + ROWS_AT_ONCE] / np.float32(unit_njy))
        features.append(network.last_features(network.prefix(batch)).double().numpy())
        if hasattr(network, "crop"):
            crops.append(network.crop(batch).double().numpy())
    return np.concatenate(features), np.concatenate(crops) if crops else None


def _sky_ranges(images: npt.NDArray[np.float32]) -> Iterator[tuple[float, float]]:
    """Range of the sky noise per band, widened: real sky pixels are told from light by a mask, here they are not."""
    for band in range(images.shape[1]):
        sigma = _frame_scatter(images[:, band])
        yield 0.8 * float(sigma.min()), 1.25 * float(sigma.max())


def _frame_scatter(images: npt.NDArray[np.float32]) -> Floats:
    """1.4826 MAD, (object,) float64, of a frame of an eighth of the side; images (object, y, x)."""
    size = images.shape[1]
    frame = np.ones((size, size), bool)
    width = max(1, size // 8)
    frame[width : size - width, width : size - width] = False
    values = images[:, frame]
    deviation = np.abs(values - np.median(values, axis=1, keepdims=True))
    return np.asarray(1.4826 * np.median(deviation, axis=1), dtype=np.float64)
