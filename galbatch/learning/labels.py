"""Tables of true values: one or several, by the ids of the objects, with a weight for each table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from galbatch import models
from galbatch.errors import UsageError
from galbatch.objects import InputColumns, read_numbers

__all__ = ["LabelSources", "Labels", "Matched"]

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[Any]


@dataclass(frozen=True)
class LabelSources:
    """The tables that labels are read from.

    Attributes
    ----------
    paths : tables with ids and true values; an id may occur once in each
    id_column : name of their column of ids
    weights : weight of each table's objects in the loss; empty: all equal
    columns : table with ids and the auxiliary inputs; None: they are in the tables of `paths`
    """

    paths: tuple[str, ...]
    id_column: str = "object_id"
    weights: tuple[float, ...] = ()
    columns: str | None = None

    def check(self) -> None:
        """Raise a UsageError if the weights do not fit the tables, or a table is named twice."""
        if len(set(self.paths)) < len(self.paths):
            raise UsageError(f"--labels: a table is named twice: {', '.join(self.paths)}")
        if self.weights and len(self.weights) != len(self.paths):
            raise UsageError(f"--weights: {len(self.weights)} for {len(self.paths)} tables of labels")
        if wrong := [weight for weight in self.weights if not 0 < weight < np.inf]:
            raise UsageError(f"--weights: {wrong[0]:g}: a weight is above 0")

    @property
    def names(self) -> list[str]:
        """The names of all tables, without their folders."""
        return [Path(path).name for path in (*self.paths, *([self.columns] if self.columns else []))]


class Matched(NamedTuple):
    """Objects that have labels; one that several tables name is there several times, in rising order of its place.

    Attributes
    ----------
    place : (match,) intp, index into the ids that were asked for
    table : (match,) intp, number of the table
    parameters : (match, parameter) float64
    auxiliary : (match, number) float64, those of vectors in a row
    """

    place: npt.NDArray[np.intp]
    table: npt.NDArray[np.intp]
    parameters: Floats
    auxiliary: Floats


@dataclass(frozen=True)
class _Table:
    """One table: (row, parameter) and (row, number) float64, NaN if missing, and the row of each id that misses none."""

    parameters: Floats
    auxiliary: Floats
    row_of: Mapping[Any, int]


@dataclass(frozen=True)
class Labels:
    """True values by id, from one table or several."""

    sources: LabelSources
    tables: tuple[_Table, ...]

    @classmethod
    def read(cls, sources: LabelSources, settings: models.TrainingSettings) -> Labels:
        """Read the parameters and auxiliary inputs of the settings.

        Raises
        ------
        UsageError
            A table lacks a column, or an id occurs twice in it.
        """
        inputs = {column.name: column.length for column in settings.auxiliary_inputs}
        beside = None if sources.columns is None else _Beside.read(sources.columns, sources.id_column, inputs)
        parameters = [parameter.name for parameter in settings.parameters]
        tables = tuple(_read(path, sources.id_column, parameters, inputs, beside) for path in sources.paths)
        return cls(sources, tables)

    @property
    def ids(self) -> Ids:
        """The ids of all objects with labels, each once, in the order of the tables."""
        known = dict.fromkeys(name for table in self.tables for name in table.row_of)
        return np.array(list(known), object if any(isinstance(name, str) for name in known) else np.int64)

    @property
    def n_labels(self) -> int:
        """The number of rows of all tables, also of those that miss a value."""
        return sum(len(table.parameters) for table in self.tables)

    @property
    def n_complete(self) -> int:
        """The number of rows of all tables that miss no value."""
        return sum(len(table.row_of) for table in self.tables)

    def match(self, ids: Ids) -> Matched:
        """Return the labels of the objects with these ids, (object,), each of which occurs once."""
        found = [
            (place, number, table.row_of[name])
            for place, name in enumerate(ids.tolist())
            for number, table in enumerate(self.tables)
            if name in table.row_of
        ]
        place, number, row = np.array(found, np.intp).reshape(-1, 3).T
        n_parameters, n_inputs = self.tables[0].parameters.shape[1], self.tables[0].auxiliary.shape[1]
        values, inputs = np.empty((len(place), n_parameters)), np.empty((len(place), n_inputs))
        for index, table in enumerate(self.tables):
            of_table = number == index
            values[of_table] = table.parameters[row[of_table]]
            inputs[of_table] = table.auxiliary[row[of_table]]
        return Matched(place, number, values, inputs)

    def extras(self, ids: Ids, matched: Matched) -> models.Extras:
        """Return ids, auxiliary inputs and weights of matched objects, for a training; `ids` are those that were asked for."""
        weights = np.array(self.sources.weights, np.float32)
        return models.Extras(
            object_id=ids[matched.place],
            auxiliary=matched.auxiliary.astype(np.float32) if matched.auxiliary.shape[1] else None,
            weight=weights[matched.table] if len(weights) else None,
        )


@dataclass(frozen=True)
class _Beside:
    """The auxiliary inputs (row, number) float64 of a table of their own, and the row of each id."""

    path: str
    values: Floats
    row_of: Mapping[Any, int]

    @classmethod
    def read(cls, path: str, id_column: str, inputs: InputColumns) -> _Beside:
        if not inputs:
            raise UsageError(f"--columns {path}: the network takes no auxiliary inputs; take it out")
        ids, numbers = read_numbers(path, id_column=id_column, columns=list(inputs), lengths=inputs)
        row_of = {name: row for row, name in enumerate(ids.tolist())}
        _require_single(path, id_column, len(ids) - len(row_of))
        return cls(path, np.column_stack([numbers[name] for name in inputs]), row_of)

    def of(self, ids: Ids) -> Floats:
        """Return the values of the objects with these ids, (object, number); NaN for those that are not there."""
        # The last row, which -1 finds, stands for ids that are not there: also in a table without rows.
        values = np.append(self.values, np.full((1, self.values.shape[1]), np.nan), axis=0)
        return values[[self.row_of.get(name, -1) for name in ids.tolist()]]


def _read(
    path: str, id_column: str, parameters: Sequence[str], inputs: InputColumns, beside: _Beside | None
) -> _Table:
    # A column may be both a parameter and an auxiliary input.
    names = list(dict.fromkeys([*parameters, *(inputs if beside is None else ())]))
    ids, numbers = read_numbers(path, id_column=id_column, columns=names, lengths=inputs)
    values = np.stack([numbers[name] for name in parameters], axis=1)
    if beside is not None:
        fed = beside.of(ids)
    else:
        fed = np.column_stack([numbers[name] for name in inputs]) if inputs else np.zeros((len(ids), 0))
    complete = np.flatnonzero(np.isfinite(values).all(axis=1) & np.isfinite(fed).all(axis=1))
    chosen = ids[complete].tolist()
    row_of = dict(zip(chosen, complete.tolist(), strict=True))
    _require_single(path, id_column, len(chosen) - len(row_of))
    return _Table(values, fed, row_of)


def _require_single(path: str, id_column: str, n_again: int) -> None:
    if n_again:
        raise UsageError(
            f"{path}: {n_again} of the ids in column {id_column} occur again; state each object once"
        )
