"""Conversion of SFNet's released weights to a bundle (Wu 2025): a ResNet-18 whose prediction is linear in k features."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from galbatch.errors import BundleError, UsageError
from galbatch.models.bundle import save_bundle
from galbatch.models.convert.published import Published, assign, file_sha256, read_published
from galbatch.models.metadata import BundleMetadata, HeadInfo, InputInfo, ParameterInfo
from galbatch.models.networks import LAYERS, Sfnet, stretch_named

__all__ = ["SFNET_TARGETS", "SfnetConversion", "convert_sfnet"]

PUBLISHED_CLASS = frozenset({"ResNet18TopK"})
FILE_NAME = re.compile(r"resnet18-topk_(?P<k>\d+)-(?P<target>\w+)\.pth$")
PAPER_CHANNELS = 64  # The number of channels of ResNet-18's first convolution.
N_CHANNELS = 3  # Red, green and blue of the JPEG images that the network was trained on.
NANOMAGGY_MAG = 22.5  # The AB zero point of nanomaggies, the unit of the Legacy Surveys' images.

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
"""The parameters of the released networks, by the end of their file names."""


@dataclass(frozen=True)
class SfnetConversion:
    """Facts about a released network that are not in its file of weights.

    Attributes
    ----------
    mean, std : mean and standard deviation of each channel of the training images, red to blue, after the intensity stretch
    normalization_from : text for the metadata that says where mean and std come from
    layer : layer of the Legacy Surveys' viewer whose colors the network was trained on: sdss (released) or legacy; none: the
        pixel values are normalized without an intensity stretch
    bands : bands that become red, green and blue; None: those of the layer
    k, target : number of features, and key of `SFNET_TARGETS`; None: taken from the file's name
    size_px, pixel_scale_arcsec : side of the cutouts in pixels, and their pixel scale
    zero_point_mag : AB zero point of the images' unit where there is no layer; a layer takes nanomaggies
    name : name of the bundle; None: sfnet-<target>
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
        """Return the bands of the three channels, and the AB zero point of the images' unit in mag.

        Raises
        ------
        UsageError
            Mean, std, layer or bands are missing or contradict each other.
        """
        # Mean and std are given by hand, as the released files do not hold them; a wrong number would shift every prediction.
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
                    "without a layer the bands of the three channels and the zero point of the pixels' unit must be given"
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

    def k_and_target(self, published: Published) -> tuple[int, str]:
        """Return k and the target. Those given here, in the file's name and in the pickled module must agree.

        Raises
        ------
        UsageError
            None of these is known, they differ, or the target is not one of `SFNET_TARGETS`.
        BundleError
            The k of the pickled module is no whole number.
        """
        match = FILE_NAME.search(Path(published.path).name)
        # All sources are compared, as a renamed file, or a pickle of another network, shows as a contradiction.
        sources_of_k = {
            "given": self.k,
            "the file's name": int(match["k"]) if match else None,
            "the pickled module": published.attributes.get("k"),
        }
        sources_of_target = {"given": self.target, "the file's name": match["target"] if match else None}
        k = _agreed(published.path, "k", sources_of_k)
        # A pickle may hold anything: True would pass as 1, and 8.0 as 8.
        if type(k) is not int:
            raise BundleError(f"{published.path}: k is {k!r} in the pickled module, expected a whole number")
        target = _agreed(published.path, "target", sources_of_target)
        if target not in SFNET_TARGETS:
            raise UsageError(f"target {target}: expected one of {', '.join(SFNET_TARGETS)}")
        return k, str(target)

    def origin(self, published: Published, k: int, target: str) -> dict[str, Any]:
        """Return the record of the conversion for the bundle's metadata."""
        kind = "whole pickled module" if published.attributes else "state dict (ResNet18TopK)"
        origin: dict[str, Any] = {
            "converted_from": f"SFNet, {kind}",
            "weights": Path(published.path).name,
            "weights_sha256": file_sha256(published.path),
            "k": k,
            "target": target,
            "mean": list(self.mean),
            "std": list(self.std),
            "normalization_from": self.normalization_from,
            "layer": self.layer,
        }
        if self.layer != "none":
            origin["intensity_stretch"] = (
                "colors of the Legacy Surveys' viewer, not rounded to 8 bits, without the artefacts of JPEG; first row south"
            )
            origin["native_px_arcsec"] = LAYERS[self.layer].native_px_arcsec
        return origin


