"""The loop over the epochs of a training. Its results are reproducible: they depend on data, settings and seed alone."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from galbatch.core.prefetch import prefetch
from galbatch.errors import GalbatchError
from galbatch.models.training.averaging import follow
from galbatch.models.training.checkpoint import BegunEpoch, Checkpoint
from galbatch.models.training.data import ImageRows, Split, cleaned
from galbatch.models.training.processes import ONE_PROCESS, Pass, Processes
from galbatch.models.training.settings import TrainingSettings
from galbatch.models.training.streaming import read_parts, shuffled

__all__ = [
    "BatchProgress",
    "Epoch",
    "TrainingLoop",
    "TrainingTensors",
    "augmented",
    "beyond_limits",
    "rate_factor",
]

Rows = npt.NDArray[np.int64]
Loss = Callable[[Tensor, Tensor], Tensor]

# Read while another batch is trained on, so that a slow read does not stop the training.
PREFETCHED_BATCHES = 2
ROUND_OFF = 1e-6  # The rounding of standardized values in float32.
NOTIFY_EVERY = 16  # In batches: to read the loss from a GPU, the program waits until the batch is finished.
# Numbers of the independent random streams of an epoch.
ORDER, TRAINING_KEYS, VALIDATION_KEYS = 0, 1, 2


@dataclass(frozen=True)
class Epoch:
    """One epoch of the history.

    Attributes
    ----------
    epoch : number of the epoch, from 1
    training_loss, validation_loss : mean losses
    elapsed_s : seconds since the start of the training
    learning_rate : learning rate of the last step
    """

    epoch: int
    training_loss: float
    validation_loss: float
    elapsed_s: float
    learning_rate: float = 0.0


@dataclass(frozen=True)
class BatchProgress:
    """The progress within an epoch.

    Attributes
    ----------
    epoch : number of the epoch, from 1
    batch, n_batches : number of batches done, and of all batches
    n_objects : number of objects done
    loss : loss of the last batch
    """

    epoch: int
    batch: int
    n_batches: int
    n_objects: int
    loss: float


@dataclass(frozen=True)
class TrainingTensors:
    """The data that the loop reads.

    Attributes
    ----------
    images : (object, band, y, x) float32, nJy, read by row
    scale : factor from nJy to the network's unit
    target : (object, parameter) float32, standardized labels
    limits : (2, parameter) float32, standardized lower and upper limits; infinite where there are none
    auxiliary : (object, number) float32; None for a network that takes none
    weight : (object,) float32, weight of each object's loss, 1 on average over the training set; None: all equal
    """

    images: ImageRows
    scale: float
    target: Tensor
    limits: Tensor
    auxiliary: Tensor | None = None
    weight: Tensor | None = None


@dataclass(eq=False)
class TrainingLoop:
    """The state of a training: network, optimizer, data and history.

    Attributes
    ----------
    network : network on its device, changed in place
    settings : settings of the training
    data, split : data, and the rows for training and validation; the rows of the test set are never read
    loss : function of outputs (row, output) and targets (row, parameter), both float32
    on_epoch, on_batch : functions called after each epoch, and after some batches
    on_checkpoint : function called with the state after each epoch, and within one; None: the state is not kept
    checkpoint_every_s : seconds after which the state is kept within an epoch
    processes : processes that train together, of which each computes a part of every batch
    history : epochs that are done
    """

    network: nn.Module
    settings: TrainingSettings
    data: TrainingTensors
    split: Split
    loss: Loss
    on_epoch: Callable[[Epoch], None] | None = None
    on_batch: Callable[[BatchProgress], None] | None = None
    on_checkpoint: Callable[[Checkpoint], None] | None = None
    checkpoint_every_s: float = math.inf
    processes: Processes = ONE_PROCESS
    history: list[Epoch] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.processes.check_batch(self.settings.batch)
        self.device = next(self.network.parameters()).device
        self.optimizer = _optimizer(self.network, self.settings)
        self.average = copy.deepcopy(self.network) if self.settings.average_weights else None
        self.best = copy.deepcopy(self.network.state_dict())
        self.n_batches = len(self.split.training) // self.settings.batch
        self._pass = self.processes.synchronized(self.network)
        self._begun: BegunEpoch | None = None
        self._started = self._kept = time.monotonic()

    def run(self, checkpoint: Checkpoint | None = None) -> tuple[Epoch, ...]:
        """Run all epochs, or those after a checkpoint; the network then has the weights of the best one. Return the history."""
        self._started = self._kept = time.monotonic()
        if checkpoint is not None:
            self.restore(checkpoint)
        with self.last_layers_in_float32():
            while not self.is_over:
                number = len(self.history) + 1
                training_loss = self.train_epoch(number)
                validation_loss = self.validate(number)
                self.close_epoch(number, training_loss, validation_loss, self._elapsed_s)
        self.network.load_state_dict(self.best)
        return tuple(self.history)

    @contextlib.contextmanager
    def last_layers_in_float32(self) -> Iterator[None]:
        """Keep the last layers of the network, and of its average, in float32 inside the block, if the precision is bf16."""
        with contextlib.ExitStack() as stack:
            for network in (self.network, self.average):
                if self._is_bf16 and network is not None:
                    stack.enter_context(last_layer_in_float32(network))
            yield

    @property
    def is_over(self) -> bool:
        """Whether all epochs are done, or as many as `patience` since the best one."""
        done = len(self.history)
        if done == 0:
            return False
        waited = done - self.best_epoch.epoch
        return done >= self.settings.epochs or waited >= (self.settings.patience or math.inf)

    @property
    def best_epoch(self) -> Epoch:
        """The epoch with the lowest validation loss."""
        return min(self.history, key=lambda epoch: epoch.validation_loss)

    def train_epoch(self, number: int) -> float:
        """Train on the whole training set once, or on what a checkpoint left of it, in full batches. Return the mean loss."""
        self._set_modes(number)
        # Drawn from (seed, epoch, stream), not from one generator that runs on, so that only keys within an epoch need its state.
        order = shuffled(self.data.images, self.split.training, self._rng(number, ORDER))
        rng = self._rng(number, TRAINING_KEYS)
        # Summed on the device, as reading each loss would make the program wait for a GPU.
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        done = 0
        if self._begun is not None:
            done, rng.bit_generator.state = self._begun.n_batches, self._begun.generator
            total += self._begun.total_loss
            self._begun = None
        # Rows beyond the last full batch are left out of an epoch; the next order leaves out others.
        parts = self._divided(order[: self.n_batches * self.settings.batch])[done:]
        for index, (rows, images) in enumerate(self._batches(parts), done):
            loss = self.step(rows, images, rng, n_before=(number - 1) * self.n_batches + index)
            total += loss
            if self.on_batch is not None and (index % NOTIFY_EVERY == 0 or index == self.n_batches - 1):
                self._notify_batch(number, index + 1, loss.item())
            if index < self.n_batches - 1:
                self._keep_within(index + 1, total, rng)
        mean = total.item() / self.n_batches
        if not math.isfinite(mean):
            raise GalbatchError(
                f"epoch {number}: the loss is not finite, so the training has diverged; lower learning_rate "
                f"({self.settings.learning_rate:g}), add warmup_epochs, or set max_gradient_norm"
            )
        return mean

    def step(self, rows: Rows, images: Tensor, rng: np.random.Generator, *, n_before: int) -> Tensor:
        """Take one step of the optimizer, and return the loss as a tensor on the device.

        Parameters
        ----------
        rows : (row,) int64, rows of the batch in the data
        images : (row, band, y, x) float32, in the network's unit, of this process's part of the rows
        rng : generator of the epoch's stream
        n_before : number of steps since the start of the training
        """
        epochs, index = divmod(n_before, self.n_batches)
        rate = self.settings.learning_rate * rate_factor(
            epochs + (index + 0.5) / self.n_batches, self.settings
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self.settings.augmentation and images.shape[1]:
            # Of a whole batch, each eighth is turned another way: a part begins within an eighth.
            order = np.roll(rng.permutation(8), -self.processes.part(len(rows)).start)
            images = augmented(images, order)
        # The order matters: keys (for the outputs) and targets are drawn from one generator.
        loss = self._loss(rows, self._outputs(rows, images, rng), self._target(rows, rng))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.settings.max_gradient_norm is not None:
            trained = [p for p in self.network.parameters() if p.requires_grad]
            torch.nn.utils.clip_grad_norm_(trained, self.settings.max_gradient_norm)
        self.optimizer.step()
        if self.average is not None:
            follow(self.average, self.network, self.settings.average_weights, n_steps=n_before + 1)
        # A sum over the processes of means over equal parts.
        return self.processes.total(loss.detach()) / self.processes.n

    @torch.no_grad()
    def validate(self, number: int) -> float:
        """Return the mean loss of the validation set, with the weights that would be kept, and with dropout as in inference."""
        network = self.network if self.average is None else self.average
        network.eval()
        one_pass = Pass(network)
        # The same keys in every epoch, so that epochs are compared with the same dropout masks.
        rng = self._rng(0, VALIDATION_KEYS)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for rows, images in self._batches(self._divided(self.split.validation)):
            outputs = self._outputs(rows, images, rng, one_pass=one_pass)
            target = self._target(rows, rng)
            if len(target):
                total += self._loss(rows, outputs, target) * len(target)
        return self.processes.total(total).item() / len(self.split.validation)

    def close_epoch(
        self, number: int, training_loss: float, validation_loss: float, elapsed_s: float
    ) -> None:
        """Add the epoch to the history, keep its weights if they are the best so far, and call the callbacks."""
        rate = float(self.optimizer.param_groups[0]["lr"])
        # An epoch whose validation loss is not finite is worse than any other; min() cannot compare NaN.
        lowest = validation_loss if math.isfinite(validation_loss) else math.inf
        epoch = Epoch(number, training_loss, lowest, elapsed_s, rate)
        self.history.append(epoch)
        if self.best_epoch is epoch:
            kept = self.network if self.average is None else self.average
            self.best = copy.deepcopy(kept.state_dict())
        self._keep(self.checkpoint())
        if self.on_epoch is not None:
            self.on_epoch(epoch)

    def checkpoint(self, begun: str = "") -> Checkpoint:
        """Return the present state, at the end of an epoch, or within one whose text is `begun`."""
        return Checkpoint(
            history=[
                [e.epoch, e.training_loss, e.validation_loss, e.elapsed_s, e.learning_rate]
                for e in self.history
            ],
            network=self.network.state_dict(),
            optimizer=self.optimizer.state_dict(),
            average=None if self.average is None else self.average.state_dict(),
            best=self.best,
            begun=begun,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Set the state to that of a checkpoint."""
        self.network.load_state_dict(checkpoint.network)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        if self.average is not None and checkpoint.average is not None:
            self.average.load_state_dict(checkpoint.average)
        # Checkpoints are read onto the CPU; load_state_dict moves tensors by itself, a plain dict does not.
        self.best = {name: value.to(self.device) for name, value in checkpoint.best.items()}
        self.history[:] = [Epoch(int(number), *rest) for number, *rest in checkpoint.history]
        self._begun = BegunEpoch.of(checkpoint.begun) if checkpoint.begun else None
        self._started -= self._begun.elapsed_s if self._begun is not None else self.history[-1].elapsed_s

    @property
    def _elapsed_s(self) -> float:
        """Seconds since the start of the training, without the time between a stop and its continuation."""
        return time.monotonic() - self._started

    def _keep_within(self, n_batches: int, total: Tensor, rng: np.random.Generator) -> None:
        """Keep the state after `n_batches` of an epoch, if that was last done `checkpoint_every_s` ago."""
        if self.on_checkpoint is not None and time.monotonic() - self._kept >= self.checkpoint_every_s:
            begun = BegunEpoch(n_batches, total.item(), rng.bit_generator.state, self._elapsed_s)
            self._keep(self.checkpoint(begun.text()))

    def _keep(self, state: Checkpoint) -> None:
        if self.on_checkpoint is not None:
            self.on_checkpoint(state)
            self._kept = time.monotonic()

    @property
    def _is_bf16(self) -> bool:
        return self.settings.precision == "bf16"

    def _rng(self, number: int, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.settings.seed, number, stream])

    def _set_modes(self, number: int) -> None:
        """Set training mode, but eval mode for BatchNorm in the last epochs, and where its weights are not trained."""
        self.network.train()
        frozen = number > self.settings.epochs * (1 - self.settings.frozen_norm_share)
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d) and (frozen or not module.weight.requires_grad):
                module.eval()

    def _divided(self, rows: Rows) -> list[Rows]:
        """Return the rows of each batch, rising, as `ImageRows` are indexed by rising rows."""
        size = self.settings.batch
        return [np.sort(rows[start : start + size]) for start in range(0, len(rows), size)]

    def _batches(self, parts: list[Rows]) -> Iterator[tuple[Rows, Tensor]]:
        """Yield the rows of each batch, and the images of this process's part on the device. A thread reads ahead."""
        own = [rows[self.processes.part(len(rows))] for rows in parts]
        with (
            read_parts(self.data.images, own) as found,
            prefetch(map(self._prepared, found), n_ahead=PREFETCHED_BATCHES) as batches,
        ):
            for rows, images in zip(parts, batches, strict=True):
                yield rows, images.to(self.device, non_blocking=True)

    def _prepared(self, images: npt.NDArray[np.float32]) -> Tensor:
        """Return images (row, band, y, x) for the network, in pinned memory for a GPU, which can copy it by itself."""
        prepared = torch.from_numpy(cleaned(images, self.data.scale))
        return prepared.pin_memory() if self.device.type == "cuda" else prepared

    def _own(self, rows: Rows) -> Tensor:
        """Return this process's part of the rows of a batch."""
        return torch.from_numpy(rows[self.processes.part(len(rows))])

    def _loss(self, rows: Rows, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of this process's part of a batch, weighted where objects have weights."""
        if self.data.weight is None:
            return self.loss(outputs, target)
        # Losses are means over rows, so that those of equal weight are taken together.
        weight = self.data.weight[self._own(rows)]
        total = torch.zeros((), device=self.device)
        for value in torch.unique(weight):
            (some,) = torch.nonzero(weight == value, as_tuple=True)
            at = some.to(self.device)
            total = total + float(value) * len(some) / len(weight) * self.loss(outputs[at], target[at])
        return total

    def _target(self, rows: Rows, rng: np.random.Generator) -> Tensor:
        """Return this process's standardized targets (row, parameter) on the device; those at limits may be drawn at random."""
        target = self.data.target[torch.from_numpy(rows)]
        # Drawn for the whole batch by every process, so that targets do not depend on the number of processes.
        if self.settings.limit_tail:
            target = beyond_limits(target, self.data.limits, self.settings.limit_tail, rng)
        return target[self.processes.part(len(rows))].to(self.device, non_blocking=True)

    def _outputs(
        self, rows: Rows, images: Tensor, rng: np.random.Generator, *, one_pass: nn.Module | None = None
    ) -> Tensor:
        """Run one pass of this process's part of a batch, and return the outputs (row, output) float32."""
        keys = torch.from_numpy(rng.integers(-(2**63), 2**63, len(rows)))[self.processes.part(len(rows))]
        given = self.data.auxiliary
        auxiliary = None if given is None else given[self._own(rows)].to(self.device)
        run = self._pass if one_pass is None else one_pass
        outputs: Tensor = run(images, auxiliary, keys.to(self.device, non_blocking=True), self._is_bf16)
        return outputs

    def _notify_batch(self, number: int, done: int, loss: float) -> None:
        """Call `on_batch` after `done` batches of epoch `number`."""
        if self.on_batch is not None:
            self.on_batch(BatchProgress(number, done, self.n_batches, done * self.settings.batch, loss))


def _optimizer(network: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Return the optimizer that the settings name, for all weights that are trained."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    common: dict[str, Any] = {
        "lr": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "fused": True,  # One kernel for all weights, not one for each tensor.
    }
    if settings.optimizer == "sgd":
        return torch.optim.SGD(trained, momentum=settings.momentum, **common)
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(trained, **common)


def rate_factor(position: float, settings: TrainingSettings) -> float:
    """Return the factor on the learning rate after `position` epochs: a linear rise in the warm-up, then the schedule."""
    warmup, epochs = settings.warmup_epochs, settings.epochs
    if position < warmup:
        return position / warmup
    if settings.schedule == "constant":
        return 1.0
    share = (position - warmup) / max(1e-9, epochs - warmup)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))


