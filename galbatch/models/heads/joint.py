"""Joint draws from an object's posterior, made from the kept outputs of its passes. The bundles' files are not needed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch.models.heads.registry import head_of, outputs_per_pass, read_metadata, read_passes
from galbatch.models.metadata import (
    BundleMetadata,
    DomainInfo,
    ParameterInfo,
    with_current_names,
    write_metadata,
)
from galbatch.models.networks import draw_keys, uniform_draws
from galbatch.models.posterior import Floats, Passes, pooled, quantities_of

__all__ = ["OutputInfo", "has_posterior", "joint_draws", "map_between", "pooled_passes"]

NUMBERS_AT_ONCE = 2**21  # Outputs that are drawn from at a time: a copy of them takes 16 MB in float64.


@dataclass(frozen=True)
class OutputInfo:
    """The facts about a bundle by which its outputs are read as distributions.

    Attributes
    ----------
    metadata : metadata of the bundle; when read from kept pass outputs, without domain, calibrations and records of training
    sha256 : hash of the bundle's file
    inflation_factors : (parameter,) factors by which its posteriors are inflated; None: not inflated
    """

    metadata: BundleMetadata
    sha256: str
    inflation_factors: tuple[float, ...] | None = None

    @property
    def n_outputs(self) -> int:
        """The number of outputs of a pass of the bundle."""
        return outputs_per_pass(self.metadata)

    def as_json(self) -> dict[str, Any]:
        """Return the form in which it is stored with kept pass outputs, of JSON's types."""
        # Domain, calibration and records do not matter for the outputs, and are twenty times as long as the rest.
        kept = dataclasses.replace(
            self.metadata,
            domain=DomainInfo(),
            calibration=None,
            stopping=None,
            disagreement=None,
            training={},
            origin={},
        )
        return {
            "sha256": self.sha256,
            "inflation_factors": self.inflation_factors,
            "metadata": json.loads(write_metadata(kept)),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], source: str) -> OutputInfo:
        """Return the object that `as_json` was called on, without what it leaves out.

        Raises
        ------
        BundleError
            The metadata contradict themselves, or were written by a version with other fields.
        """
        # Pass outputs that were kept by older versions have the field's former name, the same as in metadata.
        factors = with_current_names(dict(value), section="calibration")["inflation_factors"]
        metadata = read_metadata(json.dumps(value["metadata"]), source)
        return cls(metadata, value["sha256"], None if factors is None else tuple(factors))


def has_posterior(infos: Sequence[OutputInfo]) -> bool:
    """Return whether the networks give a posterior.

    A single network with a point head and without dropout does not: all its passes are one and the same value. A vector has none.
    """
    head = head_of(infos[0].metadata.head)
    is_point = head.is_point
    if head.is_vector:
        return False
    n_members = sum(info.metadata.n_shares for info in infos)
    return not is_point or n_members > 1 or any(info.metadata.passes_differ for info in infos)


def pooled_passes(infos: Sequence[OutputInfo], outputs: Sequence[npt.NDArray[np.floating]]) -> Passes:
    """Return the pooled posterior of several bundles, in the first one's standardized space.

    Parameters
    ----------
    infos : facts about each bundle
    outputs : one array (object, pass, member x output) per bundle, finite, all with the same number of passes
    """
    first = infos[0].metadata
    parts = []
    for info, numbers in zip(infos, outputs, strict=True):
        passes = read_passes(numbers, info.metadata)
        if info.inflation_factors is not None:
            passes = passes.inflated(info.inflation_factors)
        if info is not infos[0]:
            passes = passes.affine(*map_between(info.metadata.parameters, first.parameters))
        parts.append(passes)
    return pooled(parts)


def map_between(source: Sequence[ParameterInfo], target: Sequence[ParameterInfo]) -> tuple[Floats, Floats]:
    """Return the affine map (scale, shift), (parameter,) each, from one bundle's standardized space into another's."""
    # y = x scale_a + location_a = z scale_b + location_b, solved for z.
    scale = np.array([a.scale / b.scale for a, b in zip(source, target, strict=True)])
    shift = np.array([(a.location - b.location) / b.scale for a, b in zip(source, target, strict=True)])
    return scale, shift


def joint_draws(
    infos: Sequence[OutputInfo],
    outputs: Sequence[npt.NDArray[np.floating]],
    *,
    object_id: int | str,
    seed: int,
    n_draws: int,
) -> dict[str, Floats]:
    """Return joint draws of all quantities from one object's posterior.

    One draw is taken from each pass, in random order, before a pass is drawn from again. Each draw depends on the seed, the
    bundles, the object and the draw's number alone, so the first draws are the same for any `n_draws`.

    Parameters
    ----------
    infos : facts about each bundle
    outputs : one array (pass, member x output) per bundle, finite, all with the same number of passes
    object_id : id of the object in the catalog
    seed : seed of the draws
    n_draws : number of draws, 1 or more

    Returns
    -------
    draws (draw,) float64 of each quantity that has columns in the catalog, by its name, in its physical unit
    """
    n_passes = len(outputs[0]) * sum(info.metadata.n_shares for info in infos)
    n_repeats = -(-n_draws // n_passes)
    size = max(1, NUMBERS_AT_ONCE // sum(numbers.size for numbers in outputs))
    drawn = np.concatenate(
        [
            _draws_of_repeats(
                infos, outputs, range(start, min(start + size, n_repeats)), _Keys(object_id, seed)
            )
            for start in range(0, n_repeats, size)
        ]
    )[:n_draws]
    quantities = quantities_of(infos[0].metadata.parameters)
    return {quantity.name: quantity.value(drawn[:, quantity.index]) for quantity in quantities}


@dataclass(frozen=True)
class _Keys:
    """The keys of one object's draws."""

    object_id: int | str
    seed: int

    def of(self, purpose: str, repeats: range, n_passes: int) -> npt.NDArray[np.int64]:
        """Return keys (repeat, pass) int64; those of different purposes are independent."""
        # Passes are numbered through all repeats, so a draw's key does not depend on how repeats are divided into pieces.
        ids = np.array([self.object_id], dtype=object if isinstance(self.object_id, str) else np.int64)
        numbers = np.arange(repeats.start * n_passes, repeats.stop * n_passes)
        keys = draw_keys(ids, seed=self.seed, bundle_sha256=purpose, passes=numbers)
        return keys.reshape(len(repeats), n_passes)


def _draws_of_repeats(
    infos: Sequence[OutputInfo], outputs: Sequence[npt.NDArray[np.floating]], repeats: range, keys: _Keys
) -> Floats:
    """Return standardized draws (draw, parameter): for each repeat one draw from every pass, in random order."""
    # The repeats take the place of the axis object: each is a copy of the same passes.
    repeated = [np.broadcast_to(numbers, (len(repeats), *numbers.shape)) for numbers in outputs]
    passes = pooled_passes(infos, repeated)
    n_passes, n_parameters = passes.mean.shape[1:]
    bundles = " ".join(info.sha256 for info in infos)
    # A sort by random numbers is a random order that follows from keys, too.
    drawn = passes.draws(keys.of(f"draws {bundles}", repeats, n_passes))
    chance = uniform_draws(keys.of(f"order {bundles}", repeats, n_passes), 1)[..., 0]
    shuffled = np.take_along_axis(drawn, np.argsort(chance, axis=1)[..., None], axis=1)
    return shuffled.reshape(-1, n_parameters)