def convert_sfnet(weights: str, output: str, conversion: SfnetConversion) -> tuple[str, BundleMetadata]:
    """Write a bundle with released weights.

    Parameters
    ----------
    weights : path of a state dict, or of the whole pickled module as released; no code in the pickle is run
    output : path of the bundle to write
    conversion : facts that are not in the file of weights

    Returns
    -------
    sha256 : hash of the bundle's file
    metadata : metadata of the bundle

    Raises
    ------
    UsageError
        Mean, std, layer, bands, k or target are missing or contradict each other.
    BundleError
        The weights are not SFNet's, or the pickle holds other objects than modules and tensors.
    """
    bands, zero_point_mag = conversion.bands_and_zero_point()
    published = read_published(weights, classes=PUBLISHED_CLASS)
    k, target = conversion.k_and_target(published)
    parameters = SFNET_TARGETS[target]
    network = _network(published, conversion, k)
    n_out = network.resnet.fc.out_features
    if n_out != len(parameters):
        names = ", ".join(parameter.name for parameter in parameters)
        raise BundleError(
            f"{weights}: has {n_out} outputs, but target {target} has {len(parameters)}: {names}"
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
        origin=conversion.origin(published, k, target),
        licence="as released by the author; the code they come with is under the MIT licence",
        citation="Wu 2025, ApJ 980, 183, doi:10.3847/1538-4357/adadec (arXiv:2501.00089)",
    )
    return save_bundle(output, torch.jit.script(network.eval()), metadata), metadata


def _agreed(path: str, what: str, sources: dict[str, Any]) -> Any:
    """Return the value that all sources which know it (those that are not None) agree on."""
    known = {source: value for source, value in sources.items() if value is not None}
    if not known:
        raise UsageError(
            f"{path}: {what} is not known: the name is not resnet18-topk_<k>-<target>.pth, so give it"
        )
    if len(set(known.values())) > 1:
        raise UsageError(
            f"{path}: {what} differs: {', '.join(f'{value} ({source})' for source, value in known.items())}"
        )
    return next(iter(known.values()))


def _network(published: Published, conversion: SfnetConversion, k: int) -> Sfnet:
    """Return the network with the released weights and the normalization of its input.

    Raises
    ------
    BundleError
        The weights are not those of an SFNet with k features.
    """
    state = dict(published.state)
    # The released network holds the modules of `resnet` a second time, numbered, in `trunk`. They must have equal values, and
    # are dropped: the network here shares them between its two names.
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
        names = ", ".join(list(published.state)[:4])
        raise BundleError(
            f"{published.path}: lacks resnet.conv1.weight or resnet.fc.weight, so it is no SFNet (ResNet18TopK); its first tensors are {names}"
        )
    if first.shape[1] != N_CHANNELS:
        raise BundleError(f"{published.path}: takes {first.shape[1]} channels, expected {N_CHANNELS}")
    # The network is built with this number before its shapes are compared: a damaged file must not ask for all memory.
    if not 1 <= first.shape[0] <= PAPER_CHANNELS:
        raise BundleError(
            f"{published.path}: its first convolution has {first.shape[0]} channels, expected {PAPER_CHANNELS}"
        )
    if not 1 <= k <= last.shape[1]:
        raise BundleError(f"{published.path}: k = {k}, but the network has {last.shape[1]} features")
    network = Sfnet(
        N_CHANNELS,
        last.shape[0],
        k=k,
        width=first.shape[0] / PAPER_CHANNELS,
        intensity_stretch=stretch_named(conversion.layer, pixel_scale_arcsec=conversion.pixel_scale_arcsec),
    )
    assign(network.resnet, state, source=published.path, prefix="resnet.")
    network.input_mean.copy_(torch.tensor(conversion.mean))
    network.input_std.copy_(torch.tensor(conversion.std))
    return network
