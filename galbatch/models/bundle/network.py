"""A loaded bundle: its metadata, the hash of its file, and the TorchScript module."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from galbatch.core.texts import html_card, html_table
from galbatch.models.bundle.info import BundleInfo
from galbatch.models.metadata import BundleMetadata
from galbatch.models.networks import prefix_arguments

__all__ = ["GLOBAL_GENERATOR", "Bundle", "call_prefix", "packed", "set_modes"]

GLOBAL_GENERATOR = threading.Lock()
"""Lock to hold while torch's global random generator is seeded and used, as all threads of a process share it."""


@dataclass(frozen=True, eq=False)
class Bundle(BundleInfo):
    """A loaded network, with what its file says of itself.

    Attributes
    ----------
    script : TorchScript module, in eval mode, on the CPU
    """

    script: Any

    @cached_property
    @torch.inference_mode()
    def n_features(self) -> int:
        """The number of last features, which `last_features` of the script gives for each object; 0 without that method."""
        if not self.has("last_features"):
            return 0
        auxiliary = torch.zeros(1, self.metadata.input.n_auxiliary)
        images = packed([torch.zeros(1, *one.shape) for one in self.metadata.input.images])
        features = self.prefix(images, auxiliary)
        return int(self.script.last_features(features).shape[1])

    def prefix(self, images: Tensor, auxiliary: Tensor | None = None) -> Tensor:
        """Compute everything before the first dropout, which is the same in all passes of an object.

        Parameters
        ----------
        images : (object, band, y, x) float32, in the bundle's unit; those of several grids as `packed` returns them; without
            bands, and not passed on, for networks that take columns alone
        auxiliary : (object, number) float32; not passed on to networks that take none

        Returns
        -------
        features that `sample` takes, with objects along the first axis
        """
        # Scripts of networks without auxiliary inputs may have a `prefix` of one argument: foreign ones do.
        taken = auxiliary if self.metadata.input.auxiliary_inputs else None
        given = images if self.metadata.input.takes_pixels else images[:, :0]
        return call_prefix(self.script, self.metadata, *prefix_arguments(given, taken))

    def sample(self, features: Tensor, keys: Tensor) -> Tensor:
        """Run one stochastic pass for each row.

        Parameters
        ----------
        features : features from `prefix`, with rows along the first axis
        keys : (row,) int64, from which the masks are drawn

        Returns
        -------
        (row, output) float32
        """
        if not getattr(self.script, "draws_from_global_generator", False):
            result: Tensor = self.script.sample(features, keys)
            return result
        # Foreign networks seed torch's global generator: only one may run at a time, and the generator's state is restored.
        devices = [features.device] if features.is_cuda else []
        with GLOBAL_GENERATOR, torch.random.fork_rng(devices=devices):
            foreign: Tensor = self.script.sample(features, keys)
        return foreign

    def __repr__(self) -> str:
        names = ", ".join(parameter.name for parameter in self.metadata.parameters)
        return (
            f"<Bundle {self.metadata.name} {self.metadata.version}: {names} from {self.metadata.input.text}>"
        )

    def _repr_html_(self) -> str:
        own = self.metadata
        auxiliary = ", ".join(one.label for one in own.input.auxiliary_inputs)
        rows = [
            ("architecture", own.architecture),
            *(
                (
                    "takes",
                    f"{one.size_px} x {one.size_px} px of {one.pixel_scale_arcsec:g} arcsec in {', '.join(one.bands)}",
                )
                for one in own.input.images
            ),
            *([("auxiliary inputs", auxiliary)] if auxiliary else []),
            ("passes", own.passes_text),
            ("trained on", own.training_data or "not stated"),
            ("licence", own.licence or "not stated"),
            ("sha256", self.sha256),
        ]
        heads = ("estimates", "unit", "description")
        table = html_table(
            heads, [(one.name, one.unit, one.description) for one in own.parameters], of_texts=True
        )
        return html_card(f"galbatch bundle {own.name} {own.version}", rows, blocks=[table])

    def has(self, method: str) -> bool:
        """Return whether the script has the method of that name.

        The optional methods are crop, last_features, top_features, sample_with_top and feature_maps.
        """
        return hasattr(self.script, method)


def packed(images: Sequence[Tensor]) -> Tensor:
    """Return the images of several grids, (object, band, y, x) each, as one tensor (object, 1, 1, number); those of one grid as they are.

    So engines, batches and memory have one tensor of images, whatever the network takes; `call_prefix` takes it apart.
    """
    if not images:
        return torch.zeros(1, 0, 0, 0)
    if len(images) == 1:
        return images[0]
    return torch.cat([one.flatten(1) for one in images], dim=1)[:, None, None]


def call_prefix(script: Any, metadata: BundleMetadata, *arguments: Tensor) -> Tensor:
    """Return what a script's `prefix` gives for arguments of `prefix_arguments`; images of several grids are passed on as a list."""
    if not metadata.input.more_grids:
        result: Tensor = script.prefix(*arguments)
        return result
    images, *auxiliary = arguments
    shapes = [one.shape for one in metadata.input.images]
    parts = torch.split(images.flatten(1), [math.prod(shape) for shape in shapes], dim=1)
    of_grids = [part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]
    of_several: Tensor = script.prefix(of_grids, *auxiliary)
    return of_several


def set_modes(script: Any) -> None:
    """Set eval mode everywhere but in the dropout modules of a foreign network with dropout, which drop nothing in eval mode."""
    script.eval()
    draws = getattr(script, "draws_from_global_generator", False)
    # Foreign networks that draw by themselves say apart from it whether they have dropout; older bundles do not.
    if draws and getattr(script, "has_dropout", True):
        for module in script.modules():
            # All scripted modules have the same Python class, so they are distinguished by the name of the class they were made from.
            if "Dropout" in module.original_name:
                module.train()
