"""The data of a training: images by row, the split of objects by their ids, and a fingerprint of all data."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from galbatch.models.inference.block import nonfinite_images
from galbatch.models.networks import draw_keys

__all__ = [
    "Extras",
    "ImageRows",
    "Split",
    "cleaned",
    "cleaned_rows",
    "data_fingerprint",
    "has_center",
    "split_objects",
]

Rows = npt.NDArray[np.int64]

# All images may be 100 GB; reading these takes no time, and shows that a file was replaced.
FINGERPRINT_IMAGES = 32


class ImageRows(Protocol):
    """Images that are indexed by row: an array, a memory map, or any object with these two methods."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes (object, band, y, x)."""

    def __getitem__(self, rows: Any, /) -> Any:
        """Return the images (row, band, y, x) float32 in nJy of rising `rows`, (row,) int64."""


@dataclass(frozen=True)
class Extras:
    """Optional data of the objects in addition to images and labels.

    Attributes
    ----------
    object_id : (object,) int64 or str, ids that decide on the split; None: the rows' numbers, from 0
    auxiliary : (object, number) float32, in the order of the settings; None: the network takes none
    weight : (object,) float32, weight of each object's loss, above 0; None: all equal
    psf_fwhm_arcsec, sky_sigma_njy : (object, band) float32, NaN where not known, for the bundle's domain; None: the PSF is not
        known, and the sky noise is measured in the images
    """

    object_id: npt.NDArray[Any] | None = None
    auxiliary: npt.NDArray[np.float32] | None = None
    weight: npt.NDArray[np.float32] | None = None
    psf_fwhm_arcsec: npt.NDArray[np.float32] | None = None
    sky_sigma_njy: npt.NDArray[np.float32] | None = None

    def weight_of(self, rows: Rows) -> npt.NDArray[np.float32] | None:
        """Return the weights of some rows, (row,) float32; None: all equal."""
        return None if self.weight is None else self.weight[rows]


@dataclass(frozen=True)
class Split:
    """The rising rows (row,) int64 of the training, validation and test set. A training does not read the test set."""

    training: Rows
    validation: Rows
    test: Rows


def split_objects(
    object_id: npt.NDArray[Any], *, seed: int, validation_share: float, test_share: float
) -> Split:
    """Divide objects by a hash of (seed, id), so that an object's part does not depend on the other objects in the list.

    The shares hold on average: with N objects the sizes of the parts scatter by about sqrt(N) / 3.

    Parameters
    ----------
    object_id : (object,) int64 or str
    seed : seed of the hash
    validation_share, test_share : shares of the objects in the validation and test set; the rest are for training
    """
    keys = draw_keys(object_id, seed=seed, bundle_sha256="split", passes=[0])[:, 0]
    # The upper 53 bits of the hash as a number in [0, 1): float64 holds no more.
    place = (keys.view(np.uint64) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    test = place < test_share
    validation = ~test & (place < test_share + validation_share)
    return Split(np.flatnonzero(~test & ~validation), np.flatnonzero(validation), np.flatnonzero(test))


def cleaned_rows(images: ImageRows, rows: Rows, scale: float) -> npt.NDArray[np.float32]:
    """Return images (row, band, y, x) float32 in the network's unit, with non-finite pixels set to 0 as in inference."""
    return cleaned(np.asarray(images[rows], dtype=np.float32), scale)


def cleaned(images: npt.NDArray[np.float32], scale: float) -> npt.NDArray[np.float32]:
    """Return images (row, band, y, x) float32, nJy, in the network's unit, with non-finite pixels set to 0 as in inference."""
    found: npt.NDArray[np.float32] = images * np.float32(scale)
    found[~np.isfinite(found)] = 0.0
    return found


def has_center(images: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Return which images have finite pixels at the center, (object,) bool; inference gives the others no values."""
    return ~nonfinite_images(images)[1]


def data_fingerprint(images: ImageRows, labels: npt.NDArray[np.float64], extras: Extras) -> str:
    """Return a hash of all labels, ids, auxiliary inputs and weights, and of 32 of the images."""
    digest = hashlib.blake2b(repr(tuple(images.shape)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(labels, dtype=np.float64).tobytes())
    if extras.object_id is not None:
        digest.update("\n".join(map(str, extras.object_id.tolist())).encode())
    if extras.auxiliary is not None:
        digest.update(np.ascontiguousarray(extras.auxiliary, dtype=np.float32).tobytes())
    if extras.weight is not None:
        digest.update(np.ascontiguousarray(extras.weight, dtype=np.float32).tobytes())
    # The first and the last image are among them.
    some = np.unique(np.linspace(0, images.shape[0] - 1, FINGERPRINT_IMAGES).astype(np.int64))
    digest.update(np.ascontiguousarray(images[some], dtype=np.float32).tobytes())
    return digest.hexdigest()
