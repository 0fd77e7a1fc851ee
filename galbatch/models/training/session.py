"""Training: images and labels in, a network with its metadata out.

Nothing here knows of surveys, stores or simulations. Transforms of the labels: equations 15 and 16 of the GaMPEN paper.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from galbatch.core.types import njy_per_unit
from galbatch.errors import UsageError
from galbatch.models.bundle.files import Bundle
from galbatch.models.engines.switches import denormals_flushed, tf32_allowed
from galbatch.models.heads import loss_of
from galbatch.models.inference.domain import ObjectNumbers, describe_domain
from galbatch.models.metadata import BundleMetadata, DomainInfo, InputInfo, ParameterInfo
from galbatch.models.networks.auxiliary import AUXILIARY_MODULES, AuxiliaryInputs, current_weight_name
from galbatch.models.networks.gampen import Gampen
from galbatch.models.networks.sfnet import Sfnet
from galbatch.models.posterior import fitted, output_limits, to_output
from galbatch.models.training.checkpoint import (
    Checkpoint,
    Identity,
    read_checkpoint,
    require_no_checkpoint,
    write_checkpoint,
)
from galbatch.models.training.data import (
    Extras,
    ImageRows,
    Split,
    cleaned_rows,
    data_fingerprint,
    split_objects,
)
from galbatch.models.training.loop import BatchProgress, Epoch, Loss, TrainingLoop, TrainingTensors
from galbatch.models.training.settings import TrainingSettings, parse_settings, setting_texts

__all__ = ["Session", "Trained", "device_name", "script_of", "train"]

Labels = npt.NDArray[np.float64]
Network = Gampen | Sfnet

TINY_WEIGHT = 1e-20
NORMALIZED_FROM = 2000  # images that an SFNet's mean and width of pixels are taken from
DOMAIN_OBJECTS = 20_000
DOMAIN_BYTES = 2**30


@dataclass(frozen=True)
class Session:
    """Where a training runs, and who follows it. Nothing here changes what is learned, but for a GPU's rounding.

    Attributes
    ----------
    device : cpu, cuda, or auto: cuda if there is one
    checkpoint : file that holds the state after every epoch; None: none is written
    resume : go on from that file if it is there; else it must not be there
    on_start, on_epoch, on_batch : told how the objects are split, and how it goes
    """

    device: str = "auto"
    checkpoint: Path | None = None
    resume: bool = False
    on_start: Callable[[Split], None] | None = None
    on_epoch: Callable[[Epoch], None] | None = None
    on_batch: Callable[[BatchProgress], None] | None = None


@dataclass(frozen=True)
class Trained:
    """A trained network in eval mode on the CPU, its metadata, how it went, and what was used for what."""

    network: nn.Module
    metadata: BundleMetadata
    history: tuple[Epoch, ...]
    split: Split


def script_of(network: nn.Module) -> Any:
    """The network as a TorchScript module in eval mode: what `save_bundle` takes."""
    return torch.jit.script(network.eval())


def train(
    images: ImageRows,
    labels: Labels,
    *,
    settings: TrainingSettings,
    extras: Extras | None = None,
    parent: Bundle | None = None,
    session: Session | None = None,
) -> Trained:
    """Train a network.

    On a CPU, equal settings and data give equal bits at an equal number of threads.

    Parameters
    ----------
    images : (object, band, y, x) float32, nJy; an array, a memory map, or anything indexed like one. Non-finite
        pixels count as 0
    labels : (object, parameter) float64, physical units, in the order of the settings' parameters, finite
    settings : what and how
    extras : ids, auxiliary inputs and PSF widths of the objects
    parent : a bundle whose weights are the start
    session : device, checkpoint, progress

    Raises
    ------
    UsageError
        The arrays do not fit the settings, labels have no finite transform, the parent does not fit, or a
        checkpoint is there that is not this run's.
    GalbatchError
        The training diverged.
    """
    extras, session = extras or Extras(), session or Session()
    settings = parse_settings(_as_given(settings), source="training settings")
    _check(images, labels, settings, extras)
    split = _split(len(labels), settings, extras)
    if session.on_start is not None:
        session.on_start(split)
    parameters = _standardized(labels[split.training], settings, parent)
    data = _tensors(images, labels, parameters, settings=settings, extras=extras)
    device = torch.device(device_name(session.device))
    network = build_network(settings, images.shape[-1])
    _start(network, data, split, parent=parent, settings=settings)
    _place(network, device)
    identity = Identity(settings, data_fingerprint(images, labels, extras), parent.sha256 if parent else "")
    with denormals_flushed(), tf32_allowed(settings.precision != "float32"):
        loop = TrainingLoop(
            network,
            settings,
            data,
            split,
            _loss(settings, parameters),
            on_epoch=session.on_epoch,
            on_batch=session.on_batch,
            on_checkpoint=_keeper(session, identity),
        )
        with loop.last_layers_in_float32():
            before = {} if parent is None else {"parent_validation_loss": loop.validate(0)}
        history = loop.run(_earlier(session, identity))
        _clear_tiny_weights(network)
        domain = _domain_of(network.eval(), data, split, settings=settings, extras=extras)
    _place(network, torch.device("cpu"), torch.contiguous_format)
    record = {**_record(settings, split, loop, parent=parent), **before}
    return Trained(
        network, _metadata_of(images.shape[-1], parameters, settings, domain, record), history, split
    )


def _as_given(settings: TrainingSettings) -> dict[str, Any]:
    """By field, so that what was made in Python is checked as a file's settings are."""
    return {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}


