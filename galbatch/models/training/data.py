"""The data of a training: images by row, their split by object id, and a fingerprint of the whole."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from galbatch.models.inference.block import nonfinite_images
from galbatch.models.networks import draw_keys

__all__ = ["Extras", "ImageRows", "Split", "cleaned_rows", "data_fingerprint", "has_center", "split_objects"]

Rows = npt.NDArray[np.int64]

FINGERPRINT_IMAGES = 32


class ImageRows(Protocol):
    """Images that can be had by row: an array, a memory map, or anything that is indexed like one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes object, band, y, x."""

    def __getitem__(self, rows: Any, /) -> Any:
        """Images of some rows, (row, band, y, x) float32 nJy; `rows` (row,) int64 rises."""


@dataclass(frozen=True)
class Extras:
    """Facts about the objects other than images and labels.

    Attributes
    ----------
    object_id : (object,) int64 or str, what the split hangs on; None: their numbers, from 0
    auxiliary : (object, auxiliary input) float32, in the order of the settings; None: there are none
    psf_fwhm_arcsec, sky_sigma_njy : (object, band) float32, for the bundle's domain, NaN where not known; None: not known,
        the sky is measured in the images
    """

    object_id: npt.NDArray[Any] | None = None
    auxiliary: npt.NDArray[np.float32] | None = None
    psf_fwhm_arcsec: npt.NDArray[np.float32] | None = None
    sky_sigma_njy: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Split:
    """Rows (row,) int64, rising, of the three parts. `test` is left alone by the training."""

    training: Rows
    validation: Rows
    test: Rows


def split_objects(
    object_id: npt.NDArray[Any], *, seed: int, validation_share: float, test_share: float
) -> Split:
    """Divide objects by a hash of (seed, id), so that an object's part does not depend on what else is in the list.

    The shares hold on average: the parts of N objects differ from them by about sqrt(N) / 3.

    Parameters
    ----------
    object_id : (object,) int64 or str
    """
    keys = draw_keys(object_id, seed=seed, bundle_sha256="split", passes=[0])[:, 0]
    # The upper 53 bits of the hash as a number in [0, 1).
    place = (keys.view(np.uint64) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    test = place < test_share
    validation = ~test & (place < test_share + validation_share)
    return Split(np.flatnonzero(~test & ~validation), np.flatnonzero(validation), np.flatnonzero(test))


def cleaned_rows(images: ImageRows, rows: Rows, scale: float) -> npt.NDArray[np.float32]:
    """Images (row, band, y, x) float32 in the network's unit, non-finite pixels 0 as at inference."""
    found = np.asarray(images[rows], dtype=np.float32) * np.float32(scale)
    found[~np.isfinite(found)] = 0.0
    return found


def has_center(images: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Tell whether there is anything to measure, (object,) bool: inference gives other objects no value."""
    return ~nonfinite_images(images)[1]


def data_fingerprint(images: ImageRows, labels: npt.NDArray[np.float64], extras: Extras) -> str:
    """Hash of all labels, ids and auxiliary inputs, and of some of the images: all of them may be 100 GB."""
    digest = hashlib.blake2b(repr(tuple(images.shape)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(labels, dtype=np.float64).tobytes())
    if extras.object_id is not None:
        digest.update("\n".join(map(str, extras.object_id.tolist())).encode())
    if extras.auxiliary is not None:
        digest.update(np.ascontiguousarray(extras.auxiliary, dtype=np.float32).tobytes())
    # First and last among them, so that a file that grew or was cut is noticed.
    some = np.unique(np.linspace(0, images.shape[0] - 1, FINGERPRINT_IMAGES).astype(np.int64))
    digest.update(np.ascontiguousarray(images[some], dtype=np.float32).tobytes())
    return digest.hexdigest()
