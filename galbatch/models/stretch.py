"""What a network does to pixel values before anything is learned; part of its script."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Arsinh", "AsTheyAre"]


class Arsinh(nn.Module):
    """Arsinh of the pixels, in the bundle's unit."""

    def forward(self, images: Tensor) -> Tensor:
        """(object, band, y, x) float32 to the same."""
        return torch.arcsinh(images)


class AsTheyAre(nn.Module):
    """The pixels themselves, in the bundle's unit."""

    def forward(self, images: Tensor) -> Tensor:
        """(object, band, y, x) float32 to the same."""
        return images
