"""The registry of heads. Kinds are looked up here and nowhere else, so that an unknown kind is refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import numpy.typing as npt

from galbatch.errors import BundleError
from galbatch.models.heads.base import LIKELIHOOD, Head, Loss
from galbatch.models.heads.binned import Binned
from galbatch.models.heads.gaussian import Gaussian
from galbatch.models.heads.mixture import Mixture
from galbatch.models.heads.point import Point
from galbatch.models.heads.softmax import Softmax
from galbatch.models.heads.vector import Vector
from galbatch.models.metadata import BundleMetadata, HeadInfo, HeadOptions, ParameterInfo, parse_metadata
from galbatch.models.posterior import Floats, Passes

__all__ = [
    "HEADS",
    "head_of",
    "head_problems",
    "loss_of",
    "losses_of",
    "outputs_per_pass",
    "read_metadata",
    "read_passes",
]

HEADS: dict[str, Head] = {
    head.kind: head for head in (Gaussian(), Point(), Binned(), Mixture(), Softmax(), Vector())
}
"""The known heads by the name of their kind. A new kind is one more file in this folder, and one entry here."""


def head_of(info: HeadInfo) -> Head:
    """Return the head of the kind that `info` names.

    Raises
    ------
    BundleError
        The kind is not known.
    """
    if info.kind not in HEADS:
        raise BundleError(f"head {info.kind}: not known; known are {', '.join(HEADS)}")
    return HEADS[info.kind]


def head_problems(info: HeadInfo, parameters: Sequence[ParameterInfo]) -> list[str]:
    """Return messages on an unknown kind of head, or on options that do not fit the kind or the parameters."""
    try:
        head = head_of(info)
    except BundleError as error:
        return [str(error)]
    # An option of another kind would be ignored without a word, though somebody has set it.
    foreign = [
        f"{option.name} {'belong' if option.name.endswith('s') else 'belongs'} to head "
        f"{' or '.join(one.kind for one in HEADS.values() if option.name in one.options)}, and to no other"
        for option in fields(HeadOptions)
        if option.name not in head.options and getattr(info, option.name) != option.default
    ]
    return [f"head {info.kind}: {problem}" for problem in [*foreign, *head.problems(info, parameters)]]


def read_metadata(text: str | bytes, source: str) -> BundleMetadata:
    """Return a bundle's metadata from JSON.

    Raises
    ------
    BundleError
        The text is no JSON, has unknown or missing keys, an unknown kind of head, or values that contradict each other.
    """
    return parse_metadata(text, source, head_rules=head_problems)


def outputs_per_pass(metadata: BundleMetadata) -> int:
    """Return the number of outputs of a pass of the bundle: those of one network times the number of members."""
    return metadata.members * head_of(metadata.head).n_outputs(metadata.head, len(metadata.parameters))


def read_passes(outputs: npt.NDArray[np.floating], metadata: BundleMetadata) -> Passes:
    """Interpret the numbers that a network puts out as one probability distribution for each object and dropout pass.

    Parameters
    ----------
    outputs : (object, pass, member x output); all outputs of the first network of an ensemble come first. The caller
        makes sure that they are finite
    metadata : metadata of the bundle: its head says what the numbers are, such as means and a covariance

    Returns
    -------
    distributions of the transformed and standardized parameters, (object, member x pass); those of the first member come
    first
    """
    numbers: Floats = np.asarray(outputs, dtype=np.float64)
    n_objects, n_passes, n_numbers = numbers.shape
    members = metadata.members
    split = numbers.reshape(n_objects, n_passes, members, n_numbers // members)
    if metadata.member_weights:
        # A member with several shares stands for as many members that are equal.
        members, split = metadata.n_shares, np.repeat(split, metadata.member_weights, axis=2)
    # (object, pass, member, output) to (object, member x pass, output): the passes of each member stay together.
    numbers = np.swapaxes(split, 1, 2).reshape(n_objects, members * n_passes, split.shape[3])
    head = head_of(metadata.head)
    return head.read(numbers, metadata.head, parameters=metadata.parameters, n_members=members)


def loss_of(info: HeadInfo, parameters: Sequence[ParameterInfo], *, name: str = LIKELIHOOD) -> Loss:
    """Return the loss of a training of that name, a function of outputs (row, output) and targets (row, parameter).

    Raises
    ------
    BundleError
        The kind is not known, has no such loss, or its options do not fit the parameters.
    """
    head = head_of(info)
    if name == LIKELIHOOD:
        return head.loss(info, parameters)
    if name not in head.other_losses:
        raise BundleError(f"head {info.kind}: has no loss {name}; it has {', '.join(losses_of(head))}")
    loss: Loss = head.other_losses[name](info, parameters)
    return loss


def losses_of(head: Head) -> list[str]:
    """Return the names of the losses of a head, that of every head first."""
    return [LIKELIHOOD, *head.other_losses]