def _check(images: ImageRows, labels: Labels, settings: TrainingSettings, extras: Extras) -> None:
    shape, n_bands = tuple(images.shape), len(settings.bands)
    if len(shape) != 4 or shape[1] != n_bands or shape[2] != shape[3]:
        raise UsageError(
            f"images must be (object, band, y, x) with {n_bands} band{'s' * (n_bands > 1)} and square, found {shape}"
        )
    expected = (shape[0], len(settings.parameters))
    if labels.shape != expected:
        raise UsageError(f"labels must be (object, parameter) = {expected}, found {labels.shape}")
    if settings.size_px not in (None, shape[2]):
        raise UsageError(f"size_px is {settings.size_px}, and the images have {shape[2]} px")
    n_auxiliary = len(settings.auxiliary_inputs)
    found = None if extras.auxiliary is None else extras.auxiliary.shape
    if found != ((shape[0], n_auxiliary) if n_auxiliary else None):
        raise UsageError(
            f"auxiliary inputs must be (object, auxiliary input) = {(shape[0], n_auxiliary)}, found {found}"
        )
    if extras.object_id is not None and len(extras.object_id) != shape[0]:
        raise UsageError(f"{len(extras.object_id)} object ids for {shape[0]} images")


def _split(n_objects: int, settings: TrainingSettings, extras: Extras) -> Split:
    ids = np.arange(n_objects) if extras.object_id is None else extras.object_id
    split = split_objects(
        ids, seed=settings.seed, validation_share=settings.validation_share, test_share=settings.test_share
    )
    if len(split.training) < settings.batch or not len(split.validation):
        raise UsageError(
            f"{n_objects} objects are too few: {len(split.training)} to train on in batches of {settings.batch}, "
            f"{len(split.validation)} to validate"
        )
    return split


def _standardized(
    labels: Labels, settings: TrainingSettings, parent: Bundle | None
) -> tuple[ParameterInfo, ...]:
    """The parameters with location, scale and range: of the training set, or location and scale of the parent."""
    inherited = {} if parent is None or settings.refit_scaling else _by_name(parent)
    result = []
    for parameter, column in zip(settings.parameters, labels.T, strict=True):
        try:
            location, scale, seen = fitted(parameter, column)
        except ValueError as error:
            raise UsageError(str(error)) from None
        old = inherited.get(parameter.name)
        if old is not None and old.transform == parameter.transform:
            location, scale = old.location, old.scale
        result.append(dataclasses.replace(parameter, location=location, scale=scale, training_range=seen))
    return tuple(result)


def _by_name(bundle: Bundle) -> dict[str, ParameterInfo]:
    return {parameter.name: parameter for parameter in bundle.metadata.parameters}


def _tensors(
    images: ImageRows,
    labels: Labels,
    parameters: tuple[ParameterInfo, ...],
    *,
    settings: TrainingSettings,
    extras: Extras,
) -> TrainingTensors:
    target = np.stack([to_output(c, p) for p, c in zip(parameters, labels.T, strict=True)], 1)
    if not np.isfinite(target).all():
        row = int(np.flatnonzero(~np.isfinite(target).all(axis=1))[0])
        raise UsageError(f"labels of object {row} have no finite transform: {labels[row].tolist()}")
    return TrainingTensors(
        images,
        1.0 / njy_per_unit(settings.zero_point_mag),
        torch.from_numpy(target.astype(np.float32)),
        torch.from_numpy(np.array([output_limits(p) for p in parameters], np.float32).T.copy()),
        None if extras.auxiliary is None else torch.from_numpy(np.asarray(extras.auxiliary, np.float32)),
    )


def _place(
    network: Any, device: torch.device, memory_format: torch.memory_format = torch.channels_last
) -> None:
    """Move a network; convolutions are faster on channels last, files hold weights as torch has them."""
    network.to(device, memory_format=memory_format)


