"""Training: the GaMPEN paper's loss, on arrays that somebody else made.

Nothing here knows of surveys, stores or simulations: images and labels come as arrays.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from galbatch.models.domain import describe_domain
from galbatch.models.gampen import Gampen
from galbatch.models.metadata import BundleMetadata, HeadInfo, InputInfo, ParameterInfo
from galbatch.models.sfnet import Sfnet
from galbatch.models.transforms import fitted, to_output
from galbatch.models.widths import fold_width_factors, gaussian_passes, width_factors
from galbatch.types import njy_per_unit

__all__ = ["Epoch", "Trained", "TrainingSettings", "gaussian_loss", "script_of", "train"]

Images = npt.NDArray[np.float32]

TINY_WEIGHT = 1e-20


@dataclass(frozen=True)
class TrainingSettings:
    """What is trained, and how.

    Attributes
    ----------
    name, version : of the bundle
    architecture : gampen or sfnet
    bands, pixel_scale_arcsec, zero_point_mag, background : the input; its unit is that of the zero point
    parameters : location, scale and training range are filled in from the labels
    head : gaussian or point
    width, in_channels, n_top_features, dropout_rate : of the network
    epochs, batch, learning_rate, weight_decay : of Adam, with a warm-up of half an epoch, then a cosine to 0
    max_gradient_norm : longer gradients are shortened to it
    validation_share : of the objects, to choose the epoch whose weights are kept
    patience : stop after so many epochs without a better one
    frozen_norm_share : of the epochs, at the end: BatchNorm stays in eval mode as at inference. Statistics of
        single batches are noise that the widths would learn, and half of an SFNet's did
    seed : of the weights, the order, the augmentation and the dropout
    psf_fwhm_arcsec : range per band, for the bundle's domain; None: not stated
    training_data, licence, citation : for the metadata
    """

    name: str
    version: str
    architecture: str
    bands: tuple[str, ...]
    parameters: tuple[ParameterInfo, ...]
    pixel_scale_arcsec: float = 0.168
    zero_point_mag: float = 27.0
    background: str = ""
    head: str = "gaussian"
    width: float = 1.0
    in_channels: int = 3
    n_top_features: int = 0
    dropout_rate: float = 0.0
    epochs: int = 12
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    max_gradient_norm: float = 5.0
    validation_share: float = 0.1
    patience: int = 5
    frozen_norm_share: float = 0.5
    seed: int = 1
    psf_fwhm_arcsec: tuple[tuple[float, float], ...] | None = None
    training_data: str = ""
    licence: str = ""
    citation: str = ""


@dataclass(frozen=True)
class Epoch:
    """One epoch of the history: mean losses, and seconds since the start."""

    epoch: int
    training_loss: float
    validation_loss: float
    elapsed_s: float


@dataclass(frozen=True)
class Trained:
    """A trained network in eval mode, its metadata, and how it went."""

    network: nn.Module
    metadata: BundleMetadata
    history: tuple[Epoch, ...]


def script_of(network: nn.Module) -> Any:
    """The network as a TorchScript module in eval mode: what `save_bundle` takes."""
    return torch.jit.script(network.eval())


def gaussian_loss(outputs: Tensor, target: Tensor) -> Tensor:
    """Negative log likelihood of equation 8 of the GaMPEN paper, without its constant.

    With Sigma = L D L^T, z = L^-1 (y - mu) follows by forward substitution.

    Parameters
    ----------
    outputs : (row, output) float32: mu, log d, strictly lower entries of L row by row
    target : (row, parameter) float32, standardized

    Returns
    -------
    Mean over the rows.
    """
    n = target.shape[1]
    residual = target - outputs[:, :n]
    log_d = outputs[:, n : 2 * n]
    solved: list[Tensor] = []
    entry = 2 * n
    for i in range(n):
        z = residual[:, i]
        for j in range(i):
            z = z - outputs[:, entry] * solved[j]
            entry += 1
        solved.append(z)
    z2 = torch.stack(solved, dim=1).square()
    return 0.5 * (z2 * torch.exp(-log_d) + log_d).sum(dim=1).mean()


def point_loss(outputs: Tensor, target: Tensor) -> Tensor:
    """Half the mean squared error, summed over parameters."""
    return 0.5 * (outputs - target).square().sum(dim=1).mean()


def train(
    images: Images,
    labels: npt.NDArray[np.float64],
    *,
    settings: TrainingSettings,
    progress: Callable[[Epoch], None] | None = None,
) -> Trained:
    """Train a network.

    Parameters
    ----------
    images : (object, band, y, x) float32, nJy, finite
    labels : (object, parameter) float64, physical units, in the order of the settings' parameters
    settings : what and how
    progress : called after each epoch

    Raises
    ------
    ValueError
        The arrays do not fit the settings, or labels have no finite transform.
    """
    _check(images, labels, settings)
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    parameters = tuple(
        dataclasses.replace(p, location=location, scale=scale, training_range=seen)
        for p, column in zip(settings.parameters, labels.T, strict=True)
        for location, scale, seen in [fitted(p, column)]
    )
    target = np.stack([to_output(c, p) for p, c in zip(parameters, labels.T, strict=True)], 1)
    network = build_network(settings, images)
    order = rng.permutation(len(images))
    n_validation = max(1, round(settings.validation_share * len(images)))
    fit = _Fit(network, settings, images, torch.from_numpy(target.astype(np.float32)))
    validation = np.sort(order[:n_validation])
    with _without_denormals():
        history = fit.run(order[n_validation:], validation, rng, progress)
    _clear_tiny_weights(network)
    network.eval()
    record = _training_record(settings, len(images), history)
    if settings.head == "gaussian":
        record["width_factors"] = _mend_widths(
            network, images[validation], target[validation], parameters=parameters, settings=settings
        )
    return Trained(network, _metadata_of(network, images, parameters, settings, record), history)


def _mend_widths(
    network: nn.Module,
    images: Images,
    target: npt.NDArray[np.float64],
    *,
    parameters: tuple[ParameterInfo, ...],
    settings: TrainingSettings,
) -> tuple[float, ...]:
    """Make the central intervals cover what they say on the validation galaxies; returns the factors folded in."""
    in_unit = images * np.float32(1.0 / njy_per_unit(settings.zero_point_mag))
    passes = gaussian_passes(network, in_unit, n_parameters=len(parameters), seed=settings.seed)
    factors = width_factors(passes, target, parameters)
    fold_width_factors(network, factors)
    return tuple(round(factor, 4) for factor in factors)


def _metadata_of(
    network: nn.Module,
    images: Images,
    parameters: tuple[ParameterInfo, ...],
    settings: TrainingSettings,
    record: dict[str, Any],
) -> BundleMetadata:
    """What a trained network says of itself."""
    unit_njy = njy_per_unit(settings.zero_point_mag)
    return BundleMetadata(
        name=settings.name,
        version=settings.version,
        architecture=settings.architecture,
        input=InputInfo(
            bands=settings.bands,
            size_px=images.shape[-1],
            pixel_scale_arcsec=settings.pixel_scale_arcsec,
            unit="ADU",
            zero_point_mag=settings.zero_point_mag,
            background=settings.background,
        ),
        head=HeadInfo("point" if settings.head == "point" else "gaussian"),
        parameters=parameters,
        dropout_rate=settings.dropout_rate,
        domain=describe_domain(network, images, unit_njy=unit_njy, psf_fwhm_arcsec=settings.psf_fwhm_arcsec),
        n_top_features=settings.n_top_features,
        training_data=settings.training_data,
        training=record,
        licence=settings.licence,
        citation=settings.citation,
    )


@contextlib.contextmanager
def _without_denormals() -> Iterator[None]:
    """Flush denormal numbers to 0: weights of dead channels decay into them, and each slows a CPU a hundredfold."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@torch.no_grad()
