"""Conversion of GaMPEN's released weights to a bundle (Ghosh et al. 2022, ApJ 935, 138; 2023, arXiv:2212.00051).

The release has one state dict per network. The scaler of the labels is not part of it; it is computed again from the labels
of the training set.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from scipy.special import expit

from galbatch.core.types import njy_per_unit
from galbatch.errors import BundleError
from galbatch.models.bundle import save_bundle
from galbatch.models.convert.published import Published, assign, file_sha256, read_published
from galbatch.models.metadata import BundleMetadata, HeadInfo, InputInfo, LabelInfo, ParameterInfo
from galbatch.models.networks import SMALLEST_PX, Gampen, localized_px
from galbatch.models.posterior import from_output
from galbatch.objects import column_names, read_table

__all__ = ["GampenConversion", "convert_gampen"]

RELEASED_PX = {239: "g", 143: "r", 96: "i"}
"""Cutout sizes of the released networks, in pixels, and the band of each (for z < 0.25, 0.25-0.5 and 0.5-0.75)."""

TARGETS = ("custom_logit_bt", "ln_R_e_asec", "ln_total_flux_adus")
N_OUTPUTS = 9  # Three means, three log d and the three entries of L.
PAPER_CHANNELS = 64  # The number of channels of the first convolution in table 3 of the paper.
LARGEST_PX = 2048  # Far beyond any cutout of a galaxy: the search for a size that fits the weights must end.
# Where no galaxy is a pure disk or bulge, the release clamps nothing. A bundle's logit needs limits: these are never reached.
NO_LIMITS = (1e-12, 1.0 - 1e-12)
# "Half the smallest value strictly inside" is recovered from logits that a table keeps to a few digits only.
HALF_TOLERANCE = 1e-3

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GampenConversion:
    """Facts about a released network that are not in its file of weights.

    Attributes
    ----------
    scaling : folder with info.csv and splits/<slug>-train.csv, the labels that the scaler is fitted to
    slug : name of the split: balanced-dev2 for the networks of real galaxies, balanced-dev for those of simulated ones
    dropout_rate : rate that the network was trained with
    band : band of the images
    size_px : side of the cutouts in pixels; None: the one of 239, 143 and 96 that fits the weights' shapes
    pixel_scale_arcsec, zero_point_mag : pixel scale of the images, and AB zero point of their unit
    release, background : data release and sky subtraction of the images, which are compared with the survey's
    name : name of the bundle; None: gampen-<band>
    """

    scaling: str
    slug: str
    dropout_rate: float
    band: str
    size_px: int | None = None
    pixel_scale_arcsec: float = 0.168
    zero_point_mag: float = 27.0
    release: str = "pdr2"
    background: str = "global sky"
    name: str | None = None

    def metadata(
        self, size_px: int, parameters: tuple[ParameterInfo, ...], origin: dict[str, Any]
    ) -> BundleMetadata:
        """Return the metadata of the bundle; `origin` describes the files that it is made from."""
        return BundleMetadata(
            name=self.name or f"gampen-{self.band}",
            version="1",
            architecture="gampen",
            input=InputInfo(
                bands=(self.band,),
                size_px=size_px,
                pixel_scale_arcsec=self.pixel_scale_arcsec,
                unit="ADU",
                zero_point_mag=self.zero_point_mag,
                background=self.background,
                release=self.release,
            ),
            head=HeadInfo("gaussian"),
            parameters=parameters,
            dropout_rate=self.dropout_rate,
            training_data=f"as the authors of the weights say; labels of split {self.slug}",
            origin=origin,
            licence="as released by the authors; the code they come with is GPL-3.0",
            citation="Ghosh et al. 2022, ApJ 935, 138; Ghosh et al. 2023, doi:10.3847/1538-4357/acd546 (arXiv:2212.00051)",
        )


def convert_gampen(weights: str, output: str, conversion: GampenConversion) -> tuple[str, BundleMetadata]:
    """Write a bundle with released weights.

    Parameters
    ----------
    weights : path of the released state dict, such as g_0_025_model.pt
    output : path of the bundle to write
    conversion : facts that are not in the file of weights

    Returns
    -------
    sha256 : hash of the bundle's file
    metadata : metadata of the bundle

    Raises
    ------
    BundleError
        The weights are not GaMPEN's, fit no known cutout size, or have another number of outputs than 9; or there is no
        split of that slug.
    ObjectListError
        A table of the scaling folder cannot be read, or lacks columns.
    """
    published = read_published(weights)
    channels, in_channels = _shape_of(published, "localization.0.weight", axes=4)[:2]
    n_out = _shape_of(published, "vgg.classifier.6.weight", axes=2)[0]
    # The network is built with this number before its shapes are compared: a damaged file must not ask for all memory.
    if channels > PAPER_CHANNELS:
        raise BundleError(
            f"{weights}: its first convolution has {channels} channels, expected {PAPER_CHANNELS}"
        )
    if n_out != N_OUTPUTS:
        raise BundleError(
            f"{weights}: has {n_out} outputs, expected {N_OUTPUTS}: means, log d and L of {', '.join(TARGETS)}; for other "
            "parameters script it and use galbatch models convert script"
        )
    size_px = size_of(published, conversion.size_px)
    parameters, scaled_by = scaler(conversion)
    network = Gampen(
        size_px,
        n_out,
        width=channels / PAPER_CHANNELS,
        in_channels=in_channels,
        dropout_rate=conversion.dropout_rate,
    )
    assign(network, published.state, source=weights)
    origin = {
        "converted_from": "GaMPEN state dict (vgg16_w_stn_oc_drp)",
        "weights": Path(weights).name,
        "weights_sha256": file_sha256(weights),
        "in_channels": in_channels,
        "slug": conversion.slug,
        "dropout_rate": conversion.dropout_rate,
        **scaled_by,
    }
    metadata = conversion.metadata(size_px, parameters, origin)
    return save_bundle(output, torch.jit.script(network.eval()), metadata), metadata


def _shape_of(published: Published, name: str, *, axes: int) -> tuple[int, ...]:
    """Return the shape of a tensor that a GaMPEN must have, with `axes` axes."""
    if name not in published.state:
        names = ", ".join(list(published.state)[:4])
        raise BundleError(
            f"{published.path}: lacks {name}, so it is no GaMPEN (vgg16_w_stn_oc_drp); its first tensors are {names}"
        )
    shape = tuple(published.state[name].shape)
    if len(shape) != axes or 0 in shape:
        raise BundleError(f"{published.path}: {name} has the shape {shape}, expected {axes} axes, none empty")
    return shape


def size_of(published: Published, given_px: int | None) -> int:
    """Return the side of the cutouts in pixels: `given_px`, or the released size that fits the weights.

    Raises
    ------
    BundleError
        The size does not fit the weights, or no released size does.
    """
    # The spatial transformer's first linear layer takes n_maps square maps, whose side follows from that of the cutouts.
    n_inputs = _shape_of(published, "fc_loc.0.weight", axes=2)[1]
    n_maps = _shape_of(published, "localization.3.weight", axes=4)[0]
    sizes = range(SMALLEST_PX, LARGEST_PX)
    fitting = [size for size in sizes if n_maps * localized_px(size) ** 2 == n_inputs]
    what = f"{published.path}: fc_loc.0 takes {n_inputs} numbers"
    if not fitting:
        raise BundleError(f"{what}, which are {n_maps} square maps for no cutout size")
    span = f"{fitting[0]} to {fitting[-1]} px"
    if given_px is not None:
        if given_px not in fitting:
            raise BundleError(f"{what}: that fits cutouts of {span}, not of {given_px}")
        return given_px
    # Pooling rounds down, so several sizes fit; the released ones are far enough apart for one of them at most.
    released = [size for size in RELEASED_PX if size in fitting]
    if not released:
        raise BundleError(
            f"{what}: that fits cutouts of {span}, none of the released sizes ({', '.join(map(str, RELEASED_PX))}); say "
            "which with --size-px"
        )
    return released[0]


def scaler(conversion: GampenConversion) -> tuple[tuple[ParameterInfo, ...], dict[str, Any]]:
    """Return the parameters with the release's location and scale, and a record of the labels that these follow from.

    They are mean and population standard deviation over the training split, as in scikit-learn's StandardScaler.

    Raises
    ------
    BundleError
        There is no such split, labels are not finite, or all are equal.
    ObjectListError
        A table cannot be read, or lacks columns.
    """
    folder = Path(conversion.scaling)
    info = folder / "info.csv"
    labels, split = _labels(folder, conversion.slug)
    # The release was trained on these rows, and no network is trained on NaN: this must be another table.
    bad = ~np.isfinite(labels)
    if bad.any():
        raise BundleError(
            f"{split}: {int(bad.any(axis=1).sum())} of {len(labels)} rows have a label that is not finite"
        )
    if len(labels) < 2 or not labels.std(axis=0).all():
        raise BundleError(f"{split}: {len(labels)} rows with all labels equal: nothing to standardize")
    limits, limits_from = _bt_limits(info, labels[:, 0])
    unit_njy = njy_per_unit(conversion.zero_point_mag)
    found = {
        "scaler_rows": len(labels),
        "scaler_from": split.name,
        "scaler_sha256": file_sha256(split),
        "bt_limits_from": limits_from,
    }
    if info.is_file():
        found["info_sha256"] = file_sha256(info)
    return _parameters(labels, limits, unit_njy, conversion.band), found


def _parameters(
    labels: Floats, limits: tuple[float, float], unit_njy: float, band: str
) -> tuple[ParameterInfo, ...]:
    """Return B/T, effective radius and flux with the scaling of labels (object, target), of which the first is logit B/T."""
    location, scale = labels.mean(axis=0), labels.std(axis=0)  # (target,)
    low, high = labels.min(axis=0), labels.max(axis=0)
    bt_range = from_output([low[0], high[0]], ParameterInfo("bt", "", "", "logit", limits=limits))
    # The network was trained on ln(flux in ADU). In nJy the logarithm is larger by a constant, so only the location changes.
    shift = float(np.log(unit_njy))
    bt = ParameterInfo(
        "bt",
        "",
        f"bulge-to-total light ratio in {band}",
        "logit",
        limits=limits,
        training_range=(float(bt_range[0]), float(bt_range[1])),
        labels=(
            LabelInfo("highly bulge-dominated", at_least=0.85),
            LabelInfo("highly disk-dominated", at_most=0.1),
        ),
    )
    re_arcsec = ParameterInfo(
        "re_arcsec",
        "arcsec",
        f"effective radius in {band}",
        "ln",
        training_range=(float(np.exp(low[1])), float(np.exp(high[1]))),
        labels=(LabelInfo("R_e < 1 arcsec, below the seeing", at_most=1.0),),
    )
    flux_njy = ParameterInfo(
        "flux_njy",
        "nJy",
        f"total flux in {band}",
        "ln",
        training_range=(float(np.exp(low[2] + shift)), float(np.exp(high[2] + shift))),
        magnitude="mag",
    )
    shifted = (location[0], location[1], location[2] + shift)
    return tuple(
        dataclasses.replace(parameter, location=float(where), scale=float(width))
        for parameter, where, width in zip((bt, re_arcsec, flux_njy), shifted, scale, strict=True)
    )


def _labels(folder: Path, slug: str) -> tuple[Floats, Path]:
    """Return the labels (object, target) of the training split, and the split's path.

    The release writes the labels into the split itself. Else they are taken from info.csv, whose rows are matched with the
    split's by object_id or file_name.
    """
    split, info = folder / "splits" / f"{slug}-train.csv", folder / "info.csv"
    if not split.is_file():
        slugs = sorted(p.name.removesuffix("-train.csv") for p in (folder / "splits").glob("*-train.csv"))
        there = f"there are {', '.join(slugs)}" if slugs else f"{folder / 'splits'} holds no <slug>-train.csv"
        raise BundleError(f"{split}: there is no such split; {there}")
    names = column_names(str(split))
    if set(TARGETS) <= set(names):
        return _numbers(str(split), read_table(str(split), columns=TARGETS)), split
    lacks = f"{split}: lacks {', '.join(TARGETS)}, and"
    if not info.is_file():
        raise BundleError(f"{lacks} there is no {info} to join it with")
    both = set(names) & set(column_names(str(info)))
    key = next((key for key in ("object_id", "file_name") if key in both), None)
    if key is None:
        raise BundleError(
            f"{lacks.removesuffix(', and')} and shares neither object_id nor file_name with {info.name}; it holds {', '.join(names)}"
        )
    table = read_table(str(info), columns=[key, *TARGETS])
    # The rows of the two tables are in different orders.
    place = {value: number for number, value in enumerate(table.column(key).to_pylist())}
    wanted = read_table(str(split), columns=[key]).column(key).to_pylist()
    lost = [value for value in wanted if value not in place]
    if lost:
        raise BundleError(
            f"{info}: lacks {len(lost)} of {len(wanted)} objects of {split.name}, such as {key} {lost[0]}"
        )
    return _numbers(str(info), table.select(list(TARGETS)))[[place[value] for value in wanted]], split


def _numbers(path: str, table: pa.Table) -> Floats:
    """Return the columns of a table as (row, column) float64."""
    columns = []
    for name in table.column_names:
        try:
            columns.append(table.column(name).cast(pa.float64()).to_numpy())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise BundleError(f"{path}: column {name} holds no numbers") from None
    return np.stack(columns, axis=1)


def _bt_limits(info: Path, logits: Floats) -> tuple[tuple[float, float], str]:
    """Return the B/T that stand for exactly 0 and 1 in the release, and a text that says where they were found.

    Before the logit the release replaced a B/T of 0 by half the smallest value above 0, and a B/T of 1 by the value half-way
    between 1 and the largest one below. They are computed from column bt of info.csv, or found among the logits' extremes.

    Parameters
    ----------
    info : path of info.csv, which may be missing
    logits : (object,) logit B/T of the training split, used where info.csv has none
    """
    names = column_names(str(info)) if info.is_file() else []
    if "bt" in names:
        bt = _numbers(str(info), read_table(str(info), columns=["bt"]))[:, 0]
        inside = bt[(bt > 0) & (bt < 1)]
        if len(inside) and bool((bt == 0).any() or (bt == 1).any()):
            low = float(inside.min()) / 2 if (bt == 0).any() else NO_LIMITS[0]
            high = 1.0 - float(1.0 - inside.max()) / 2 if (bt == 1).any() else NO_LIMITS[1]
            return (low, high), "bt of info.csv"
        return NO_LIMITS, "bt of info.csv: no 0 and no 1 in it"
    # The extremes of all galaxies, as in column bt: the split alone may lack the smallest or the largest.
    if TARGETS[0] in names:
        logits = _numbers(str(info), read_table(str(info), columns=[TARGETS[0]]))[:, 0]
    zero, below_one = _replaced(expit(logits)), _replaced(expit(-logits))
    low = NO_LIMITS[0] if zero is None else zero
    high = NO_LIMITS[1] if below_one is None else 1.0 - below_one
    return (low, high), f"extremes of {TARGETS[0]}"


def _replaced(values: Floats) -> float | None:
    """Return the smallest of the values if it is half of the next one, which shows that it stands for 0; else None."""
    distinct = np.unique(values)
    # Equal numbers may differ in the last digits that a table keeps.
    above = distinct[distinct > distinct[0] * (1 + HALF_TOLERANCE)]
    if len(above) and abs(2 * distinct[0] / above[0] - 1) < HALF_TOLERANCE:
        return float(distinct[0])
    return None
