"""Further columns of the tables of labels and of auxiliary inputs: the magnitude by which results are binned, and what weights them to a target list."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galbatch import models
from galbatch.core.photoz import target_weights
from galbatch.errors import UsageError
from galbatch.objects import column_names, numbers_of, read_numbers, read_table

__all__ = ["FurtherColumns", "with_further_columns"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FurtherColumns:
    """Columns of the table of labels, or of that of the auxiliary inputs, for the results.

    Attributes
    ----------
    magnitude : column by which results are binned; None: the magnitude among the parameters, if there is one
    target : path of a list whose objects the results are to stand for, as the networks will be run on them; None: no weights
    size : column of sizes by which results are binned; None: the size among the parameters, if there is one
    target_columns : colors and magnitudes, columns of both the objects and the target, whose distributions are made alike
    """

    magnitude: str | None = None
    target: str | None = None
    target_columns: tuple[str, ...] = ()
    size: str | None = None

    @property
    def strata(self) -> dict[str, str]:
        """The columns by which results are binned, by the name of what they are."""
        given = {"magnitude": self.magnitude, "size_arcsec": self.size}
        return {what: column for what, column in given.items() if column is not None}

    @property
    def names(self) -> list[str]:
        """The columns that are read, each once."""
        return list(dict.fromkeys([*self.strata.values(), *self.target_columns]))

    def check(self, labels: Sequence[str]) -> None:
        """Raise a UsageError if they contradict each other, or there is no table of labels that could have them."""
        if (self.target is None) != (not self.target_columns):
            raise UsageError("--target and --target-columns go together: which list, and which columns of it")
        if self.names and not labels:
            raise UsageError(
                "--magnitude, --size and --target: the columns are those of --labels, which is not given"
            )


def with_further_columns(
    held_out: models.HeldOut, columns: FurtherColumns, *, tables: Sequence[str], id_column: str
) -> models.HeldOut:
    """Return held-out objects with their magnitudes and sizes, and weights that make them resemble the target.

    Each column is read from the first of `tables` that has it: that of the labels, then that of the auxiliary inputs, if there is one.
    Objects without one of the target's columns have no weight.

    Raises
    ------
    UsageError
        No object has the columns of the target, or none lies near one of the target.
    ObjectListError
        A table lacks a column.
    """
    if not columns.names:
        return held_out
    numbers = _numbers(tables, id_column, columns.names, held_out.ids.tolist())
    strata = {what: numbers[column] for what, column in columns.strata.items()}
    held_out = dataclasses.replace(held_out, strata={**held_out.strata, **strata})
    if columns.target is None:
        return held_out
    own = np.stack([numbers[name] for name in columns.target_columns], axis=1)
    return dataclasses.replace(
        held_out, weights=_weights(own, _target(columns.target, columns.target_columns))
    )


def _numbers(
    tables: Sequence[str], id_column: str, names: Sequence[str], ids: Sequence[object]
) -> dict[str, Floats]:
    """Return columns (object,) of the objects `ids`, each from the first table that has it."""
    found: dict[str, Floats] = {}
    for path in tables:
        there = column_names(path)
        lacking = [name for name in names if name not in found]
        # The last table names in its error what none has.
        wanted = [name for name in lacking if name in there or path == tables[-1]]
        if wanted:
            table_ids, numbers = read_numbers(path, id_column=id_column, columns=wanted)
            row_of = {one: row for row, one in enumerate(table_ids.tolist())}
            rows = np.array([row_of[one] for one in ids], dtype=np.int64)
            found |= {name: numbers[name][rows] for name in wanted}
    return found


def _target(path: str, names: Sequence[str]) -> Floats:
    """Return the columns of the target, (target object, column), without objects that lack one."""
    table = read_table(path, columns=list(names))
    values = [numbers_of(path, table.column(name), name=name, expected="numbers") for name in names]
    stacked = np.stack(values, axis=1)
    return stacked[np.isfinite(stacked).all(axis=1)]


def _weights(own: Floats, target: Floats) -> Floats:
    """Return the weights of objects, (object,), 0 for those that lack a column."""
    known = np.isfinite(own).all(axis=1)
    weights = np.zeros(len(own))
    weights[known] = target_weights(own[known], target)
    return weights
