"""Where in the image the features of a sparse network fire."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from galbatch.core.types import njy_per_unit
from galbatch.errors import BundleError
from galbatch.models.bundle.network import Bundle

__all__ = ["FeatureMaps", "localize"]

STRIDE_PX = 32  # of ResNet-18's last maps: pixel i looks at the image about pixel 32 i


@dataclass(frozen=True)
class FeatureMaps:
    """Where in the images features fire.

    Attributes
    ----------
    index : (object, rank) int64, number of the feature; -1: none
    activation : (object, rank) float32, the mean of its map; NaN: none
    maps : (object, rank, y, x) float32, its map in the last convolution; pixel (y, x) looks at the image about
        pixel (32 y, 32 x); NaN: none
    size_px : side of the images
    """

    index: npt.NDArray[np.int64]
    activation: npt.NDArray[np.float32]
    maps: npt.NDArray[np.float32]
    size_px: int

    def on_image(self) -> npt.NDArray[np.float32]:
        """Return the maps on the images' pixels, (object, rank, y, x) float32, interpolated linearly."""
        n = self.maps.shape[-1]
        place = np.minimum(np.arange(self.size_px) / STRIDE_PX, n - 1)
        weight = np.maximum(0.0, 1.0 - np.abs(place[:, None] - np.arange(n)))
        return (weight @ self.maps @ weight.T).astype(np.float32)

    def peak_px(self) -> npt.NDArray[np.int64]:
        """Return the image pixel (object, rank, 2), in the order y, x, about which the map is brightest; -1: none."""
        n = self.maps.shape[-1]
        flat = np.nan_to_num(self.maps, nan=0.0).reshape(*self.maps.shape[:2], -1).argmax(axis=-1)
        peaks = np.stack([flat // n, flat % n], axis=-1) * STRIDE_PX
        return np.where((self.index < 0)[..., None], -1, np.minimum(peaks, self.size_px - 1))


@torch.inference_mode()
def localize(
    bundle: Bundle, images: npt.NDArray[np.float32], *, index: npt.NDArray[np.int64] | None = None
) -> FeatureMaps:
    """Return where in the images features fire, in the pass without dropout.

    Parameters
    ----------
    bundle : of a sparse network
    images : (object, band, y, x) float32, nJy, such as ``image`` of a cutout store; pixels that are not finite count as 0
    index : (object, rank) int64, which features; None: those that fired, as in the catalog's columns

    Raises
    ------
    BundleError
        The bundle's script has no features or gives no maps.
    """
    missing = [m for m in ("last_features", "top_features", "feature_maps") if not bundle.has(m)]
    if missing:
        raise BundleError(
            f"{bundle.metadata.name}: its script has no method {missing[0]}, so it cannot say where features fire; "
            "SFNets trained or converted by this version have it"
        )
    finite = np.where(np.isfinite(images), images, 0.0)
    unit_njy = njy_per_unit(bundle.metadata.input.zero_point_mag)
    features = bundle.prefix(torch.from_numpy((finite / unit_njy).astype(np.float32)))
    last = bundle.script.last_features(features)
    if index is None:
        chosen, activation = bundle.script.top_features(last)
    else:
        chosen = torch.from_numpy(np.asarray(index, dtype=np.int64))
        activation = last.gather(1, chosen.clamp(min=0)).masked_fill(chosen < 0, float("nan"))
    maps = bundle.script.feature_maps(features, chosen)
    return FeatureMaps(chosen.numpy(), activation.numpy(), maps.numpy(), images.shape[-1])