def augmented(images: Tensor, order: npt.NDArray[np.int64]) -> Tensor:
    """Return the images, each eighth of them rotated and flipped by another one of the eight symmetries of a square.

    Parameters
    ----------
    images : (object, band, y, x)
    order : (8,) int64, number of the symmetry for each eighth: the multiple of 90 deg; from 4 on flipped as well
    """
    turned = torch.empty_like(images)
    for group, number in enumerate(order.tolist()):
        some = torch.rot90(images[group::8], number % 4, dims=(2, 3))
        turned[group::8] = some.flip(3) if number >= 4 else some
    return turned


def beyond_limits(target: Tensor, limits: Tensor, tail: float, rng: np.random.Generator) -> Tensor:
    """Return the targets, with those at a limit replaced by random values beyond it.

    A B/T of exactly 0 means "at the limit or beyond", as does the part of a posterior that lies beyond the limit. With the limit
    itself as target, a Gaussian would become ever narrower there, with half of its probability on either side.

    Parameters
    ----------
    target : (row, parameter) float32, standardized
    limits : (2, parameter) float32, standardized
    tail : mean distance from the limit, of an exponential distribution, in standard deviations of the training set
    rng : generator of the epoch's stream
    """
    further = torch.from_numpy(tail * rng.exponential(size=tuple(target.shape)).astype(np.float32))
    low, high = limits[0] + ROUND_OFF, limits[1] - ROUND_OFF
    below = torch.where(target <= low, low - further, target)
    return torch.where(target >= high, high + further, below)


@contextlib.contextmanager
def last_layer_in_float32(network: nn.Module) -> Iterator[None]:
    """Keep the last linear layer in float32 inside the block, although autocast is on.

    The 8 bits of bf16 are 0.4 %, which is coarser than the error of a bright galaxy's flux.
    """
    last: Any = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return nn.functional.linear(x.float(), last.weight, last.bias)

    # An attribute of the instance hides the method of the class until it is deleted.
    last.forward = forward
    try:
        yield
    finally:
        del last.forward
