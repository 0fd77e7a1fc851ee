"""What runs passes: an executor takes images to features once an object, and features to outputs once a pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from galbatch.models.bundle import Bundle

__all__ = ["CPU", "Executor", "Prepared", "ScriptExecutor"]

CPU = torch.device("cpu")

CACHE_BYTES = (
    8 * 2**20
)  # of first maps a batch may hold: beyond the processor's cache a pass takes 1.5 times as long
FEWEST_ROWS = 8  # below that the weights are read too often


@dataclass(frozen=True)
class Prepared:
    """What is computed once an object, on the executor's device.

    Attributes
    ----------
    features : (object, ...) before the first dropout
    last : (object, feature) float32, without dropout; None if the network has none
    crop : (object,) float32, the transformer's scale; None if the network has none
    """

    features: Tensor
    last: Tensor | None
    crop: Tensor | None


class Executor(Protocol):
    """One network, ready to run on one device."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        ...

    def prepare(self, images: Tensor, columns: Tensor | None) -> Prepared:
        """What is computed once an object; images (object, band, y, x) and columns (object, column) float32, on the device."""
        ...

    def rows_at_once(self, prepared: Prepared, batch: int) -> int:
        """Rows to give to `passes`, at most `batch`."""
        ...

    def passes(self, prepared: Prepared, rows: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """One pass for each of `rows`, (row,) int64, which name objects, with keys (row,) int64.

        Returns
        -------
        outputs : (row, output) float32
        fired : (row, rank) int64, the largest features of the pass; no ranks: the network does not tell
        """
        ...

    def top_features(self, last: Tensor) -> tuple[Tensor, Tensor] | None:
        """Index (object, rank) int64 and activation float32 of the largest of the last features; None: it has none."""
        ...


@dataclass(frozen=True)
class ScriptExecutor:
    """The bundle's own script, float32.

    Attributes
    ----------
    bundle : its script is on the device
    device : where it runs
    """

    bundle: Bundle
    device: torch.device = CPU

    def prepare(self, images: Tensor, columns: Tensor | None) -> Prepared:
        """See `Executor`."""
        script = self.bundle.script
        features = self.bundle.prefix(images, columns)
        last = script.last_features(features) if self.bundle.has("last_features") else None
        return Prepared(features, last, script.crop(images) if self.bundle.has("crop") else None)

    def rows_at_once(self, prepared: Prepared, batch: int) -> int:
        """As many as fit the processor's cache."""
        if self.device.type != "cpu":
            return batch
        row_bytes = prepared.features[0].numel() * prepared.features.element_size()
        return min(batch, max(FEWEST_ROWS, CACHE_BYTES // row_bytes))

    def passes(self, prepared: Prepared, rows: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """See `Executor`."""
        features = prepared.features[rows]
        if self.bundle.has("sample_with_top"):
            outputs, fired, _ = self.bundle.script.sample_with_top(features, keys)
            return outputs, fired
        none = torch.empty((len(keys), 0), dtype=torch.int64, device=self.device)
        return self.bundle.sample(features, keys), none

    def top_features(self, last: Tensor) -> tuple[Tensor, Tensor] | None:
        """See `Executor`."""
        if not self.bundle.has("top_features"):
            return None
        index, activation = self.bundle.script.top_features(last)
        return index, activation
