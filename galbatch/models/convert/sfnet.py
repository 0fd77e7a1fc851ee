"""SFNet's released weights into a bundle (Wu 2025): a ResNet-18 whose prediction is linear in k features."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from galbatch.errors import BundleError, UsageError
from galbatch.models.bundle import save_bundle
from galbatch.models.convert.published import Published, assign, file_sha256, read_published
from galbatch.models.metadata import BundleMetadata, HeadInfo, InputInfo, ParameterInfo
from galbatch.models.networks import LAYERS, AsTheyAre, Sfnet, ViewerRgb

__all__ = ["SFNET_TARGETS", "SfnetConversion", "convert_sfnet"]

PUBLISHED_CLASS = frozenset({"ResNet18TopK"})
FILE_NAME = re.compile(r"resnet18-topk_(?P<k>\d+)-(?P<target>\w+)\.pth$")
PAPER_CHANNELS = 64  # of the first convolution
N_CHANNELS = 3
NANOMAGGY_MAG = 22.5

LINE = "log10 of the {} flux in 1e-17 erg/s/cm2, as measured in SDSS fibers"
LINES = tuple(
    ParameterInfo(name, "", LINE.format(line), "identity")
    for name, line in (
        ("log_N2", "[N II] 6584"),
        ("log_Ha", "H-alpha"),
        ("log_O3", "[O III] 5007"),
        ("log_Hb", "H-beta"),
    )
)
METALLICITY = (ParameterInfo("oh_p50", "", "gas-phase metallicity 12 + log10(O/H)", "identity"),)
SFNET_TARGETS = {"bpt_lines": LINES, "oh_p50": METALLICITY, "metallicity": METALLICITY}
"""What the released networks predict, by the end of their file names."""


@dataclass(frozen=True)
class SfnetConversion:
    """The facts about a released network that its weights do not say.

    Attributes
    ----------
    mean, std : per channel, red to blue, of what the network was trained on, after the intensity stretch
    normalization_from : where these two come from, for the metadata
    layer : of the Legacy Surveys' viewer whose colors the network was trained on: sdss (released) or legacy; none: pixel
        values go into the normalization as they are
    bands : that become the three channels; None: those of the layer
    k, target : None: by the file's name
    size_px, pixel_scale_arcsec : of the cutouts
    zero_point_mag : of the images' unit, without a layer; with one it is that of nanomaggies
    name : of the bundle; None: sfnet and the target
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    normalization_from: str = "not stated"
    layer: str = "sdss"
    bands: tuple[str, ...] | None = None
    k: int | None = None
    target: str | None = None
    size_px: int = 144
    pixel_scale_arcsec: float = 0.262
    zero_point_mag: float | None = None
    name: str | None = None

    def bands_and_zero_point(self) -> tuple[tuple[str, ...], float]:
        """Return the bands of the three channels and the zero point of their unit, in mag.

        Raises
        ------
        UsageError
            Mean, std, layer or bands are missing or contradict each other.
        """
        for what, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != N_CHANNELS:
                raise UsageError(
                    f"{what}: expected {N_CHANNELS} numbers, red, green, blue; found {len(values)}"
                )
        if not all(map(math.isfinite, (*self.mean, *self.std))):
            raise UsageError(f"mean and std: expected finite numbers, found {self.mean} and {self.std}")
        if min(self.std) <= 0:
            raise UsageError(f"std: expected numbers above 0, found {min(self.std):g}")
        if self.layer == "none":
            if self.bands is None or self.zero_point_mag is None:
                raise UsageError(
                    "without a layer the bands of the three channels and the zero point of the pixels' unit must be stated"
                )
            bands, zero_point_mag = self.bands, self.zero_point_mag
        elif self.layer in LAYERS:
            if self.zero_point_mag not in (None, NANOMAGGY_MAG):
                raise UsageError(
                    f"layer {self.layer} takes nanomaggies (zero point {NANOMAGGY_MAG}), found a zero point of "
                    f"{self.zero_point_mag:g}"
                )
            bands, zero_point_mag = self.bands or LAYERS[self.layer].bands, NANOMAGGY_MAG
        else:
            raise UsageError(f"layer {self.layer}: expected one of {', '.join([*LAYERS, 'none'])}")
        if len(bands) != N_CHANNELS:
            raise UsageError(
                f"bands: expected {N_CHANNELS}, for red, green and blue; found {', '.join(bands)}"
            )
        return bands, zero_point_mag


def convert_sfnet(weights: str, output: str, conversion: SfnetConversion) -> tuple[str, BundleMetadata]:
    """Write a bundle with released weights.

    Parameters
    ----------
    weights : state dict, or the whole pickled module as released; nothing in the pickle is run
    output : bundle to write
    conversion : facts that the weights do not say

    Returns
    -------
    The bundle's sha256, and its metadata.

    Raises
    ------
    UsageError
        Mean, std, layer, bands, k or target are missing or contradict each other.
    BundleError
        The weights are not SFNet's, or the pickle holds something else.
    """
    bands, zero_point_mag = conversion.bands_and_zero_point()
    published = read_published(weights, classes=PUBLISHED_CLASS)
    k, target = _k_and_target(published, conversion)
    parameters = SFNET_TARGETS[target]
    network = _network(published, conversion, k)
    n_out = network.resnet.fc.out_features
    if n_out != len(parameters):
        names = ", ".join(parameter.name for parameter in parameters)
        raise BundleError(
            f"{weights}: puts out {n_out} numbers, but target {target} has {len(parameters)}: {names}"
        )
    metadata = BundleMetadata(
        name=conversion.name or f"sfnet-{target}",
        version="1",
        architecture="sfnet",
        input=InputInfo(
            bands=bands,
            size_px=conversion.size_px,
            pixel_scale_arcsec=conversion.pixel_scale_arcsec,
            unit="nanomaggy" if conversion.layer != "none" else "as given",
            zero_point_mag=zero_point_mag,
        ),
        head=HeadInfo("point"),
        parameters=parameters,
        dropout_rate=0.0,
        n_top_features=k,
        training_data="as the authors of the weights say: SDSS galaxies, 8-bit JPEG colors of the Legacy Surveys' viewer",
        origin=_origin(published, conversion, k, target),
        licence="as released by the author; the code they come with is under the MIT licence",
        citation="Wu 2025, Insights on Galaxy Evolution from Interpretable Sparse Feature Networks",
    )
    return save_bundle(output, torch.jit.script(network.eval()), metadata), metadata


