"""Running a network: the deterministic part once for each object, then one row for each object and pass."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from galbatch.core.types import BLOCK_OBJECTS
from galbatch.models.bundle import Bundle
from galbatch.models.engines.executors import Executor, ScriptExecutor
from galbatch.models.posterior.devices.arrays import PassArray, join_arrays, split_rows
from galbatch.models.posterior.devices.transfer import to_host

__all__ = [
    "GROUP_OBJECTS",
    "OUTPUT_BYTES",
    "PassOutputs",
    "RawPasses",
    "Sampler",
    "TopFeatures",
    "join_raw_passes",
    "places_for",
    "run_passes",
]

# Objects that are prepared together: the first maps of a full GaMPEN take 15 MB per object at 239 px.
GROUP_OBJECTS = 16
# Objects whose passes run together: a group, and half as many of earlier groups that are still running. More where they take little memory.
FEWEST_PLACES = 24
PLACES_BYTES = {"cpu": 2**26, "cuda": 2**30}
OUTPUT_BYTES = 8  # Outputs are float32, and exist twice while later passes are joined to them.


def places_for(object_bytes: int, device: str) -> int:
    """Return the number of objects whose passes run together: a multiple of a group of 16, or 24 where these take much memory.

    With many places all objects of a block reach a checkpoint together. Their errors are estimated at once, which for one object
    costs nearly as much as for 16, and batches are full. The number depends on the network and the settings alone, not on the machine.

    Parameters
    ----------
    object_bytes : memory of an object while its passes run: features on the device, and outputs
    device : cpu or cuda
    """
    n_groups = PLACES_BYTES[device] // max(1, object_bytes) // GROUP_OBJECTS
    return max(FEWEST_PLACES, min(BLOCK_OBJECTS, n_groups * GROUP_OBJECTS))


@dataclass(frozen=True)
class PassOutputs:
    """The outputs of passes for some objects, all in the host's memory or all on the device.

    Attributes
    ----------
    outputs : (object, pass, output) float32
    fired : (object, pass, rank) int64, numbers of the largest features in each pass; (object, pass, 0) if the network does not
        give them
    """

    outputs: PassArray
    fired: PassArray


@dataclass(frozen=True)
class TopFeatures:
    """The largest features of objects.

    Attributes
    ----------
    index, activation : (object, rank) int64 and float32, number and activation of each feature in the pass without dropout
    frequency : (object, rank) float32, share of the passes in which the feature was among the largest; NaN where there is no
        feature, or the network does not give those of each pass
    """

    index: npt.NDArray[np.int64]
    activation: npt.NDArray[np.float32]
    frequency: npt.NDArray[np.float32]


class Sampler:
    """A sampler that runs passes for a group of objects, whose features stay on the executor's device.

    Parameters
    ----------
    executor : executor of the network
    images : (object, band, y, x) float32, finite, in the bundle's unit; for up to `GROUP_OBJECTS` objects
    batch : largest number of rows that run at a time
    auxiliary : (object, number) float32, finite; None for a network that takes none
    keeps_on_device : whether outputs of passes stay on the executor's device, as tensors; if not, they are arrays

    Attributes
    ----------
    last : (object, feature) float32, last features without dropout; None if the network has none
    crop : (object,) float32, scale of the spatial transformer; None if the network has none
    """

    @torch.inference_mode()
    def __init__(
        self,
        executor: Executor,
        images: npt.NDArray[np.float32],
        *,
        batch: int,
        auxiliary: npt.NDArray[np.float32] | None = None,
        keeps_on_device: bool = False,
    ) -> None:
        self._executor = executor
        self._keeps_on_device = keeps_on_device
        # Small groups are filled up: with a few rows torch takes other kernels, which add up in another order, and an object's values
        # must not depend on how many others run with it.
        n = len(images)
        filled = np.arange(max(n, GROUP_OBJECTS)) % n
        on_device = None if auxiliary is None else self._to_device(auxiliary[filled])
        self._prepared = executor.prepare(self._to_device(images[filled]), on_device)
        self._batch = self._prepared.rows_at_once(batch)
        self.is_filled = n < GROUP_OBJECTS
        self._set_features(n)

    def _set_features(self, n_objects: int) -> None:
        """Set what is known of the first `n_objects` objects that are prepared."""
        self.n_objects = n_objects
        self._last = None if self._prepared.last is None else self._prepared.last[:n_objects]
        self.last = _to_host(self._last)
        self.crop = _to_host(None if self._prepared.crop is None else self._prepared.crop[:n_objects])

    @property
    def object_bytes(self) -> int:
        """The memory on the device that an object takes while its passes run."""
        kept = [tensor for tensor in self._prepared.tensors if tensor is not None]
        return sum(tensor.nbytes // len(tensor) for tensor in kept)

    @torch.inference_mode()
    def take(self, rows: npt.NDArray[np.intp]) -> Sampler:
        """Return a sampler of the objects with these indices."""
        taken = copy.copy(self)
        taken._prepared = self._prepared.take(self._to_device(rows.astype(np.int64)))
        taken.is_filled = False
        taken._set_features(len(rows))
        return taken

    @torch.inference_mode()
    def join(self, others: Sequence[Sampler]) -> Sampler:
        """Return a sampler of the objects of this one and of others of the same executor, in this order."""
        if not others:
            return self
        parts = [one.take(np.arange(one.n_objects)) if one.is_filled else one for one in (self, *others)]
        joined = copy.copy(parts[0])
        joined._prepared = parts[0]._prepared.join([part._prepared for part in parts[1:]])
        joined._set_features(sum(part.n_objects for part in parts))
        return joined

    def run(self, rows: npt.NDArray[np.intp], keys: npt.NDArray[np.int64]) -> PassOutputs:
        """Run passes for some of the objects.

        Parameters
        ----------
        rows : (object,) indices of the objects
        keys : (object, pass) int64, from which the masks are drawn
        """
        (found,) = self.run_together([(rows, keys)])
        return found

    @torch.inference_mode()
    def run_together(
        self, wanted: Sequence[tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]]
    ) -> list[PassOutputs]:
        """Run passes for several sets of objects in common batches, each set with its own number of passes; `rows` and `keys` as for `run`."""
        objects = self._to_device(
            np.concatenate([np.repeat(rows.astype(np.int64), keys.shape[1]) for rows, keys in wanted])
        )
        flat = self._to_device(np.concatenate([keys.reshape(-1) for _, keys in wanted]))
        found: list[Tensor] = []
        for start in range(0, len(flat), self._batch):
            some = slice(start, start + self._batch)
            parts = self._prepared.passes(objects[some], flat[some])
            # One tensor for all batches. Small results of each batch, allocated between its buffers, would keep the memory of
            # these from being reused by the next batch: on a CPU it grew to 2.8 GB over 1,000 passes.
            found = found or [part.new_empty((len(flat), part.shape[1])) for part in parts]
            for whole, part in zip(found, parts, strict=True):
                whole[some] = part
        # They are joined on the device, so that there is one copy to the host, not one per batch.
        outputs, fired = (whole if self._keeps_on_device else to_host(whole) for whole in found)
        ends = np.cumsum([keys.size for _, keys in wanted])[:-1]
        pairs = zip(split_rows(outputs, ends), split_rows(fired, ends), strict=True)
        return [
            PassOutputs(*(part.reshape(*keys.shape, part.shape[1]) for part in pair))
            for pair, (_, keys) in zip(pairs, wanted, strict=True)
        ]

    @torch.inference_mode()
    def top(self, fired: PassArray, rows: npt.NDArray[np.intp] | None = None) -> TopFeatures | None:
        """Return the largest features of objects; None if the network has none.

        Parameters
        ----------
        fired : (object, pass, rank) int64, numbers of the largest features in all passes
        rows : (object,) indices of the objects; None: all of them
        """
        if self._last is None:
            return None
        found = self._executor.top_features(self._last if rows is None else self._last[rows])
        if found is None:
            return None
        index, activation = (to_host(part) for part in found)
        frequency = np.full(index.shape, np.nan, np.float32)
        if fired.shape[2]:
            for start in range(0, len(index), GROUP_OBJECTS):
                group = slice(start, start + GROUP_OBJECTS)
                shares = _shares_of_passes(fired[group], index[group])
                frequency[group] = np.where(index[group] >= 0, shares, np.nan)
        return TopFeatures(index, activation, frequency)

    def _to_device(self, array: npt.NDArray[Any]) -> Tensor:
        """Return the array as a tensor on the device. From pinned memory a GPU copies while the CPU continues."""
        tensor = torch.from_numpy(array)
        if self._executor.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self._executor.device, non_blocking=True)


def _shares_of_passes(fired: PassArray, features: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the share of the passes in which each feature (object, rank) is among those that fired (object, pass, rank)."""
    # (object, pass, rank, feature): whether the feature has that rank in the pass.
    if isinstance(fired, Tensor):
        same = fired[..., None] == torch.from_numpy(features).to(fired.device)[:, None, None]
        return to_host(same.any(dim=2).double().mean(dim=1))
    return np.asarray((fired[..., None] == features[:, None, None]).any(axis=2).mean(axis=1))


