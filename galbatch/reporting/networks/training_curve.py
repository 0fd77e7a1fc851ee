"""The training curve: training loss, validation loss and learning rate of each epoch."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Protocol

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from galbatch import storage

__all__ = ["write_training_curve"]

TRAINING, VALIDATION, MUTED = "#4477aa", "#cc6677", "#777777"


class EpochLike(Protocol):
    """One epoch in the history of a training, as `galbatch.models.training` records it."""

    @property
    def epoch(self) -> int:
        """The epoch's number, from 1."""

    @property
    def training_loss(self) -> float:
        """The mean loss over the epoch."""

    @property
    def validation_loss(self) -> float:
        """The validation loss at the epoch's end."""

    @property
    def learning_rate(self) -> float:
        """The learning rate of the epoch's last step."""


def write_training_curve(history: Sequence[EpochLike], path: str, *, title: str) -> None:
    """Write a PNG of training and validation loss (top) and learning rate (bottom) against the epoch.

    Parameters
    ----------
    history : sequence of EpochLike
        At least one epoch.
    path : str
        Output file, local or ``s3://``.
    title : str
        Title of the figure.
    """
    figure = Figure(figsize=(6.4, 4.8), dpi=120, layout="constrained")
    losses, rates = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    epochs = [e.epoch for e in history]
    losses.plot(epochs, [e.training_loss for e in history], color=TRAINING, marker=".", label="training")
    # The loss of an epoch that diverged is not finite, which would give the axis no limits.
    validation = [e.validation_loss if math.isfinite(e.validation_loss) else math.nan for e in history]
    losses.plot(epochs, validation, color=VALIDATION, marker=".", label="validation")
    best = min(history, key=lambda e: e.validation_loss)
    if math.isfinite(best.validation_loss):
        label = f"kept: epoch {best.epoch}, {best.validation_loss:.4g}"
        losses.plot(best.epoch, best.validation_loss, "o", mfc="none", mec=VALIDATION, ms=11, label=label)
    losses.set_ylabel("loss")
    losses.legend(frameon=False)
    rates.plot(epochs, [e.learning_rate for e in history], color=MUTED, marker=".")
    rates.set(xlabel="epoch", ylabel="learning rate")
    # Epochs are whole numbers: without integer ticks a short training would show epoch 1.5.
    rates.set_ylim(bottom=0)
    rates.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    losses.set_title(title)
    for axes in (losses, rates):
        axes.spines[["top", "right"]].set_visible(False)
    data = io.BytesIO()
    figure.savefig(data, format="png")
    storage.publish(path, data.getvalue())
