"""Some of the objects that a task infers, with pictures and values, and its flags, for the dashboard."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch.core.columns import Column, ResultColumn, Statistic
from galbatch.core.flags import count_flags
from galbatch.core.types import CutoutBlock
from galbatch.dashboard.events import Sample

__all__ = ["Sampler", "flag_counts", "value_texts"]

N_SAMPLES = 9

PICTURE_S = 1.0
"""Least time between two pictures in seconds. A page that shows nine needs no more."""


def flag_counts(columns: Sequence[Column], values: Mapping[str, npt.NDArray[Any]]) -> dict[str, int]:
    """Return the number of objects with each flag that any has, by column and flag, such as ``gampen_flags OUT_OF_DOMAIN``.

    Parameters
    ----------
    columns : sequence of Column
        Those that hold no flags are passed over.
    values : mapping of str to ndarray, (object,)
        By the column's name.
    """
    return {
        f"{column.name} {flag.name}": n
        for column in columns
        if column.flags is not None
        for flag, n in zip(column.flags, count_flags(values[column.name], column.flags), strict=True)
        if n
    }


def value_texts(
    columns: Sequence[Column], values: Mapping[str, npt.NDArray[Any]], row: int
) -> tuple[tuple[str, str], ...]:
    """Return name and value of each quantity of one object, such as ("gampen bt", "0.42 ± 0.05"); "no value" for a missing one.

    The value is the mean: quantiles are those that run.toml asks for, and the median may not be among them.
    """
    own = [column for column in columns if isinstance(column, ResultColumn)]
    by_key = {(column.model, column.key.quantity, column.key.statistic): column.name for column in own}
    texts = []
    for (model, quantity, statistic), name in by_key.items():
        if statistic is not Statistic.MEAN:
            continue
        mean = float(values[name][row])
        std = by_key.get((model, quantity, Statistic.STD))
        width = float(values[std][row]) if std else np.nan
        texts.append((f"{model} {quantity}", _value_text(mean, width)))
    return tuple(texts)


def _value_text(mean: float, width: float) -> str:
    """Return a value with its standard deviation, which has two digits: 17,700 ± 310, or 0.422 ± 0.052."""
    if not np.isfinite(mean):
        return "no value"
    if not (np.isfinite(width) and width > 0):
        return f"{mean:.3g}"
    digits = int(np.clip(1 - np.floor(np.log10(width)), 0, 6))
    return f"{mean:,.{digits}f} ± {width:,.{digits}f}"


class Sampler:
    """Keeps an object of a block now and then: the last nine, at most one a second.

    Parameters
    ----------
    draw : callable
        Takes a block and the index of an object in it, and returns its picture as PNG.
    """

    # Of all tasks of a process: small partitions follow one another within a second.
    _last_s = -PICTURE_S

    def __init__(self, draw: Callable[[CutoutBlock, int], bytes]) -> None:
        self._draw = draw
        self._kept: deque[Sample] = deque(maxlen=N_SAMPLES)

    def look(
        self,
        cutouts: CutoutBlock,
        rows: npt.NDArray[np.intp],
        columns: Sequence[Column],
        values: Mapping[str, npt.NDArray[Any]],
    ) -> None:
        """Keep an object of a block that was inferred, if a second has passed.

        Parameters
        ----------
        cutouts : CutoutBlock
        rows : ndarray, (object of the block,) intp
            Index of each object in the partition.
        columns : sequence of Column
            Of the leaf.
        values : mapping of str to ndarray, (object of the partition,)
            By the column's name.
        """
        # Blocks whose values are all in the base come without pixels.
        if not len(rows) or not cutouts.image.size or time.monotonic() - Sampler._last_s < PICTURE_S:
            return
        Sampler._last_s = time.monotonic()
        # The first object: a choice by brightness or size would show a wall what the survey is not.
        index, row = 0, int(rows[0])
        flags = [
            str(flag.name)
            for column in columns
            if column.flags is not None
            for flag in column.flags
            if int(values[column.name][row]) & flag.value
        ]
        object_id = str(cutouts.object_id[index])
        texts = value_texts(columns, values, row)
        self._kept.append(Sample(object_id, self._draw(cutouts, index), texts, tuple(flags)))

    def kept(self) -> tuple[Sample, ...]:
        """Return the objects kept, the newest last."""
        return tuple(self._kept)