def _to_host(found: Tensor | None) -> npt.NDArray[np.float32] | None:
    return None if found is None else to_host(found)


@dataclass(frozen=True)
class RawPasses:
    """Everything that the network computed for some objects.

    Attributes
    ----------
    outputs : (object, pass, output) float32, in the host's memory or on the device
    last : (object, feature) float32, last features without dropout; None if the network has none
    crop : (object,) float32, scale of the spatial transformer; None if the network has none
    top_index, top_activation, top_frequency : (object, rank), as in `TopFeatures`; None if the network has none
    """

    outputs: PassArray
    last: npt.NDArray[np.float32] | None = None
    crop: npt.NDArray[np.float32] | None = None
    top_index: npt.NDArray[np.int64] | None = None
    top_activation: npt.NDArray[np.float32] | None = None
    top_frequency: npt.NDArray[np.float32] | None = None

    def rows(self, some: slice) -> RawPasses:
        """Return the part that belongs to the objects of a slice."""
        taken: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            part = getattr(self, field.name)
            taken[field.name] = None if part is None else part[some]
        return RawPasses(**taken)


def join_raw_passes(groups: Sequence[RawPasses]) -> RawPasses:
    """Return what a network computed for the objects of several groups, in their order."""
    joined: dict[str, Any] = {}
    for field in dataclasses.fields(RawPasses):
        parts = [getattr(group, field.name) for group in groups]
        joined[field.name] = None if parts[0] is None else join_arrays(parts)
    return RawPasses(**joined)


