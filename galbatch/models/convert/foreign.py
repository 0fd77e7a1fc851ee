"""Conversion of a foreign TorchScript network to a bundle, with the help of a TOML description."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from galbatch.errors import BundleError
from galbatch.models.bundle import SCRIPT_FAULTS, save_bundle, set_modes
from galbatch.models.convert.calling import Signature, called_as
from galbatch.models.convert.description import PreprocessingInfo, ScriptDescription, read_description
from galbatch.models.convert.published import file_sha256
from galbatch.models.metadata import BundleMetadata
from galbatch.models.networks import stretch_named

__all__ = ["Foreign", "convert_script"]

LAST_FEATURES = """
def last_features(self, features: Tensor) -> Tensor:
    images, auxiliary = self.unpacked(features)
    return self.network.last_features(images, auxiliary)
"""


class Foreign(nn.Module):
    """A foreign network with the methods that bundles need; `convert_script` adds `prefix`, and `last_features` if the network has it.

    The network draws from torch's global generator. So that a pass depends on its key alone, each row is run on its own,
    after the generator has been seeded with the row's key.

    Parameters
    ----------
    network : TorchScript module with `forward(images: List[Tensor], auxiliary)`, as `called_as` returns it
    preprocessing : for each grid the module that makes the network's input from images in the bundle's unit
    shapes : for each grid the shape (channel, y, x) of these inputs
    has_dropout : whether modules of the kinds of nn.Dropout are active
    draws : whether passes differ; if not, all rows are run together
    """

    def __init__(
        self,
        network: Any,
        preprocessing: Sequence[nn.Module],
        shapes: Sequence[tuple[int, int, int]],
        *,
        has_dropout: bool,
        draws: bool,
    ) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = nn.ModuleList(preprocessing)
        # TorchScript cannot tell the type of an empty list, which a network without images has.
        self.shapes: Any = torch.jit.Attribute(list(shapes), list[tuple[int, int, int]])
        self.has_dropout = has_dropout
        self.draws_from_global_generator = draws

    @torch.jit.export
    def packed(self, images: list[Tensor], auxiliary: Tensor) -> Tensor:
        """Return the network's input in one tensor: images of one grid alone as they are, else all numbers of an object in a row."""
        parts: list[Tensor] = []
        for i, preprocessing in enumerate(self.preprocessing):
            parts.append(preprocessing(images[i]))
        if len(parts) == 1 and auxiliary.shape[1] == 0:
            return parts[0]
        return torch.cat([part.flatten(1) for part in parts] + [auxiliary], dim=1)

    @torch.jit.export
    def unpacked(self, features: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the images of each grid, (row, channel, y, x), and the auxiliary inputs (row, number), of what `packed` returned."""
        flat = features.flatten(1)
        images: list[Tensor] = []
        start = 0
        for shape in self.shapes:
            channels, height, width = shape
            stop = start + channels * height * width
            images.append(flat[:, start:stop].reshape(-1, channels, height, width))
            start = stop
        return images, flat[:, start:]

    @torch.jit.export
    def sample(self, features: Tensor, keys: Tensor) -> Tensor:
        """Run one pass for each row, (row, output), from rows of what `prefix` returned and keys (row,) int64."""
        if not self.draws_from_global_generator:
            images, auxiliary = self.unpacked(features)
            together: Tensor = self.network(images, auxiliary)
            return together
        rows: list[Tensor] = []
        for i in range(features.shape[0]):
            # `Bundle.sample`, the only caller, restores the generator's state afterwards.
            torch.manual_seed(int(keys[i]))
            images, auxiliary = self.unpacked(features[i : i + 1])
            rows.append(self.network(images, auxiliary))
        return torch.cat(rows)


class Preprocessing(nn.Module):
    """The preprocessing before a foreign network: intensity stretch, repetition of a single band, normalization."""

    def __init__(
        self, intensity_stretch: nn.Module, n_channels: int, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.intensity_stretch = intensity_stretch
        self.n_channels = n_channels
        self.input_mean = nn.Buffer(torch.tensor(mean).reshape(1, -1, 1, 1))
        self.input_std = nn.Buffer(torch.tensor(std).reshape(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return (object, channel, y, x) float32 of images (object, band, y, x) float32."""
        x = self.intensity_stretch(images).expand(-1, self.n_channels, -1, -1)
        normalized: Tensor = (x - self.input_mean) / self.input_std
        return normalized


def convert_script(script: str, description: str, output: str) -> tuple[str, BundleMetadata]:
    """Write a bundle with a foreign network.

    Parameters
    ----------
    script : path of a TorchScript file. Loading it runs the code that makes its attributes; the check of its behavior runs the rest
    description : path of a TOML file with the fields of `ScriptDescription`
    output : path of the bundle to write

    Returns
    -------
    sha256 : hash of the bundle's file
    metadata : metadata of the bundle

    Raises
    ------
    ConfigError
        The description cannot be read, or its values contradict each other.
    BundleError
        The file is no TorchScript, or the network does not behave as described.
    """
    described = read_description(description)
    # Preprocessing and seeding become part of the script, so that the bundle is complete without this package.
    network, steps = _read_script(script), described.preprocessing_of_grids
    origin = {
        "converted_from": "foreign TorchScript",
        "weights": Path(script).name,
        "weights_sha256": file_sha256(script),
        "description": Path(description).name,
        "preprocessing": _as_json(steps[0]) if len(steps) == 1 else [_as_json(info) for info in steps],
    }
    metadata = described.metadata(origin)
    scripted = _wrapped(network, described, source=script)
    set_modes(scripted)
    return save_bundle(output, scripted, metadata), metadata


def _wrapped(network: Any, described: ScriptDescription, *, source: str) -> Any:
    """Return a described network as a script with the methods that bundles need."""
    grids, steps = described.input.images, described.preprocessing_of_grids
    signature = Signature(len(grids), bool(described.input.auxiliary_inputs))
    modules, shapes = [], []
    for grid, info in zip(grids, steps, strict=True):
        stretch = stretch_named(info.intensity_stretch, pixel_scale_arcsec=grid.pixel_scale_arcsec)
        channels = info.channels or len(grid.bands)
        modules.append(Preprocessing(stretch, channels, info.mean, info.std))
        shapes.append((channels, grid.size_px, grid.size_px))
    foreign = Foreign(
        called_as(network, signature, source=source),
        modules,
        shapes,
        has_dropout=described.dropout_rate > 0,
        draws=described.dropout_rate > 0 or described.draws,
    )
    scripted: Any = torch.jit.script(foreign)
    scripted.define(signature.prefix())
    if hasattr(network, "last_features"):
        scripted.define(LAST_FEATURES)
    return scripted


def _as_json(info: PreprocessingInfo) -> dict[str, Any]:
    """Return the steps of a preprocessing for the record of the conversion."""
    values = dataclasses.asdict(info)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _read_script(path: str) -> Any:
    if not Path(path).is_file():
        raise BundleError(f"{path}: there is no such TorchScript file")
    load: Any = torch.jit.load
    try:
        network = load(path, map_location="cpu")
    except SCRIPT_FAULTS as error:
        raise BundleError(
            f"{path}: is no TorchScript file: {_last_line(error)}; a state dict or pickled module must be scripted first, with "
            "torch.jit.script(network).save(...)"
        ) from None
    if not hasattr(network, "forward"):
        raise BundleError(f"{path}: has no method forward")
    return network


def _last_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[-1].strip() if text else type(error).__name__
