"""Preparation of a training: arrays are checked, split and standardized, and the loss is chosen."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import torch

from galbatch.core.types import njy_per_unit
from galbatch.errors import UsageError
from galbatch.models.bundle import Bundle
from galbatch.models.heads import LIKELIHOOD, head_of, loss_of
from galbatch.models.metadata import ParameterInfo, n_numbers
from galbatch.models.posterior import fitted, output_limits, to_output
from galbatch.models.training.data import (
    Extras,
    ImageRows,
    Split,
    split_objects,
)
from galbatch.models.training.loop import Loss, TrainingTensors
from galbatch.models.training.settings import TrainingSettings

__all__ = ["check_arrays", "split_for", "standardized", "training_loss", "training_tensors"]

Labels = npt.NDArray[np.float64]


def check_arrays(images: ImageRows, labels: Labels, settings: TrainingSettings, extras: Extras) -> None:
    """Check that the shapes of all arrays fit the settings and each other.

    Raises
    ------
    UsageError
        Two of them do not fit; the message names both shapes.
    """
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
    n_auxiliary = n_numbers(settings.auxiliary_inputs)
    # Given for a network that takes none is an error, too: they would be left out without a word.
    found = None if extras.auxiliary is None else extras.auxiliary.shape
    if found != ((shape[0], n_auxiliary) if n_auxiliary else None):
        raise UsageError(
            f"auxiliary inputs must be (object, number) = {(shape[0], n_auxiliary)}, found {found}"
        )
    if head_of(settings.head_info).is_classes:
        _check_classes(labels)
    if extras.weight is not None:
        _check_weight(extras.weight, shape[0])
    if extras.object_id is not None and len(extras.object_id) != shape[0]:
        raise UsageError(f"{len(extras.object_id)} object ids for {shape[0]} images")


def _check_weight(weight: npt.NDArray[np.float32], n_objects: int) -> None:
    if weight.shape != (n_objects,) or not (np.isfinite(weight) & (weight > 0)).all():
        raise UsageError(f"weights must be ({n_objects},), above 0 and finite, found {weight.shape}")


def _check_classes(labels: Labels) -> None:
    """Raise a UsageError unless the labels (object, class) are probabilities that sum to 1."""
    wrong = ~((labels >= 0).all(axis=1) & (np.abs(labels.sum(axis=1) - 1) < 1e-3))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise UsageError(
            f"labels of {int(wrong.sum())} objects are no classes, the first of object {row}: {labels[row].tolist()}; expected 1 for "
            "the true class and 0 for the others, or shares that sum to 1"
        )


def split_for(n_objects: int, settings: TrainingSettings, extras: Extras) -> Split:
    """Return the split of the objects by their ids, or by their rows where there are no ids.

    Raises
    ------
    UsageError
        There is less than one batch to train on, or nothing to validate with.
    """
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


def standardized(
    labels: Labels, settings: TrainingSettings, parent: Bundle | None
) -> tuple[ParameterInfo, ...]:
    """Return the parameters with location, scale and range of the training set. Location and scale may be the parent's.

    Parameters
    ----------
    labels : (object, parameter) float64, in physical units, of the training set alone
    settings : settings of the training
    parent : bundle whose weights are the start; None: there is none

    Raises
    ------
    UsageError
        A label has no finite transform, or all labels of a parameter are equal.
    """
    inherited: dict[str, ParameterInfo] = {}
    if parent is not None and not settings.refit_scaling:
        inherited = {parameter.name: parameter for parameter in parent.metadata.parameters}
    is_classes = head_of(settings.head_info).is_classes
    result = []
    for parameter, column in zip(settings.parameters, labels.T, strict=True):
        try:
            location, scale, seen = (0.0, 1.0, (0.0, 1.0)) if is_classes else fitted(parameter, column)
        except ValueError as error:
            raise UsageError(str(error)) from None
        # The parent's weights give its own standardized values; another scaling would have to be learned first.
        old = inherited.get(parameter.name)
        if old is not None and old.transform == parameter.transform:
            location, scale = old.location, old.scale
        result.append(dataclasses.replace(parameter, location=location, scale=scale, training_range=seen))
    return tuple(result)


def training_tensors(
    images: ImageRows,
    labels: Labels,
    parameters: tuple[ParameterInfo, ...],
    *,
    split: Split,
    settings: TrainingSettings,
    extras: Extras,
) -> TrainingTensors:
    """Return the data in the form that the loop reads: standardized labels and limits as tensors, and the images unchanged.

    Raises
    ------
    UsageError
        A label has no finite transform.
    """
    # (object, parameter)
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
        # 1 on average, so that weights change no learning rate.
        None
        if extras.weight is None
        else torch.from_numpy(np.asarray(extras.weight / extras.weight[split.training].mean(), np.float32)),
    )


def training_loss(settings: TrainingSettings, parameters: tuple[ParameterInfo, ...]) -> Loss:
    """Return the loss that the settings name, a function of outputs and standardized targets."""
    # GaMPEN's paper has a sum over galaxies. Its code averages over the batch, and the learning rate of 5e-7 is for the mean.
    return loss_of(settings.head_info, parameters, name=settings.loss or LIKELIHOOD)
