"""The kinds of heads that there are; whoever tells kinds apart asks here, so that an unknown one fails by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import numpy.typing as npt

from galbatch.errors import BundleError
from galbatch.models.heads.base import Head, Loss
from galbatch.models.heads.binned import Binned
from galbatch.models.heads.gaussian import Gaussian
from galbatch.models.heads.mixture import Mixture
from galbatch.models.heads.point import Point
from galbatch.models.metadata import BundleMetadata, HeadInfo, HeadOptions, ParameterInfo, parse_metadata
from galbatch.models.posterior import Floats, Passes

__all__ = [
    "HEADS",
    "head_of",
    "head_problems",
    "loss_of",
    "outputs_per_pass",
    "read_metadata",
    "read_passes",
]

HEADS: dict[str, Head] = {head.kind: head for head in (Gaussian(), Point(), Binned(), Mixture())}
"""The kinds of heads by name. A new kind is a file in this folder and one entry here."""


def head_of(info: HeadInfo) -> Head:
    """Return the kind of a head.

    Raises
    ------
    BundleError
        It is not known.
    """
    if info.kind not in HEADS:
        raise BundleError(f"head {info.kind}: not known; known are {', '.join(HEADS)}")
    return HEADS[info.kind]


def head_problems(info: HeadInfo, parameters: Sequence[ParameterInfo]) -> list[str]:
    """Return what is wrong with a head for these parameters: an unknown kind, or options that contradict each other."""
    try:
        head = head_of(info)
    except BundleError as error:
        return [str(error)]
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
        It is no JSON, has unknown or missing keys, a head that is not known, or values that contradict each other.
    """
    return parse_metadata(text, source, head_rules=head_problems)


def outputs_per_pass(metadata: BundleMetadata) -> int:
    """Return the number of outputs of a pass: of one network, times the members."""
    return metadata.members * head_of(metadata.head).n_outputs(metadata.head, len(metadata.parameters))


def read_passes(outputs: npt.NDArray[np.floating], metadata: BundleMetadata) -> Passes:
    """Return the distributions that a bundle's outputs stand for.

    Parameters
    ----------
    outputs : (object, pass, member x output), finite
    metadata : of the bundle: its head, parameters and members

    Returns
    -------
    As many passes as `outputs` has, times the members: those of the first member first.
    """
    numbers: Floats = np.asarray(outputs, dtype=np.float64)
    n_objects, n_passes, n_numbers = numbers.shape
    members = metadata.members
    split = numbers.reshape(n_objects, n_passes, members, n_numbers // members)
    numbers = np.swapaxes(split, 1, 2).reshape(n_objects, members * n_passes, n_numbers // members)
    head = head_of(metadata.head)
    return head.read(numbers, metadata.head, parameters=metadata.parameters, n_members=members)


def loss_of(info: HeadInfo, parameters: Sequence[ParameterInfo]) -> Loss:
    """Return what a training of a head minimizes, of outputs (row, output) and targets (row, parameter).

    Raises
    ------
    BundleError
        The kind is not known, or its options do not fit the parameters.
    """
    return head_of(info).loss(info, parameters)
