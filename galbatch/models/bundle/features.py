"""Maps of where in the image the features of a sparse network (SFNet) fire."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from galbatch.errors import BundleError
from galbatch.models.bundle.network import Bundle

__all__ = ["FeatureMaps", "localize"]

# ResNet-18 halves its maps five times, so pixel i of the last maps is centered on pixel 32 i of the image.
STRIDE_PX = 32


@dataclass(frozen=True)
class FeatureMaps:
    """Features of objects, and the maps that show where in the image they fire.

    Attributes
    ----------
    index : (object, rank) int64, number of the feature; -1 where there is none
    activation : (object, rank) float32, the mean of the feature's map; NaN where there is none
    maps : (object, rank, y, x) float32, the feature's map in the last convolution, whose pixel (y, x) is centered on
        pixel (32 y, 32 x) of the image; NaN where there is no feature
    size_px : side of the images, in pixels
    """

    index: npt.NDArray[np.int64]
    activation: npt.NDArray[np.float32]
    maps: npt.NDArray[np.float32]
    size_px: int

    def on_image(self) -> npt.NDArray[np.float32]:
        """Return the maps on the images' pixels, (object, rank, y, x) float32, interpolated linearly."""
        n = self.maps.shape[-1]
        # Linear interpolation as a matrix (pixel of the image, pixel of the map), applied along y and along x.
        place = np.minimum(np.arange(self.size_px) / STRIDE_PX, n - 1)
        weight = np.maximum(0.0, 1.0 - np.abs(place[:, None] - np.arange(n)))
        return (weight @ self.maps @ weight.T).astype(np.float32)  # (object, rank, y, x) of the image

    def peak_px(self) -> npt.NDArray[np.int64]:
        """Return the image pixel at which each map is brightest.

        Returns
        -------
        (object, rank, 2) int64, 0-based, in the order y, x; -1 where there is no feature
        """
        n = self.maps.shape[-1]
        # (object, rank)
        flat = np.nan_to_num(self.maps, nan=0.0).reshape(*self.maps.shape[:2], -1).argmax(axis=-1)
        peaks = np.stack([flat // n, flat % n], axis=-1) * STRIDE_PX
        return np.where((self.index < 0)[..., None], -1, np.minimum(peaks, self.size_px - 1))


@torch.inference_mode()
def localize(
    bundle: Bundle, images: npt.NDArray[np.float32], *, index: npt.NDArray[np.int64] | None = None
) -> FeatureMaps:
    """Return the maps of features, which show where in the images they fire, in the pass without dropout.

    Parameters
    ----------
    bundle : bundle of a sparse network
    images : (object, band, y, x) float32, nJy, such as ``image`` of a cutout store; pixels that are not finite count as 0
    index : (object, rank) int64, numbers of the features; None: those that fired, as in the catalog's columns

    Raises
    ------
    BundleError
        The bundle's script gives no features, or no maps of them.
    """
    missing = [m for m in ("last_features", "top_features", "feature_maps") if not bundle.has(m)]
    if missing:
        raise BundleError(
            f"{bundle.metadata.name}: its script has no method {missing[0]}, so it cannot say where features fire; "
            "SFNets trained or converted by this version have it"
        )
    # As inference sees them: in the bundle's unit, 0 (the sky's level) where a pixel is missing.
    finite = np.where(np.isfinite(images), images, 0.0)
    unit_njy = bundle.metadata.input.njy_per_unit
    features = bundle.prefix(torch.from_numpy((finite / unit_njy).astype(np.float32)))
    last = bundle.script.last_features(features)
    if index is None:
        chosen, activation = bundle.script.top_features(last)
    else:
        chosen = torch.from_numpy(np.asarray(index, dtype=np.int64))
        activation = last.gather(1, chosen.clamp(min=0)).masked_fill(chosen < 0, float("nan"))
    maps = bundle.script.feature_maps(features, chosen)
    return FeatureMaps(chosen.numpy(), activation.numpy(), maps.numpy(), images.shape[-1])