def _clear_tiny_weights(network: nn.Module) -> None:
    """Weights whose products with activations would be denormal at inference become 0."""
    for parameter in network.parameters():
        parameter[parameter.abs() < TINY_WEIGHT] = 0.0


def _check(images: Images, labels: npt.NDArray[np.float64], settings: TrainingSettings) -> None:
    expected = (len(images), len(settings.parameters))
    if labels.shape != expected:
        raise ValueError(f"labels must be (object, parameter) = {expected}, found {labels.shape}")
    if images.ndim != 4 or images.shape[1] != len(settings.bands) or images.shape[2] != images.shape[3]:
        raise ValueError(
            f"images must be (object, band, y, x) with {len(settings.bands)} bands and square, found {images.shape}"
        )
    if len(images) < 2 * settings.batch:
        raise ValueError(f"{len(images)} images are too few for batches of {settings.batch}")


def _training_record(
    settings: TrainingSettings, n_objects: int, history: tuple[Epoch, ...]
) -> dict[str, Any]:
    """What the metadata keeps of the training."""
    keys = (
        "width",
        "epochs",
        "batch",
        "learning_rate",
        "weight_decay",
        "max_gradient_norm",
        "frozen_norm_share",
        "seed",
    )
    best = min(history, key=lambda epoch: epoch.validation_loss)
    return {
        **{key: getattr(settings, key) for key in keys},
        "n_objects": n_objects,
        "loss": f"{settings.head} (GaMPEN paper, equation 8)" if settings.head == "gaussian" else "point",
        "augmentation": "flips and rotations by 90 deg",
        "best_epoch": best.epoch,
        "validation_loss": best.validation_loss,
        "wall_time_s": round(history[-1].elapsed_s, 1),
    }