def device_name(asked: str) -> str:
    """Which of cpu and cuda is meant by auto, cpu or cuda.

    Raises
    ------
    UsageError
        It is none of these, or there is no GPU.
    """
    if asked not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device must be auto, cpu or cuda, found {asked!r}")
    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise UsageError("device cuda: this torch finds no GPU; use device cpu, or install torch with CUDA")
    return "cuda" if there and asked != "cpu" else "cpu"


def build_network(settings: TrainingSettings, size_px: int) -> Network:
    """The untrained network, its weights drawn from the seed.

    Raises
    ------
    UsageError
        There is no such network: too small images, or more features to keep than it has.
    """
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        try:
            return _network(settings, size_px)
        except ValueError as error:
            raise UsageError(f"{settings.name}: {error}") from None


def _network(settings: TrainingSettings, size_px: int) -> Network:
    rate = settings.dropout_rate or 0.0
    if settings.architecture == "gampen":
        return Gampen(
            size_px,
            settings.n_outputs,
            width=settings.width,
            in_channels=settings.in_channels,
            dropout_rate=rate,
            n_auxiliary=len(settings.auxiliary_inputs),
        )
    return Sfnet(
        len(settings.bands),
        settings.n_outputs,
        k=settings.n_top_features or 1,
        width=settings.width,
        dropout_rate=rate,
        n_auxiliary=len(settings.auxiliary_inputs),
    )


def _start(
    network: Network,
    data: TrainingTensors,
    split: Split,
    *,
    parent: Bundle | None,
    settings: TrainingSettings,
) -> None:
    """Fill in what is not drawn: the parent's weights, or an SFNet's normalization of its input."""
    if parent is not None:
        load_weights(network, parent, settings)
    elif isinstance(network, Sfnet):
        some = np.arcsinh(cleaned_rows(data.images, split.training[:NORMALIZED_FROM], data.scale))
        network.input_mean.copy_(torch.from_numpy(some.mean(axis=(0, 2, 3))))
        network.input_std.copy_(torch.from_numpy(some.std(axis=(0, 2, 3))))
    if parent is None and data.auxiliary is not None and isinstance(network.auxiliary, AuxiliaryInputs):
        seen = data.auxiliary[torch.from_numpy(split.training)]
        network.auxiliary.mean.copy_(seen.mean(dim=0))
        # An auxiliary input of one value adds nothing; it must not divide by 0.
        network.auxiliary.std.copy_(seen.std(dim=0, correction=0).clamp_min(1e-12))
    if settings.trainable == "head":
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(is_head(name))


def is_head(name: str) -> bool:
    """Whether a parameter belongs to the fully connected layers at the network's end."""
    return ".classifier." in name or name.startswith("fc.") or ".fc." in name


def load_weights(network: nn.Module, parent: Bundle, settings: TrainingSettings) -> None:
    """Start from a bundle's weights; the last layer stays as drawn if the parameters or the head are others.

    Raises
    ------
    UsageError
        The bundle's network is another than the settings ask for.
    """
    metadata = parent.metadata
    if metadata.architecture != settings.architecture or metadata.members != 1:
        raise UsageError(
            f"{metadata.name}: is {metadata.architecture} with {metadata.members} member(s), and one {settings.architecture} "
            "is to be trained"
        )
    if _layers(parent.script) != _layers(network):
        raise UsageError(
            f"{metadata.name}: was not made by galbatch's {settings.architecture} on arsinh of the pixels, so it cannot be "
            "trained on; train anew"
        )
    weights = {current_weight_name(name): value for name, value in parent.script.state_dict().items()}
    same = metadata.head == settings.head_info and [(p.name, p.transform) for p in metadata.parameters] == [
        (p.name, p.transform) for p in settings.parameters
    ]
    mine = network.state_dict()
    if not same:
        last = [name for name in mine if is_head(name)][-2:]  # weight and bias
        weights |= {name: mine[name] for name in last}
    problems = [
        f"{name} is {tuple(weights[name].shape) if name in weights else 'absent'}, needed {tuple(value.shape)}"
        for name, value in mine.items()
        if name not in weights or weights[name].shape != value.shape
    ]
    if problems:
        raise UsageError(
            f"{metadata.name}: its weights do not fit the network of the settings ({len(problems)} differ; the first: "
            f"{problems[0]}); leave out size_px, width, in_channels and auxiliary_inputs to take the bundle's"
        )
    network.load_state_dict({name: weights[name] for name in mine})


def _layers(module: Any) -> list[str]:
    """Names of the classes of a network and the modules right below it, as TorchScript keeps them."""
    parts = [module, *module.children()]
    names = [getattr(part, "original_name", type(part).__name__) for part in parts]
    # Older bundles have neither.
    return [name for name in names if name not in AUXILIARY_MODULES]


