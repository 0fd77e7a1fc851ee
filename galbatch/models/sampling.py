"""Running a network: the prefix once an object, then one row for each object and pass."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from galbatch.models.bundle import Bundle

__all__ = ["RawPasses", "run_passes"]

PREFIX_OBJECTS = 16  # a full GaMPEN's first maps are 15 MB an object at 239 px
CACHE_BYTES = (
    8 * 2**20
)  # of first maps a batch may hold: beyond the processor's cache a pass takes 1.5 times as long


@dataclass(frozen=True)
class RawPasses:
    """What the script gave for some objects.

    Attributes
    ----------
    outputs : (object, pass, output) float32
    last : (object, feature) float32, without dropout; None if the script has none
    crop : (object,) float32, the transformer's scale; None if the script has none
    top_index, top_activation : (object, rank) int64 and float32, without dropout; None if the script has none
    top_frequency : (object, rank) float32, share of the passes in which the feature was among the largest; NaN: no such
        feature, or the script does not tell; None if it has none
    """

    outputs: npt.NDArray[np.float32]
    last: npt.NDArray[np.float32] | None = None
    crop: npt.NDArray[np.float32] | None = None
    top_index: npt.NDArray[np.int64] | None = None
    top_activation: npt.NDArray[np.float32] | None = None
    top_frequency: npt.NDArray[np.float32] | None = None

    def rows(self, some: slice) -> RawPasses:
        """Of some of the objects."""
        taken: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            part = getattr(self, field.name)
            taken[field.name] = None if part is None else part[some]
        return RawPasses(**taken)


@torch.inference_mode()
def run_passes(
    bundle: Bundle,
    images: npt.NDArray[np.float32],
    keys: npt.NDArray[np.int64],
    *,
    batch: int,
    columns: npt.NDArray[np.float32] | None = None,
) -> RawPasses:
    """Run the network.

    Parameters
    ----------
    bundle : the network
    images : (object, band, y, x) float32, finite, in the bundle's unit
    keys : (object, pass) int64
    batch : rows a forward sees at most
    columns : (object, column) float32, finite: the numbers beside the image, of networks that take some
    """
    groups = []
    for start in range(0, len(images), PREFIX_OBJECTS):
        group = slice(start, start + PREFIX_OBJECTS)
        inputs = [torch.from_numpy(part[group]) for part in (images, columns) if part is not None]
        groups.append(_run_group(bundle, inputs, keys[group], batch))
    joined: dict[str, Any] = {}
    for field in dataclasses.fields(RawPasses):
        parts = [getattr(group, field.name) for group in groups]
        joined[field.name] = None if parts[0] is None else np.concatenate(parts)
    return RawPasses(**joined)


def _run_group(
    bundle: Bundle, inputs: list[torch.Tensor], keys: npt.NDArray[np.int64], batch: int
) -> RawPasses:
    features = bundle.prefix(*inputs)
    n_objects, n_passes = keys.shape
    row_bytes = features[0].numel() * features.element_size()
    batch = min(batch, max(8, CACHE_BYTES // row_bytes))
    flat = torch.from_numpy(keys.reshape(-1))
    row_object = torch.arange(len(flat)) // n_passes
    batches = (slice(start, start + batch) for start in range(0, len(flat), batch))
    rows = [_run_rows(bundle, features[row_object[some]], flat[some]) for some in batches]
    outputs, fired = (torch.cat(part).reshape(n_objects, n_passes, -1) for part in zip(*rows, strict=True))
    last = bundle.script.last_features(features).numpy() if bundle.has("last_features") else None
    crop = bundle.script.crop(inputs[0]).numpy() if bundle.has("crop") else None
    return RawPasses(outputs.numpy(), last, crop, *_top(bundle, last, fired.numpy()))


def _run_rows(
    bundle: Bundle, features: torch.Tensor, keys: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs (row, output), and the features that fired (row, rank): none where the script does not tell."""
    if bundle.has("sample_with_top"):
        outputs, fired, _ = bundle.script.sample_with_top(features, keys)
        return outputs, fired
    return bundle.sample(features, keys), torch.empty((len(keys), 0), dtype=torch.int64)


def _top(
    bundle: Bundle, last: npt.NDArray[np.float32] | None, fired: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[Any] | None, ...]:
    """Index, activation and frequency of the largest of the last features (object, feature), given those that fired.

    Parameters
    ----------
    fired : (object, pass, rank) in each pass; no ranks: unknown
    """
    if last is None or not bundle.has("top_features"):
        return None, None, None
    index, activation = (part.numpy() for part in bundle.script.top_features(torch.from_numpy(last)))
    known = fired.shape[2] > 0
    among = [(fired == index[:, rank, None, None]).any(axis=2).mean(axis=1) for rank in range(index.shape[1])]
    frequency = np.stack(among, axis=1).astype(np.float32)
    return index, activation, np.where((index >= 0) & known, frequency, np.float32(np.nan))
