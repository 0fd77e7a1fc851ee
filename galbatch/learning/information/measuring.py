"""Log scores of three networks, of images, of numbers and of both, on the objects that none was trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from galbatch import models
from galbatch.core.information import InformationOfBin, LogScores, information_in_bins
from galbatch.core.photoz import equal_bins
from galbatch.errors import UsageError
from galbatch.learning.further_columns import with_further_columns
from galbatch.learning.held_out import held_out_objects
from galbatch.learning.progress import line_printer
from galbatch.learning.sources import DataSource, input_settings, open_source
from galbatch.objects import numbers_of, read_table

__all__ = [
    "SOURCES",
    "InformationTask",
    "measure_information",
    "prepare_information",
    "read_scores",
    "split_information",
]

Floats = npt.NDArray[np.float64]

SOURCES = ("image", "numbers", "both")
"""The names of the three networks, by what they see."""
FEWEST_IN_BIN = 100  # With fewer the entropy of the bin's labels is not known to 0.1.
N_BINS = 4


@dataclass(frozen=True)
class InformationTask:
    """Three networks whose log scores are to be compared, checked as far as that needs no data.

    Attributes
    ----------
    bundles : the networks of the image, of the numbers and of both, by `SOURCES`
    source : where the objects come from: a store with labels
    parameter : name of the parameter; of classes any
    passes : number of passes per object, their seed and batch size
    """

    bundles: Mapping[str, models.Bundle]
    source: DataSource
    parameter: str
    passes: models.PassSettings

    @property
    def is_classes(self) -> bool:
        """Whether the label is a class."""
        return models.head_of(self.bundles["both"].metadata.head).is_classes

    @property
    def label_text(self) -> str:
        """The label's name as a title has it: the parameter, or the classes."""
        classes = [one.name for one in self.bundles["both"].metadata.parameters]
        return " or ".join(classes) if self.is_classes else self.parameter


def prepare_information(
    paths: Mapping[str, str],
    source: DataSource,
    *,
    parameter: str | None = None,
    passes: models.PassSettings | None = None,
) -> InformationTask:
    """Return a comparison whose arguments were checked; nothing is started.

    Parameters
    ----------
    paths : mapping of str to str
        Bundles by image, numbers and both.
    source : DataSource
        A store and a table of labels.
    parameter : str or None
        The parameter; None: the only one.
    passes : PassSettings or None

    Raises
    ------
    UsageError
        The networks do not fit each other, one has no density or several grids, or the source is none.
    """
    source.check(takes_pixels=True)
    source.further.check(source.labels)
    if source.store is None:
        raise UsageError(
            "models information: --store and --labels, the cutouts and their true values, are needed"
        )
    bundles = {name: models.load_bundle(models.bundle_path(paths[name])) for name in SOURCES}
    for name, bundle in bundles.items():
        _check_scored(name, bundle.metadata)
    parameters = [one.name for one in bundles["both"].metadata.parameters]
    classes = {name: models.head_of(bundle.metadata.head).is_classes for name, bundle in bundles.items()}
    if len(set(classes.values())) > 1:
        raise UsageError(
            f"models information: {classes}: networks of classes and of values cannot be compared"
        )
    chosen = parameter or parameters[0]
    if not classes["both"] and (chosen not in parameters or (parameter is None and len(parameters) > 1)):
        raise UsageError(f"--parameter {parameter or ''}: name one of {', '.join(parameters)}")
    for name in ("image", "numbers"):
        _check_fits(name, bundles[name].metadata, bundles["both"].metadata)
    return InformationTask(bundles, source, chosen, passes or models.PassSettings())


def _check_scored(name: str, own: models.BundleMetadata) -> None:
    """Raise a UsageError if a network has no density at true values, or data that cannot be read here."""
    head = models.head_of(own.head)
    if head.is_point and not head.is_classes:
        raise UsageError(
            f"--{name}: {own.name} gives single values, which have no density; train it with another head"
        )
    input_settings(own)  # refuses what cannot be read


def _check_fits(name: str, own: models.BundleMetadata, both: models.BundleMetadata) -> None:
    """Raise a UsageError if the data of the network of both sources do not hold what a network takes."""
    if [one.name for one in own.parameters] != [one.name for one in both.parameters]:
        raise UsageError(f"--{name}: {own.name} has other parameters than {both.name}, the network of both")
    taken = [one.label for one in own.input.auxiliary_inputs]
    there = [one.label for one in both.input.auxiliary_inputs]
    if name == "image" and taken:
        raise UsageError(f"--image: {own.name} takes the numbers {', '.join(taken)} as well")
    if lacking := [one for one in taken if one not in there]:
        raise UsageError(f"--{name}: {own.name} takes {', '.join(lacking)}, which {both.name} does not")
    plain = dataclasses.replace(both.input, auxiliary_inputs=own.input.auxiliary_inputs)
    grids = [(one.bands, one.size_px, one.pixel_scale_arcsec) for one in (own.input, plain)]
    if own.input.bands and grids[0] != grids[1]:
        raise UsageError(
            f"--{name}: {own.name} takes other cutouts than {both.name}: {grids[0]} and {grids[1]}"
        )


