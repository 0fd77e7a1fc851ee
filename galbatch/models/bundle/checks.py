"""Checks of a script before it is saved or used: its behavior on two made-up images, not the names of its modules."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from galbatch.errors import BundleError
from galbatch.models.bundle.network import GLOBAL_GENERATOR, call_prefix, packed
from galbatch.models.heads import outputs_per_pass
from galbatch.models.metadata import BundleMetadata
from galbatch.models.networks import prefix_arguments

__all__ = ["CHECK_ROWS", "check_behavior", "made_up_images", "made_up_inputs"]

CHECK_ROWS = 16  # Keys in the check of dropout: at the lowest rates a single pass may zero nothing.
MOST_CHECK_ROWS = 1024  # Keys that are tried if the first give no difference.
FIXED_KEY = 7  # One key for passes that must all be equal.
# An odd number with many bits, as keys that are nearly equal would hide a weak hash.
KEY_STEP = 0x5851F42D4C957F2D
# Each of the two images alone, then both in another order, at other places and in a batch of another size.
BATCHES = ((0,), (1,), (1, 0, 1))
# Convolutions of another batch size sum in another order: 4e-7 of the largest number in the shipped networks. Whoever
# normalizes over the batch moves outputs by 0.01 and more.
ROW_TOLERANCE = 1e-4
# What a script's own faults come out as; torch.jit.Error, of a `raise` in the script, is no RuntimeError.
SCRIPT_FAULTS = (RuntimeError, TypeError, ValueError, LookupError, torch.jit.Error)


def check_behavior(script: Any, metadata: BundleMetadata, *, source: str) -> None:
    """Run the script on two made-up images, and compare its behavior with its metadata.

    Parameters
    ----------
    script : TorchScript module with `prefix` and `sample`
    metadata : what it is said to do
    source : text that messages begin with, such as the bundle's path

    Raises
    ------
    BundleError
        A method is missing or fails, shapes or values are wrong, the passes differ though the dropout rate
        is 0 or are equal though it is above, the same key gives different outputs, a pass changes the network, a row
        gives other numbers alone than in a batch or at another place of it, or the number of features differs from the metadata.
    """
    # Foreign networks seed the global generator: nothing else may draw from it meanwhile.
    with GLOBAL_GENERATOR, torch.random.fork_rng(devices=()), torch.inference_mode():
        try:
            problem = _problem(script, metadata)
        except SCRIPT_FAULTS as error:
            problem = f"fails on made-up images: {_last_line(error)}"
    if problem is not None:
        raise BundleError(f"{source}: {problem}")


def _problem(script: Any, metadata: BundleMetadata) -> str | None:
    """Return a message on the first thing in which a script contradicts its metadata; None if there is none."""
    for method in ("prefix", "sample"):
        if not hasattr(script, method):
            return f"the script has no method {method}"
    before, (images, auxiliary) = _checksums(script), made_up_inputs(metadata)
    inputs = prefix_arguments(images, auxiliary)
    keys = torch.arange(CHECK_ROWS, dtype=torch.int64) * KEY_STEP
    try:
        features = _tensor(call_prefix(script, metadata, *inputs), "prefix")
        rows = features[torch.arange(CHECK_ROWS) % len(features)]
        first, again = _tensor(script.sample(rows, keys), "sample"), script.sample(rows, keys)
        fixed = script.sample(rows, torch.full_like(keys, FIXED_KEY))
    except SCRIPT_FAULTS as error:
        named = {"images": images if metadata.input.takes_pixels else None, "auxiliary inputs": auxiliary}
        shapes = " and ".join(f"{name} {_shapes(p, metadata)}" for name, p in named.items() if p is not None)
        return f"fails on {shapes}: {_last_line(error)}"
    expected = (CHECK_ROWS, outputs_per_pass(metadata))
    if tuple(first.shape) != expected:
        return f"sample gives {tuple(first.shape)}, expected (row, output) = {expected}"
    if not bool(torch.isfinite(first).all()):
        return "sample gives non-finite numbers on a made-up galaxy"
    if not torch.equal(first, again):
        return (
            "the same keys give different outputs: its dropout does not draw from the keys; the description of a converted "
            "network that draws by itself must say draws = true"
        )
    problem = _dropout_problem(script, rows, metadata, differ=_differ(first, fixed))
    if problem is not None:
        return problem
    changed = [name for name, checksum in _checksums(script).items() if checksum != before[name]]
    if changed:
        return f"a pass changes {changed[0]}: its BatchNorm is in training mode; call eval() before scripting"
    # Rows come last: they run the script several times more, on what is known to have the right shapes.
    return _feature_problem(script, features, metadata) or _row_problem(
        script, metadata, inputs, features=features, sampled=(rows, keys), outputs=first
    )


def _row_problem(
    script: Any,
    metadata: BundleMetadata,
    inputs: tuple[Tensor, ...],
    *,
    features: Tensor,
    sampled: tuple[Tensor, Tensor],
    outputs: Tensor,
) -> str | None:
    """Return a message that names the method in which a row depends on the rest of its batch, or its place there; None: none does.

    Such a network gives an object another posterior whenever the other objects of its batch change.

    Parameters
    ----------
    inputs : arguments of `prefix`, of two images
    features : what `prefix` returned for them
    sampled : arguments of `sample`, whose first two rows are of the two images
    outputs : what `sample` returned for them
    """
    if len(features) != len(inputs[0]):
        return f"prefix gives {len(features)} rows for {len(inputs[0])} images"
    calls: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...], Tensor]] = {
        "prefix": (partial(call_prefix, script, metadata), inputs, features),
        "sample": (script.sample, sampled, outputs),
    }
    # Methods that a script may have; their numbers go into columns and flags as well.
    if hasattr(script, "crop"):
        calls["crop"] = script.crop, inputs[:1], script.crop(inputs[0])
    if hasattr(script, "last_features"):
        calls["last_features"] = script.last_features, (features,), script.last_features(features)
    if hasattr(script, "sample_with_top"):
        calls["sample_with_top"] = lambda *some: script.sample_with_top(*some)[0], sampled, outputs
    for method, (call, arguments, together) in calls.items():
        for batch in BATCHES:
            rows = torch.tensor(batch)
            expected = together[rows]
            try:
                found = _tensor(call(*(argument[rows] for argument in arguments)), method)
            except SCRIPT_FAULTS as error:
                return f"{method} fails on a batch of {len(batch)}: {_last_line(error)}"
            largest = float(expected.abs().max()) if expected.numel() else 0.0
            if found.shape != expected.shape or not torch.allclose(
                found, expected, rtol=0.0, atol=ROW_TOLERANCE * largest, equal_nan=True
            ):
                return (
                    f"{method} gives an image other numbers in a batch of {len(batch)} than in one of {len(together)}: they "
                    "depend on the images beside it, or on its place; normalize each image by itself, with BatchNorm's "
                    "running statistics and constants for a survey"
                )
    return None


def _last_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def _tensor(value: Any, method: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{method} gives {type(value).__name__}, expected a tensor")
    return value


def _shapes(tensor: Tensor, metadata: BundleMetadata) -> str:
    """Return the shape of made-up inputs for messages; of images of several grids the shape of each."""
    if tensor.ndim == 4 and metadata.input.more_grids:
        return ", ".join(str((len(tensor), *one.shape)) for one in metadata.input.images)
    return str(tuple(tensor.shape))


def made_up_inputs(metadata: BundleMetadata) -> tuple[Tensor, Tensor | None]:
    """Return two made-up images, and for networks with auxiliary inputs a row of 0 and a row of 1, else None."""
    n_auxiliary = metadata.input.n_auxiliary
    auxiliary = torch.arange(2, dtype=torch.float32)[:, None].repeat(1, n_auxiliary)
    return made_up_images(metadata), auxiliary if n_auxiliary else None


def made_up_images(metadata: BundleMetadata) -> Tensor:
    """Return two made-up images (2, band, y, x) float32: Gaussian blobs on noise, in the bundle's unit; without a band, no pixels."""
    images = [_made_up(one.size_px, len(one.bands)) for one in metadata.input.images]
    return packed(images) if images else _made_up(0, 0)