def run_passes(
    bundle: Bundle,
    images: npt.NDArray[np.float32],
    keys: npt.NDArray[np.int64],
    *,
    batch: int,
    auxiliary: npt.NDArray[np.float32] | None = None,
    executor: Executor | None = None,
) -> RawPasses:
    """Run the same number of passes for every object.

    Parameters
    ----------
    bundle : bundle of the network
    images : (object, band, y, x) float32, finite, in the bundle's unit
    keys : (object, pass) int64, from which the masks are drawn
    batch : largest number of rows that run at a time
    auxiliary : (object, number) float32, finite; None for a network that takes none
    executor : executor of the bundle; None: its own script on the CPU
    """
    executor = executor or ScriptExecutor(bundle)
    groups = []
    for start in range(0, len(images), GROUP_OBJECTS):
        group = slice(start, start + GROUP_OBJECTS)
        some = None if auxiliary is None else auxiliary[group]
        sampler = Sampler(executor, images[group], batch=batch, auxiliary=some)
        found = sampler.run(np.arange(len(keys[group])), keys[group])
        top = sampler.top(found.fired)
        features = () if top is None else (top.index, top.activation, top.frequency)
        groups.append(RawPasses(found.outputs, sampler.last, sampler.crop, *features))
    return join_raw_passes(groups)
