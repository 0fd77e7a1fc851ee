"""A loaded bundle: its metadata, its identity, and the script that computes."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from galbatch.core.types import Grid
from galbatch.models.metadata import BundleMetadata

__all__ = ["GLOBAL_GENERATOR", "Bundle", "set_modes"]

GLOBAL_GENERATOR = threading.Lock()
"""Held by whoever seeds torch's global generator, which all threads of a process share."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """A loaded network.

    Attributes
    ----------
    metadata : what it says of itself
    sha256 : of its file
    script : the TorchScript module, in eval mode, on the CPU
    """

    metadata: BundleMetadata
    sha256: str
    script: Any

    @property
    def grid(self) -> Grid:
        """The cutouts it takes."""
        return Grid(self.metadata.input.size_px, self.metadata.input.pixel_scale_arcsec)

    @property
    def bands(self) -> tuple[str, ...]:
        """Its bands, in the order of the image axis."""
        return self.metadata.input.bands

    def prefix(self, images: Tensor, auxiliary: Tensor | None = None) -> Tensor:
        """Everything before the first dropout; images (object, band, y, x) float32 in the bundle's unit.

        Bundles that take auxiliary inputs are given them, (object, auxiliary input) float32.
        """
        takes_auxiliary = bool(self.metadata.input.auxiliary_inputs)
        result: Tensor = (
            self.script.prefix(images, auxiliary) if takes_auxiliary else self.script.prefix(images)
        )
        return result

    def sample(self, features: Tensor, keys: Tensor) -> Tensor:
        """One pass for each row: (row, output) float32, of features of `prefix` and keys (row,) int64."""
        if not getattr(self.script, "draws_from_global_generator", False):
            result: Tensor = self.script.sample(features, keys)
            return result
        # Foreign networks seed torch's global generator: one at a time, and it is given back as it was.
        devices = [features.device] if features.is_cuda else []
        with GLOBAL_GENERATOR, torch.random.fork_rng(devices=devices):
            foreign: Tensor = self.script.sample(features, keys)
        return foreign

    def has(self, method: str) -> bool:
        """Whether the script has an optional method: crop, last_features, top_features, sample_with_top, feature_maps."""
        return hasattr(self.script, method)


def set_modes(script: Any) -> None:
    """Set eval mode, but for the dropout modules of a foreign network that draws: these draw in training mode only."""
    script.eval()
    if getattr(script, "draws_from_global_generator", False):
        for module in script.modules():
            # The Python class of all scripted modules is the same.
            if "Dropout" in module.original_name:
                module.train()