def _made_up(size: int, n_bands: int) -> Tensor:
    """Return two made-up images (2, band, y, x) of one grid."""
    offset = torch.arange(size, dtype=torch.float32) - size // 2
    radius2 = offset[:, None] ** 2 + offset[None, :] ** 2
    blobs = torch.stack([200.0 * torch.exp(-radius2 / 20.0), 20.0 * torch.exp(-radius2 / 100.0)])
    noise = torch.randn((2, 1, size, size), generator=torch.Generator().manual_seed(1)) * 0.05
    return (blobs[:, None] + noise).repeat(1, n_bands, 1, 1)


def _differ(passes: Tensor, fixed: Tensor) -> bool:
    return not torch.allclose(passes, fixed, rtol=1e-6, atol=1e-7)


def _dropout_problem(script: Any, rows: Tensor, metadata: BundleMetadata, *, differ: bool) -> str | None:
    """Return a message if the passes contradict the dropout rate; None if not.

    Parameters
    ----------
    rows : (row, ..) what `prefix` returned
    metadata : metadata, which say whether passes differ
    differ : whether any of the passes tried so far differ
    """
    if not metadata.passes_differ:
        said = "different keys give different outputs, but its metadata says dropout_rate 0 and not that it draws"
        return said if differ else None
    if differ:
        return None
    # At rates of 1e-5 a small network zeroes nothing in most passes: many more are tried before it is refused.
    fixed = script.sample(rows[:2], torch.full((2,), FIXED_KEY, dtype=torch.int64))[
        torch.arange(CHECK_ROWS) % 2
    ]
    for start in range(CHECK_ROWS, MOST_CHECK_ROWS, CHECK_ROWS):
        if _differ(script.sample(rows, torch.arange(start, start + CHECK_ROWS) * KEY_STEP), fixed):
            return None
    said = f"dropout_rate {metadata.dropout_rate:g}" if metadata.dropout_rate else "that it draws"
    return f"different keys give the same outputs, but its metadata says {said}"


def _checksums(script: Any) -> dict[str, int]:
    """Return checksums of all parameters and buffers, by name. A copy of them would take 540 MB for a full GaMPEN."""
    state: dict[str, Tensor] = script.state_dict()
    return {
        name: zlib.crc32(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        for name, value in state.items()
    }


def _feature_problem(script: Any, features: Tensor, metadata: BundleMetadata) -> str | None:
    n_top, mean = metadata.n_top_features, metadata.domain.features_mean
    if not n_top and mean is None:
        return None
    for method in ("last_features", "top_features") if n_top else ("last_features",):
        if not hasattr(script, method):
            return f"its metadata speak of features, but the script has no method {method}"
    last = script.last_features(features)
    if mean is not None and last.shape[1] != len(mean):
        return f"last_features gives {last.shape[1]} numbers, but its domain is of {len(mean)}"
    ranks = script.top_features(last)[0].shape[1] if n_top else 0
    return f"top_features gives {ranks}, but n_top_features is {n_top}" if ranks != n_top else None