def build_network(settings: TrainingSettings, images: Images) -> nn.Module:
    """The untrained network.

    Raises
    ------
    ValueError
        The architecture is not known.
    """
    n = len(settings.parameters)
    n_out = (3 * n + n * n) // 2 if settings.head == "gaussian" else n
    if settings.architecture == "gampen":
        return Gampen(
            images.shape[-1],
            n_out,
            width=settings.width,
            in_channels=settings.in_channels,
            dropout_rate=settings.dropout_rate,
        )
    if settings.architecture != "sfnet":
        raise ValueError(f"architecture must be gampen or sfnet, found {settings.architecture!r}")
    sfnet = Sfnet(
        len(settings.bands),
        n_out,
        k=settings.n_top_features,
        width=settings.width,
        dropout_rate=settings.dropout_rate,
    )
    some = np.arcsinh(images[:2000] / njy_per_unit(settings.zero_point_mag))
    sfnet.input_mean.copy_(torch.from_numpy(some.mean(axis=(0, 2, 3))))
    sfnet.input_std.copy_(torch.from_numpy(some.std(axis=(0, 2, 3))))
    return sfnet


class _Fit:
    """One training run: the network, its optimizer and the data."""

    def __init__(
        self, network: nn.Module, settings: TrainingSettings, images: Images, target: Tensor
    ) -> None:
        self.network = network
        self.settings = settings
        self.images = images
        self.target = target
        self.scale = np.float32(1.0 / njy_per_unit(settings.zero_point_mag))
        self.frozen_norm = False
        self.loss = gaussian_loss if settings.head == "gaussian" else point_loss
        self.optimizer = torch.optim.Adam(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )

    def run(
        self,
        training: npt.NDArray[np.int64],
        validation: npt.NDArray[np.int64],
        rng: np.random.Generator,
        progress: Callable[[Epoch], None] | None,
    ) -> tuple[Epoch, ...]:
        """All epochs; leaves the weights of the best one in the network."""
        n_steps = len(training) // self.settings.batch * self.settings.epochs
        schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: rate_factor(step, n_steps, n_steps // (2 * self.settings.epochs))
        )
        started, history = time.monotonic(), []
        best, best_state = math.inf, copy.deepcopy(self.network.state_dict())
        for number in range(1, self.settings.epochs + 1):
            self.frozen_norm = number > self.settings.epochs * (1 - self.settings.frozen_norm_share)
            losses = [self.step(rows, rng, schedule) for rows in self.batches(rng.permutation(training))]
            epoch = Epoch(
                number, float(np.mean(losses)), self.validate(validation), time.monotonic() - started
            )
            history.append(epoch)
            if progress is not None:
                progress(epoch)
            if epoch.validation_loss < best:
                best, best_state = epoch.validation_loss, copy.deepcopy(self.network.state_dict())
            elif number - min(history, key=lambda e: e.validation_loss).epoch >= self.settings.patience:
                break
        self.network.load_state_dict(best_state)
        return tuple(history)

    def batches(self, rows: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
        """Whole batches; what is left over is seen in another epoch."""
        for start in range(0, len(rows) - self.settings.batch + 1, self.settings.batch):
            yield np.sort(rows[start : start + self.settings.batch])

    def step(self, rows: npt.NDArray[np.int64], rng: np.random.Generator, schedule: Any) -> float:
        """One step of the optimizer; returns the loss."""
        self.network.train()
        for module in self.network.modules():
            if self.frozen_norm and isinstance(module, nn.BatchNorm2d):
                module.eval()
        batch = augmented(self.images[rows] * self.scale, rng)
        keys = torch.from_numpy(rng.integers(-(2**63), 2**63, len(rows)))
        loss = self.loss(self.network(torch.from_numpy(batch), keys), self.target[rows])
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.max_gradient_norm)
        self.optimizer.step()
        schedule.step()
        return loss.item()

    @torch.no_grad()
    def validate(self, rows: npt.NDArray[np.int64]) -> float:
        """Mean loss of the passes with dropout, as at inference."""
        self.network.eval()
        total = 0.0
        for start in range(0, len(rows), self.settings.batch):
            some = rows[start : start + self.settings.batch]
            batch = torch.from_numpy(self.images[some] * self.scale)
            outputs = self.network(batch, torch.from_numpy(some))
            total += self.loss(outputs, self.target[some]).item() * len(some)
        return total / len(rows)


def rate_factor(step: int, n_steps: int, n_warmup: int) -> float:
    """Factor on the learning rate: up linearly over the warm-up, then down a cosine to 0."""
    if step < n_warmup:
        return (step + 1) / n_warmup
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - n_warmup) / max(1, n_steps - n_warmup))))


def augmented(images: Images, rng: np.random.Generator) -> Images:
    """The images (object, band, y, x), each of four groups turned by 90 deg times its number, half of them flipped."""
    turned = np.empty_like(images)
    group = np.arange(len(images)) % 8
    for number in rng.permutation(8):
        some = np.rot90(images[group == number], number % 4, axes=(2, 3))
        turned[group == number] = some[..., ::-1] if number >= 4 else some
    return turned
