"""Conversion of a foreign TorchScript network with a plain `forward` to a bundle, with the help of a TOML description."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from galbatch.errors import BundleError
from galbatch.models.bundle import SCRIPT_FAULTS, save_bundle, set_modes
from galbatch.models.convert.description import read_description
from galbatch.models.convert.published import file_sha256
from galbatch.models.metadata import BundleMetadata
from galbatch.models.networks import stretch_named

__all__ = ["Foreign", "convert_script"]


class Foreign(nn.Module):
    """A foreign network with the methods `prefix` and `sample` that bundles need.

    Its dropout draws from torch's global generator. So that the masks depend on the keys alone, each row is run on its own,
    after the generator has been seeded with the row's key.

    Parameters
    ----------
    network : TorchScript module with `forward(images)`
    preprocessing : module that makes the network's input from images in the bundle's unit
    has_dropout : whether passes differ; if not, all rows are run together
    """

    def __init__(self, network: Any, preprocessing: nn.Module, *, has_dropout: bool) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing
        self.draws_from_global_generator = has_dropout

    def forward(self, images: Tensor, keys: Tensor) -> Tensor:
        """Run one pass from the images."""
        return self.sample(self.prefix(images), keys)

    @torch.jit.export
    def prefix(self, images: Tensor) -> Tensor:
        """Return the network's input, (object, channel, y, x), from images (object, band, y, x) float32 in the bundle's unit."""
        inputs: Tensor = self.preprocessing(images)
        return inputs

    @torch.jit.export
    def sample(self, features: Tensor, keys: Tensor) -> Tensor:
        """Run one pass for each row, (row, output), from rows of what `prefix` returned and keys (row,) int64."""
        if not self.draws_from_global_generator:
            together: Tensor = self.network(features)
            return together.reshape(features.shape[0], -1)
        rows: list[Tensor] = []
        for i in range(features.shape[0]):
            # `Bundle.sample`, the only caller, restores the generator's state afterwards.
            torch.manual_seed(int(keys[i]))
            rows.append(self.network(features[i : i + 1]).reshape(1, -1))
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
    network = _read_script(script)
    origin = {
        "converted_from": "foreign TorchScript",
        "weights": Path(script).name,
        "weights_sha256": file_sha256(script),
        "description": Path(description).name,
        "preprocessing": {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(described.preprocessing).items()
        },
    }
    metadata = described.metadata(origin)
    info = described.preprocessing
    stretch = stretch_named(info.intensity_stretch, pixel_scale_arcsec=described.input.pixel_scale_arcsec)
    preprocessing = Preprocessing(stretch, info.channels or len(described.input.bands), info.mean, info.std)
    wrapped = Foreign(network, preprocessing, has_dropout=metadata.dropout_rate > 0)
    try:
        scripted: Any = torch.jit.script(wrapped)
    except RuntimeError as error:
        raise BundleError(
            f"{script}: its forward does not take images alone and give one tensor: {_last_line(error)}"
        ) from None
    set_modes(scripted)
    return save_bundle(output, scripted, metadata), metadata


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
        raise BundleError(f"{path}: has no method forward(images)")
    return network


def _last_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[-1].strip() if text else type(error).__name__