def measure_information(task: InformationTask, *, console: Console | None = None) -> LogScores:
    """Return the log scores of the three networks on the objects that none of them was trained on.

    Parameters
    ----------
    task : InformationTask
    console : Console or None
        Shows notes. None shows nothing.
    """
    notify = line_printer(console or Console(quiet=True))
    settings = input_settings(task.bundles["both"].metadata)
    recipe = models.Recipe(settings, n_objects=0, population="", seed=0)
    data = open_source(task.source, recipe, settings, notify=notify)
    held_out, notes = held_out_objects(data, list(task.bundles.values()))
    for note in notes:
        notify(note)
    held_out = with_further_columns(
        held_out, task.source.further, tables=task.source.tables, id_column=task.source.id_column
    )
    found = {name: _scores(task, name, held_out) for name in SOURCES}
    failed: npt.NDArray[np.bool_] = np.any([np.isnan(one) for one in found.values()], axis=0)
    if failed.any():
        notify(f"{int(failed.sum())} objects left out, as a network gave numbers that are not finite")
    column = [one.name for one in task.bundles["both"].metadata.parameters].index(task.parameter)
    truth = held_out.labels if task.is_classes else held_out.labels[:, column]
    scores = LogScores(found["image"], found["numbers"], found["both"], truth, held_out.strata)
    return scores.take(np.logical_not(failed))


def _scores(task: InformationTask, name: str, held_out: models.HeldOut) -> Floats:
    """Return the log scores (object,) of one network, which is given the auxiliary inputs that it takes."""
    bundle = task.bundles[name]
    columns = _columns_of(bundle.metadata.input, task.bundles["both"].metadata.input)
    auxiliary = held_out.auxiliary[:, columns] if columns and held_out.auxiliary is not None else None
    own = dataclasses.replace(held_out, auxiliary=auxiliary)
    return models.log_scores(bundle, own, task.passes, parameter=task.parameter)


def _columns_of(own: models.InputInfo, both: models.InputInfo) -> list[int]:
    """Return the places of the numbers that a network takes among those of the network of both sources."""
    # A vector stands in the array as its numbers, one after the other.
    names = [one.name for one in both.auxiliary_inputs for _ in range(one.n_numbers)]
    return [place for one in own.auxiliary_inputs for place, name in enumerate(names) if name == one.name]


def read_scores(path: str, *, bins: Sequence[str] = ()) -> LogScores:
    """Return log scores of a table with the columns image, numbers, both and label, and those by which objects are binned.

    Labels of integers or text are classes, others are continuous.

    Raises
    ------
    UsageError
        The table has no rows, or rows without a label.
    ObjectListError
        The table lacks a column, or a column has no numbers.
    """
    table = read_table(path, columns=list(dict.fromkeys([*SOURCES, "label", *bins])))
    values = {
        name: numbers_of(path, table.column(name), name=name, expected="numbers")
        for name in (*SOURCES, *bins)
    }
    label = table.column("label")
    n_missing = pc.sum(pc.is_null(label, nan_is_null=True)).as_py() or 0
    if n_missing or not len(label):
        raise UsageError(
            f"{path}: {n_missing} of {len(label)} rows have no label; give objects that all have one"
        )
    if pa.types.is_floating(label.type):
        labels = numbers_of(path, label, name="label", expected="numbers")
    else:
        classes, number = np.unique(np.asarray(label.to_pylist()), return_inverse=True)
        labels = np.eye(len(classes))[number]
    binned = {name: values[name] for name in bins}
    return LogScores(values["image"], values["numbers"], values["both"], labels, binned)


def split_information(scores: LogScores, *, n_bootstrap: int = 200, seed: int = 0) -> list[InformationOfBin]:
    """Return the information of all objects and of bins of each quantity in `bin_values`, in nats.

    Raises
    ------
    UsageError
        A score is -inf, as a network gives a true value the probability 0.
    """
    every = np.stack([scores.image, scores.numbers, scores.both])
    if n_bad := int((~np.isfinite(every)).any(axis=0).sum()):
        raise UsageError(
            f"information: {n_bad} of {len(scores)} objects have a log score that is not finite: a network is sure that their true "
            "value is none; binned heads need edges that hold all labels"
        )
    n_bins = max(1, min(N_BINS, len(scores) // FEWEST_IN_BIN))
    edges = {name: equal_bins(values, n_bins) for name, values in scores.bin_values.items()}
    return list(information_in_bins(scores, edges, n_bootstrap=n_bootstrap, seed=seed))
