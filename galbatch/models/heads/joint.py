"""Joint draws of an object's posterior from the kept outputs of its passes, without the bundles' files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch.models.heads.registry import head_of, outputs_per_pass, read_metadata, read_passes
from galbatch.models.metadata import BundleMetadata, DomainInfo, ParameterInfo, write_metadata
from galbatch.models.networks import draw_keys, uniform_draws
from galbatch.models.posterior import Floats, Passes, pooled, quantities_of

__all__ = ["OutputInfo", "has_posterior", "joint_draws", "pooled_passes"]

NUMBERS_AT_ONCE = 2**21  # outputs that are drawn from together, 16 MB in float64


@dataclass(frozen=True)
class OutputInfo:
    """How the outputs of one bundle are read.

    Attributes
    ----------
    metadata : its head, members and parameters; of a kept one no more than these
    sha256 : its identity
    inflation_factors : (parameter,) that its posteriors are inflated by; None: not at all
    """

    metadata: BundleMetadata
    sha256: str
    inflation_factors: tuple[float, ...] | None = None

    @property
    def n_outputs(self) -> int:
        """The number of outputs of a pass of the bundle."""
        return outputs_per_pass(self.metadata)

    def as_json(self) -> dict[str, Any]:
        """Return what kept pass outputs hold of it: all without what does not bear on the outputs, which is twenty times as long."""
        kept = dataclasses.replace(
            self.metadata, domain=DomainInfo(), calibration=None, training={}, origin={}
        )
        return {
            "sha256": self.sha256,
            "inflation_factors": self.inflation_factors,
            "metadata": json.loads(write_metadata(kept)),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], source: str) -> OutputInfo:
        """Return the info that `as_json` gave.

        Raises
        ------
        BundleError
            The metadata contradict themselves, or are of another version.
        """
        # Kept passes of before say "spread_factors".
        factors = value["inflation_factors"] if "inflation_factors" in value else value["spread_factors"]
        metadata = read_metadata(json.dumps(value["metadata"]), source)
        return cls(metadata, value["sha256"], None if factors is None else tuple(factors))


def has_posterior(infos: Sequence[OutputInfo]) -> bool:
    """Return whether passes have a posterior: not those of one network with a point head and without dropout, which say one value."""
    is_point = head_of(infos[0].metadata.head).is_point
    n_members = sum(info.metadata.members for info in infos)
    return not is_point or n_members > 1 or any(info.metadata.dropout_rate > 0 for info in infos)


def pooled_passes(infos: Sequence[OutputInfo], outputs: Sequence[npt.NDArray[np.floating]]) -> Passes:
    """Return the pooled posterior of several bundles, in the first one's standardized space.

    Parameters
    ----------
    infos : of each bundle
    outputs : of each bundle (object, pass, member x output), finite; as many passes of each
    """
    first = infos[0].metadata
    parts = []
    for info, numbers in zip(infos, outputs, strict=True):
        passes = read_passes(numbers, info.metadata)
        if info.inflation_factors is not None:
            passes = passes.inflated(info.inflation_factors)
        if info is not infos[0]:
            passes = passes.affine(*_between(info.metadata.parameters, first.parameters))
        parts.append(passes)
    return pooled(parts)


def _between(source: Sequence[ParameterInfo], target: Sequence[ParameterInfo]) -> tuple[Floats, Floats]:
    """Return the affine map, scale and shift (parameter,), from one standardized space into another."""
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
    """Draw from one object's posterior.

    All passes are drawn from once, in an order of chance, before any is drawn from again. A draw follows from seed,
    bundles, object and its place alone: the first draws are the same however many are asked for.

    Parameters
    ----------
    infos : of each bundle
    outputs : of each bundle (pass, member x output), finite; as many passes of each
    object_id : as in the catalog
    seed : of the draws
    n_draws : 1 or more

    Returns
    -------
    (draw,) float64 of each quantity that has columns in the catalog, in its physical unit
    """
    n_passes = len(outputs[0]) * sum(info.metadata.members for info in infos)
    n_rounds = -(-n_draws // n_passes)
    size = max(1, NUMBERS_AT_ONCE // sum(numbers.size for numbers in outputs))
    drawn = np.concatenate(
        [
            _rounds(infos, outputs, range(start, min(start + size, n_rounds)), _Keys(object_id, seed))
            for start in range(0, n_rounds, size)
        ]
    )[:n_draws]
    quantities = quantities_of(infos[0].metadata.parameters)
    return {quantity.name: quantity.value(drawn[:, quantity.index]) for quantity in quantities}


@dataclass(frozen=True)
class _Keys:
    """Keys of one object's draws."""

    object_id: int | str
    seed: int

    def of(self, purpose: str, rounds: range, n_passes: int) -> npt.NDArray[np.int64]:
        """Return the keys (round, pass) of a purpose."""
        ids = np.array([self.object_id], dtype=object if isinstance(self.object_id, str) else np.int64)
        numbers = np.arange(rounds.start * n_passes, rounds.stop * n_passes)
        keys = draw_keys(ids, seed=self.seed, bundle_sha256=purpose, passes=numbers)
        return keys.reshape(len(rounds), n_passes)


def _rounds(
    infos: Sequence[OutputInfo], outputs: Sequence[npt.NDArray[np.floating]], rounds: range, keys: _Keys
) -> Floats:
    """Return draws (draw, parameter), standardized: of each round one draw of every pass, in an order of chance."""
    # The rounds stand where otherwise objects do: all are of the same passes.
    repeated = [np.broadcast_to(numbers, (len(rounds), *numbers.shape)) for numbers in outputs]
    passes = pooled_passes(infos, repeated)
    n_passes, n_parameters = passes.mean.shape[1:]
    bundles = " ".join(info.sha256 for info in infos)
    drawn = passes.draws(keys.of(f"draws {bundles}", rounds, n_passes))
    chance = uniform_draws(keys.of(f"order {bundles}", rounds, n_passes), 1)[..., 0]
    shuffled = np.take_along_axis(drawn, np.argsort(chance, axis=1)[..., None], axis=1)
    return shuffled.reshape(-1, n_parameters)
