"""Executors, which run passes: they compute features once for each object, and outputs once for each pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Tensor

from galbatch.models.bundle import Bundle
from galbatch.models.engines.switches import in_repeatable_float32

__all__ = [
    "CPU",
    "Executor",
    "Prepared",
    "ScriptExecutor",
    "join_objects",
    "rows_in_cache",
    "script_top_features",
    "take_objects",
]

CPU = torch.device("cpu")

# The size of the first maps of all rows that run together: beyond the processor's cache a pass takes 1.5 times as long.
CACHE_BYTES = 8 * 2**20
FEWEST_ROWS = 8  # With fewer rows, reading the weights takes more time than fitting into the cache saves.


class Prepared(Protocol):
    """A group of objects whose features are computed, so that passes can run.

    Attributes
    ----------
    last : (object, feature) float32, without dropout; None if the network has none
    crop : (object,) float32, the transformer's scale; None if the network has none
    """

    @property
    def last(self) -> Tensor | None:
        """The last features of each object, from the pass without dropout."""
        ...

    @property
    def crop(self) -> Tensor | None:
        """The scale of the spatial transformer for each object."""
        ...

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """All tensors that are kept for the objects, (object, ..) each."""
        ...

    def take(self, rows: Tensor) -> Self:
        """Return the objects with these indices, (object,) int64, as a group of their own."""
        ...

    def join(self, others: Sequence[Self]) -> Self:
        """Return the objects of this group and of others of the same executor as one group, in this order."""
        ...

    def rows_at_once(self, batch: int) -> int:
        """Return the number of rows to give to `passes` at a time, at most `batch`."""
        ...

    def passes(self, rows: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Run one pass for each row.

        Parameters
        ----------
        rows : (row,) int64, index of each row's object in the group
        keys : (row,) int64, from which the dropout masks are drawn

        Returns
        -------
        outputs : (row, output) float32
        fired : (row, rank) int64, numbers of the largest features in the pass; (row, 0) if the network does not give them
        """
        ...


class Executor(Protocol):
    """One network, ready to run on one device."""

    @property
    def device(self) -> torch.device:
        """The device that the network runs on."""
        ...

    @property
    def filters_bytes(self) -> int:
        """The bytes of transformed filters that it holds beside the weights."""
        ...

    def prepare(self, images: Tensor, auxiliary: Tensor | None) -> Prepared:
        """Compute everything that is the same in all passes of an object.

        Parameters
        ----------
        images : (object, band, y, x) float32, on the device, in the bundle's unit
        auxiliary : (object, number) float32, on the device; None for a network that takes none
        """
        ...

    def top_features(self, last: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the largest features of each object; None if the network has none.

        Parameters
        ----------
        last : (object, feature) float32, last features

        Returns
        -------
        index : (object, rank) int64; -1 where fewer features fired
        activation : (object, rank) float32; NaN where fewer features fired
        """
        ...


@dataclass(frozen=True)
class ScriptExecutor:
    """The executor that runs the bundle's own script, in float32.

    Attributes
    ----------
    bundle : bundle whose script is on the device
    device : device of the script
    """

    bundle: Bundle
    device: torch.device = CPU

    @property
    def filters_bytes(self) -> int:
        """0: scripts run as they are."""
        return 0

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
    """Return index and activation of the largest features, as `Executor.top_features`, computed by the bundle's script."""
    if not bundle.has("top_features"):
        return None
    index, activation = bundle.script.top_features(last)
    return index, activation


@dataclass(frozen=True)
class ScriptPrepared:
    """A group of objects ready for passes of the script; `features` are what its `prefix` returned."""

    bundle: Bundle
    features: Tensor
    last: Tensor | None
    crop: Tensor | None

    @property
    def device(self) -> torch.device:
        """The device of the features."""
        return self.features.device

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return self.features, self.last, self.crop

    def take(self, rows: Tensor) -> ScriptPrepared:
        features, last, crop = (take_objects(part, rows) for part in self.tensors)
        return replace(self, features=_there(features), last=last, crop=crop)

    def join(self, others: Sequence[ScriptPrepared]) -> ScriptPrepared:
        groups = zip(*(one.tensors for one in (self, *others)), strict=True)
        features, last, crop = (join_objects(parts) for parts in groups)
        return replace(self, features=_there(features), last=last, crop=crop)

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


def _there(tensor: Tensor | None) -> Tensor:
    assert tensor is not None, "every group has features"
    return tensor


def take_objects(tensor: Tensor | None, rows: Tensor) -> Tensor | None:
    """Return the objects with the indices `rows` of a tensor (object, ..), in its memory format; None stays None."""
    return None if tensor is None else _in_format_of(tensor, tensor[rows])


def join_objects(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Return tensors (object, ..) of several groups as one, in the memory format of the first; None where there are none."""
    there = [part for part in parts if part is not None]
    return _in_format_of(there[0], torch.cat(there)) if there else None


def _in_format_of(like: Tensor, tensor: Tensor) -> Tensor:
    """Return the tensor with channels last in memory where `like` has them so: a dropout's zeros are written by that order."""
    if like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last):
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor


def rows_in_cache(features: Tensor, batch: int) -> int:
    """Return the number of rows whose first maps fit into the processor's cache, at most `batch`; on a GPU `batch`."""
    if features.device.type != "cpu":
        return batch
    row_bytes = features[0].numel() * features.element_size()
    return min(batch, max(FEWEST_ROWS, CACHE_BYTES // row_bytes))