def _k_and_target(published: Published, conversion: SfnetConversion) -> tuple[int, str]:
    """Return k and target as stated, or as the file's name and the pickled module say; all that are known must agree."""
    match = FILE_NAME.search(Path(published.path).name)
    # A renamed file, or a pickle of another network, shows as a contradiction.
    said_k = {
        "stated": conversion.k,
        "the file's name": int(match["k"]) if match else None,
        "the pickled module": published.attributes.get("k"),
    }
    said_target = {"stated": conversion.target, "the file's name": match["target"] if match else None}
    k = _agreed(published.path, "k", said_k)
    if type(k) is not int:
        raise BundleError(f"{published.path}: k is {k!r} in the pickled module, expected a whole number")
    target = _agreed(published.path, "target", said_target)
    if target not in SFNET_TARGETS:
        raise UsageError(f"target {target}: expected one of {', '.join(SFNET_TARGETS)}")
    return k, str(target)


def _agreed(path: str, what: str, said: dict[str, Any]) -> Any:
    known = {source: value for source, value in said.items() if value is not None}
    if not known:
        raise UsageError(
            f"{path}: {what} is not known: the name is not resnet18-topk_<k>-<target>.pth, so state it"
        )
    if len(set(known.values())) > 1:
        raise UsageError(
            f"{path}: {what} differs: {', '.join(f'{value} ({source})' for source, value in known.items())}"
        )
    return next(iter(known.values()))


def _network(published: Published, conversion: SfnetConversion, k: int) -> Sfnet:
    state = dict(published.state)
    # `trunk` holds the modules of `resnet` again, by number.
    order = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
    twins = {str(number): module for number, module in enumerate(order)}
    for name in [name for name in state if name.startswith("trunk.")]:
        number, _, rest = name.removeprefix("trunk.").partition(".")
        twin, value = f"resnet.{twins.get(number, number)}.{rest}", state.pop(name)
        if twin not in state or state[twin].dtype != value.dtype or not torch.equal(state[twin], value):
            raise BundleError(
                f"{published.path}: {name} is not {twin}: expected trunk to be the modules of resnet again"
            )
    first, last = state.get("resnet.conv1.weight"), state.get("resnet.fc.weight")
    if first is None or last is None or first.dim() != 4 or last.dim() != 2:
        there = ", ".join(list(published.state)[:4])
        raise BundleError(
            f"{published.path}: lacks resnet.conv1.weight or resnet.fc.weight, so it is no SFNet (ResNet18TopK); it begins with {there}"
        )
    if first.shape[1] != N_CHANNELS:
        raise BundleError(f"{published.path}: takes {first.shape[1]} channels, expected {N_CHANNELS}")
    if not 1 <= first.shape[0] <= PAPER_CHANNELS:  # the rest is made by these, before it is compared
        raise BundleError(
            f"{published.path}: its first convolution has {first.shape[0]} channels, expected {PAPER_CHANNELS}"
        )
    if not 1 <= k <= last.shape[1]:
        raise BundleError(f"{published.path}: k = {k}, but the network has {last.shape[1]} features")
    stretch: nn.Module = AsTheyAre()
    if conversion.layer != "none":
        stretch = ViewerRgb(LAYERS[conversion.layer], conversion.pixel_scale_arcsec)
    network = Sfnet(N_CHANNELS, last.shape[0], k=k, width=first.shape[0] / PAPER_CHANNELS, stretch=stretch)
    assign(network.resnet, state, source=published.path, prefix="resnet.")
    network.input_mean.copy_(torch.tensor(conversion.mean))
    network.input_std.copy_(torch.tensor(conversion.std))
    return network


def _origin(published: Published, conversion: SfnetConversion, k: int, target: str) -> dict[str, Any]:
    origin: dict[str, Any] = {
        "converted_from": "SFNet, whole pickled module"
        if published.attributes
        else "SFNet, state dict (ResNet18TopK)",
        "weights": Path(published.path).name,
        "weights_sha256": file_sha256(published.path),
        "k": k,
        "target": target,
        "mean": list(conversion.mean),
        "std": list(conversion.std),
        "normalization_from": conversion.normalization_from,
        "layer": conversion.layer,
    }
    if conversion.layer != "none":
        origin["stretch"] = (
            "colors of the Legacy Surveys' viewer, not rounded to 8 bits, without the artefacts of JPEG; first row south"
        )
        origin["native_px_arcsec"] = LAYERS[conversion.layer].native_px_arcsec
    return origin
