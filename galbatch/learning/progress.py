"""Progress bars and lines of trainings and calibrations in the terminal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from galbatch import models

__all__ = ["TrainingProgress", "calibration_progress", "line_printer"]

# In the first tenth of a second of an epoch the rate is mostly noise: it is not shown.
RATE_AFTER_S = 0.1


def line_printer(console: Console) -> Callable[[str], None]:
    """Return a function that prints a line on `console`, without wrapping it and without reading markup in it."""
    return lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True)


class TrainingProgress:
    """Progress bars of the epochs and of the batches within an epoch, and a line for each finished epoch."""

    def __init__(self, progress: Progress, n_epochs: int) -> None:
        self._progress = progress
        self._n_epochs = n_epochs
        self._epochs = progress.add_task("epochs", total=n_epochs, rate="")
        self._batches = progress.add_task("batches", total=None, rate="")
        self._epoch = 0
        self._objects_before = 0
        self._started_s = 0.0

    @classmethod
    @contextlib.contextmanager
    def on(cls, console: Console, *, n_epochs: int) -> Iterator[TrainingProgress]:
        """Show the bars on `console` while the context lasts."""
        columns = (
            TextColumn("{task.description:>8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}", style="cyan"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as progress:
            yield cls(progress, n_epochs)

    def start(self, split: models.Split) -> None:
        """Print how many objects are used for training, for validation and for a later test."""
        self._progress.console.print(
            f"{len(split.training)} objects to train on, {len(split.validation)} to validate, {len(split.test)} left for a test",
            highlight=False,
            soft_wrap=True,
        )

    def batch(self, done: models.BatchProgress) -> None:
        """Show the progress within an epoch, with the rate since its first batch."""
        if done.epoch != self._epoch:
            self._epoch, self._objects_before, self._started_s = done.epoch, done.n_objects, time.monotonic()
            self._progress.reset(self._batches, total=done.n_batches)
            # A resumed training begins at a later epoch.
            self._progress.update(self._epochs, completed=done.epoch - 1)
        seconds = time.monotonic() - self._started_s
        galaxies = done.n_objects - self._objects_before
        rate = f"{galaxies / seconds:.0f} galaxies/s, " if seconds > RATE_AFTER_S else ""
        self._progress.update(self._batches, completed=done.batch, rate=f"{rate}loss {done.loss:.4f}")

    def epoch(self, done: models.Epoch) -> None:
        """Show that an epoch is done, and print its losses."""
        self._progress.update(
            self._epochs, completed=done.epoch, rate=f"validation {done.validation_loss:.4f}"
        )
        self._progress.console.print(
            f"epoch {done.epoch} of {self._n_epochs}: loss {done.training_loss:.4f}, "
            f"validation {done.validation_loss:.4f}, {done.elapsed_s:.0f} s",
            highlight=False,
        )


@contextlib.contextmanager
def calibration_progress(console: Console, n_objects: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar while the context lasts, and yield the function that takes the number of further objects done."""
    columns = (
        TextColumn("passes"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("objects, left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("passes", total=n_objects)
        yield lambda n: progress.update(bar, advance=n)
