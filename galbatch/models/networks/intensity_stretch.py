"""The intensity stretch: what is done to pixel values before the first layer. It is part of a network's script."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["LAYERS", "Arsinh", "AsTheyAre", "Layer", "ViewerRgb"]

SOFTENING = 20.0  # the formula's Q
NOTHING = 1e-6  # stands for a brightness of 0, which nothing is divided by


class Arsinh(nn.Module):
    """Arsinh of the pixels, in the bundle's unit."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the stretched images; both (object, band, y, x) float32."""
        return torch.arcsinh(images)


class AsTheyAre(nn.Module):
    """The pixels themselves, in the bundle's unit."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the stretched images; both (object, band, y, x) float32."""
        return images


@dataclass(frozen=True)
class Layer:
    """The formula by which the Legacy Surveys' viewer makes colors of one of its layers.

    Attributes
    ----------
    bands : that become red, green and blue
    scales : what each band is multiplied by
    offset : added after that, so that the sky is not black
    native_px_arcsec : pixels of the layer's own images: the viewer interpolates their values, so that they are
        fluxes per pixel of that size at any scale asked for
    """

    bands: tuple[str, str, str]
    scales: tuple[float, float, float]
    offset: float
    native_px_arcsec: float


LAYERS = {
    "sdss": Layer(("i", "r", "g"), (1.0, 1.5, 2.5), 0.02, 0.396),
    "legacy": Layer(("z", "r", "g"), (2.2, 3.4, 6.0), 0.03, 0.262),
}
"""Layers of the viewer: SDSS, and the Legacy Surveys' own up to DR9."""


class ViewerRgb(nn.Module):
    """Colors as the Legacy Surveys' viewer shows them, from 0 to 1, before they are rounded to 8 bits and compressed.

    With x_b = scale_b flux_b + offset and I the mean over the bands of those above 0, a band becomes
    x_b arsinh(Q I) / (sqrt(Q) I), Q = 20, cut to [0, 1] (after Lupton et al. 2004, but bright pixels turn white).

    Parameters
    ----------
    layer : which colors
    pixel_scale_arcsec : of the images, which hold fluxes per pixel in nanomaggies
    """

    def __init__(self, layer: Layer, pixel_scale_arcsec: float) -> None:
        super().__init__()
        per_native_px = (layer.native_px_arcsec / pixel_scale_arcsec) ** 2
        scale = torch.tensor(layer.scales, device="cpu") * per_native_px
        self.scale = nn.Buffer(scale.reshape(1, 3, 1, 1))
        self.offset = layer.offset
        self.softening = SOFTENING
        self.root = SOFTENING**0.5
        self.least = NOTHING

    def forward(self, images: Tensor) -> Tensor:
        """Return colors in [0, 1] of images in nanomaggies; both (object, band, y, x) float32, red to blue."""
        x = images * self.scale + self.offset
        mean = x.clamp(min=0.0).mean(dim=1, keepdim=True).clamp(min=self.least)
        gain = torch.arcsinh(self.softening * mean) / (self.root * mean)
        colors: Tensor = (x * gain).clamp(0.0, 1.0)
        return colors
