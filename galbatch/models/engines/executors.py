"""Executors run passes: each takes images to features once an object, and features to outputs once a pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from galbatch.models.bundle import Bundle
from galbatch.models.engines.switches import in_repeatable_float32

__all__ = ["CPU", "Executor", "Prepared", "ScriptExecutor", "rows_in_cache", "script_top_features"]

CPU = torch.device("cpu")

# Of the first maps of a batch: beyond the processor's cache a pass takes 1.5 times as long.
CACHE_BYTES = 8 * 2**20
FEWEST_ROWS = 8  # with fewer rows the weights are read too often


class Prepared(Protocol):
    """A few objects, ready for passes.

    Attributes
    ----------
    last : (object, feature) float32, without dropout; None if the network has none
    crop : (object,) float32, the transformer's scale; None if the network has none
    """

    @property
    def last(self) -> Tensor | None: ...

    @property
    def crop(self) -> Tensor | None: ...

    def rows_at_once(self, batch: int) -> int:
        """Rows to give to `passes`, at most `batch`."""
        ...

    def passes(self, rows: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """One pass for each of `rows`, (row,) int64, which name objects, with keys (row,) int64.

        Returns
        -------
        outputs : (row, output) float32
        fired : (row, rank) int64, the largest features of the pass; no ranks: the network does not say
        """
        ...


class Executor(Protocol):
    """One network, ready to run on one device."""

    @property
    def device(self) -> torch.device:
        """The device that it runs on."""
        ...

    def prepare(self, images: Tensor, auxiliary: Tensor | None) -> Prepared:
        """Compute what is the same in all passes of an object; images (object, band, y, x) and auxiliary inputs (object, auxiliary input) float32, on the device."""
        ...

    def top_features(self, last: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return index (object, rank) int64 and activation float32 of the largest of the last features; None: it has none."""
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

    @in_repeatable_float32
    def prepare(self, images: Tensor, auxiliary: Tensor | None) -> ScriptPrepared:
        script = self.bundle.script
        features = self.bundle.prefix(images, auxiliary)
        last = script.last_features(features) if self.bundle.has("last_features") else None
        crop = script.crop(images) if self.bundle.has("crop") else None
        return ScriptPrepared(self.bundle, features, last, crop)

    @in_repeatable_float32
    def top_features(self, last: Tensor) -> tuple[Tensor, Tensor] | None:
        return script_top_features(self.bundle, last)


def script_top_features(bundle: Bundle, last: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return what `Executor.top_features` does, computed by the script on its device."""
    if not bundle.has("top_features"):
        return None
    index, activation = bundle.script.top_features(last)
    return index, activation


@dataclass(frozen=True)
class ScriptPrepared:
    """A few objects ready for passes of the script; `features` are those of its prefix."""

    bundle: Bundle
    features: Tensor
    last: Tensor | None
    crop: Tensor | None

    @property
    def device(self) -> torch.device:
        """The device of the features."""
        return self.features.device

    def rows_at_once(self, batch: int) -> int:
        return rows_in_cache(self.features, batch)

    @in_repeatable_float32
    def passes(self, rows: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features[rows]
        if self.bundle.has("sample_with_top"):
            outputs, fired, _ = self.bundle.script.sample_with_top(features, keys)
            return outputs, fired
        none = torch.empty((len(keys), 0), dtype=torch.int64, device=keys.device)
        return self.bundle.sample(features, keys), none


def rows_in_cache(features: Tensor, batch: int) -> int:
    """Rows whose first maps the processor's cache holds, at most `batch`; on a GPU `batch`."""
    if features.device.type != "cpu":
        return batch
    row_bytes = features[0].numel() * features.element_size()
    return min(batch, max(FEWEST_ROWS, CACHE_BYTES // row_bytes))
