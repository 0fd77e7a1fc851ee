"""The intensity stretch: the function of pixel values that a network applies before its first layer, inside its script."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["LAYERS", "Arsinh", "AsTheyAre", "Layer", "ViewerRgb", "stretch_named"]

SOFTENING = 20.0  # The formula's Q in the viewer's code.
NOTHING = 1e-6  # Used for a brightness of 0, by which the gain would be divided.


class Arsinh(nn.Module):
    """The intensity stretch arsinh(pixel value), with pixel values in the bundle's unit."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the images after the stretch; both (object, band, y, x) float32."""
        return torch.arcsinh(images)


class AsTheyAre(nn.Module):
    """The intensity stretch that changes nothing: pixel values in the bundle's unit."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the images after the stretch; both (object, band, y, x) float32."""
        return images


@dataclass(frozen=True)
class Layer:
    """The constants by which the Legacy Surveys' viewer makes colors of one of its layers.

    Attributes
    ----------
    bands : bands that become red, green and blue
    scales : factors on the fluxes of these bands
    offset : constant that is added afterwards, so that the sky is not black
    native_px_arcsec : pixel scale of the layer's own images. The viewer interpolates their values, so at any scale that is
        asked for they are fluxes per pixel of that size
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
    """The colors that the Legacy Surveys' viewer shows, from 0 to 1, before they are rounded to 8 bits and compressed.

    With x_b = scale_b flux_b + offset and I the mean over the bands of those above 0, a band becomes
    x_b arsinh(Q I) / (sqrt(Q) I), Q = 20, cut to [0, 1] (after Lupton et al. 2004, but bright pixels turn white).

    Parameters
    ----------
    layer : constants of the viewer's layer
    pixel_scale_arcsec : pixel scale of the images, which hold fluxes per pixel in nanomaggies
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


def stretch_named(name: str, *, pixel_scale_arcsec: float) -> nn.Module:
    """Return the intensity stretch of a name: none, arsinh, or a layer of the viewer.

    Parameters
    ----------
    pixel_scale_arcsec : pixel scale of the images, on which the colors of a layer depend

    Raises
    ------
    KeyError
        There is no stretch of this name.
    """
    if name == "none":
        return AsTheyAre()
    return Arsinh() if name == "arsinh" else ViewerRgb(LAYERS[name], pixel_scale_arcsec)