def _loss(settings: TrainingSettings, parameters: tuple[ParameterInfo, ...]) -> Loss:
    """The paper writes a sum over the galaxies; its code averages over the batch, and the rate of 5e-7 belongs to that."""
    return rmse_loss if settings.loss == "rmse" else loss_of(settings.head_info, parameters)


def rmse_loss(outputs: Tensor, target: Tensor) -> Tensor:
    """Root of the mean square error over rows and parameters, as SFNet's code has it; both (row, parameter)."""
    return (outputs - target).square().mean().clamp_min(1e-12).sqrt()


def _keeper(session: Session, identity: Identity) -> Callable[[Checkpoint], None] | None:
    path = session.checkpoint
    return None if path is None else lambda checkpoint: write_checkpoint(path, checkpoint, identity)


def _earlier(session: Session, identity: Identity) -> Checkpoint | None:
    if session.checkpoint is None:
        return None
    if not session.resume:
        require_no_checkpoint(session.checkpoint)
        return None
    return read_checkpoint(session.checkpoint, identity)


@torch.no_grad()
def _clear_tiny_weights(network: nn.Module) -> None:
    """Weights whose products with activations would be denormal at inference become 0."""
    for parameter in network.parameters():
        parameter[parameter.abs() < TINY_WEIGHT] = 0.0


def _domain_of(
    network: nn.Module, data: TrainingTensors, split: Split, *, settings: TrainingSettings, extras: Extras
) -> DomainInfo:
    """What the training set looked like, and limits found on the validation set; of large sets from some, evenly spread."""
    image_bytes = 4 * int(np.prod(data.images.shape[1:]))
    at_most = min(DOMAIN_OBJECTS, max(256, DOMAIN_BYTES // image_bytes)) // 2
    rows = np.union1d(_spread(split.training, at_most), _spread(split.validation, at_most))
    known = None if extras.psf_fwhm_arcsec is None else extras.psf_fwhm_arcsec[rows]
    return describe_domain(
        network,
        cleaned_rows(data.images, rows, 1.0),
        unit_njy=1.0 / data.scale,
        psf_fwhm_arcsec=settings.psf_fwhm_arcsec or known,
        held_out=np.flatnonzero(np.isin(rows, split.validation)),
        known=ObjectNumbers(
            sky_sigma_njy=None if extras.sky_sigma_njy is None else extras.sky_sigma_njy[rows],
            auxiliary=None if extras.auxiliary is None else np.asarray(extras.auxiliary, np.float32)[rows],
        ),
    )


def _spread(rows: npt.NDArray[np.int64], at_most: int) -> npt.NDArray[np.int64]:
    """Some of the rows, evenly spread."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(at_most, len(rows))).astype(np.int64))]


def _metadata_of(
    size_px: int,
    parameters: tuple[ParameterInfo, ...],
    settings: TrainingSettings,
    domain: DomainInfo,
    record: dict[str, Any],
) -> BundleMetadata:
    """What a trained network says of itself."""
    return BundleMetadata(
        name=settings.name,
        version=settings.version,
        architecture=settings.architecture,
        input=InputInfo(
            bands=settings.bands,
            size_px=size_px,
            pixel_scale_arcsec=settings.pixel_scale_arcsec,
            unit="ADU",
            zero_point_mag=settings.zero_point_mag,
            background=settings.background,
            release=settings.release,
            auxiliary_inputs=settings.auxiliary_inputs,
        ),
        head=settings.head_info,
        parameters=parameters,
        dropout_rate=settings.dropout_rate or 0.0,
        domain=domain,
        n_top_features=settings.n_top_features or 0,
        training_data=settings.training_data,
        training=record,
        licence=settings.licence,
        citation=settings.citation,
    )


def _record(
    settings: TrainingSettings, split: Split, loop: TrainingLoop, *, parent: Bundle | None
) -> dict[str, Any]:
    """What the metadata keeps of the training: settings, sizes, how it went."""
    best = loop.best_epoch
    return {
        **setting_texts(settings),
        "n_objects": len(split.training) + len(split.validation),
        "n_training": len(split.training),
        "n_validation": len(split.validation),
        "n_test": len(split.test),
        "epochs_done": len(loop.history),
        "best_epoch": best.epoch,
        "validation_loss": best.validation_loss,
        "wall_time_s": round(loop.history[-1].elapsed_s, 1),
        "device": str(loop.device.type),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__.split("+")[0],
        **({} if parent is None else {"parent": parent.metadata.name, "parent_sha256": parent.sha256}),
    }
