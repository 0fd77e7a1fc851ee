"""From the outputs of the passes to distributions: the heads.

Each pass of a head is a distribution of the standardized parameters: normal with a full covariance (`gaussian`), a
mixture of normal ones (`mixture`), a histogram for each parameter (`binned`), or one value (`point`). How a head's
outputs are laid out stands in `metadata.HeadInfo`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from galbatch.errors import BundleError
from galbatch.models.metadata.schema import BundleMetadata, ParameterInfo
from galbatch.models.networks.keys import normal_draws, uniform_draws
from galbatch.models.posterior.marginals import (
    BinnedMarginal,
    Floats,
    Marginal,
    NormalMarginal,
    PointMarginal,
    PooledMarginal,
)
from galbatch.models.posterior.transforms import to_output

__all__ = [
    "BinnedPasses",
    "GaussianPasses",
    "MixturePasses",
    "Passes",
    "PointPasses",
    "PooledPasses",
    "correlation_of",
    "pooled",
    "read_gaussian",
    "read_passes",
    "standard_edges",
]

MAX_LOG_WIDTH = 100.0
"""Wider and narrower ones are held there: e^100 standard deviations are infinite in the catalog's float32."""


class Passes(Protocol):
    """A joint distribution of the standardized parameters for each object and pass; all passes weigh the same.

    Attributes
    ----------
    n_members : networks the passes are of: the first ``passes / n_members`` are of the first, and so on
    mean : (object, pass, parameter) float64
    """

    @property
    def n_members(self) -> int:
        """See above."""

    @property
    def mean(self) -> Floats:
        """See above."""

    def marginal(self, index: int) -> Marginal:
        """The distributions of one parameter."""

    def within(self) -> Floats:
        """(object, parameter, parameter) mean over the passes of each one's own covariance."""

    def covariance(self) -> Floats:
        """(object, parameter, parameter) total: mean of the passes' covariances, and covariance of their means."""

    def draws(self, keys: npt.NDArray[np.int64]) -> Floats:
        """(object, pass, parameter) one draw a pass, from keys (object, pass)."""

    def affine(self, scale: Floats, shift: Floats) -> Passes:
        """Of scale x + shift; scale (parameter,) above 0, shift (parameter,) or (object, parameter)."""

    def inflated(self, factors: npt.ArrayLike) -> Passes:
        """Widened by factors (parameter,) about each object's mean over the passes."""


def _total_covariance(passes: Passes) -> Floats:
    centered = passes.mean - passes.mean.mean(axis=1, keepdims=True)
    between = np.einsum("oti,otj->oij", centered, centered) / centered.shape[1]
    return np.asarray(passes.within() + between)


def _about_mean(passes: Passes, factors: npt.ArrayLike) -> tuple[Floats, Floats]:
    """The affine map (scale, shift) that inflates by factors (parameter,)."""
    scale: Floats = np.asarray(factors, dtype=np.float64)
    return scale, (1.0 - scale) * passes.mean.mean(axis=1)


def correlation_of(covariance: Floats) -> Floats:
    """(object, parameter, parameter) of covariances alike; 0 where a parameter does not vary."""
    std = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    product = std[:, :, None] * std[:, None, :]
    found = np.divide(covariance, product, out=np.zeros_like(covariance), where=product > 0)
    return np.asarray(np.clip(found, -1.0, 1.0))


@dataclass(frozen=True)
class GaussianPasses:
    """A normal distribution for each object and pass.

    Attributes
    ----------
    mean : (object, pass, parameter) float64
    factor : (object, pass, parameter, parameter) float64, lower: Sigma = factor factor^T
    n_members : see `Passes`
    """

    mean: Floats
    factor: Floats
    n_members: int = 1

    @property
    def std(self) -> Floats:
        """(object, pass, parameter) marginal standard deviations: NOT exp(s / 2), but of L D L^T's diagonal."""
        return np.asarray(np.sqrt(np.square(self.factor).sum(axis=-1)))

    def marginal(self, index: int) -> NormalMarginal:
        """See `Passes`."""
        width = np.sqrt(np.square(self.factor[..., index, :]).sum(axis=-1))
        return NormalMarginal(self.mean[..., index, None], width[..., None], n_members=self.n_members)

    def within(self) -> Floats:
        """See `Passes`."""
        n_passes = self.factor.shape[1]
        return np.asarray(np.einsum("otik,otjk->oij", self.factor, self.factor) / n_passes)

    def covariance(self) -> Floats:
        """See `Passes`."""
        return _total_covariance(self)

    def draws(self, keys: npt.NDArray[np.int64]) -> Floats:
        """See `Passes`."""
        normal = normal_draws(keys, self.mean.shape[2])
        return np.asarray(self.mean + np.einsum("otij,otj->oti", self.factor, normal))

    def affine(self, scale: Floats, shift: Floats) -> GaussianPasses:
        """See `Passes`."""
        mean = self.mean * scale + _for_passes(shift)
        return replace(self, mean=mean, factor=self.factor * scale[:, None])

    def inflated(self, factors: npt.ArrayLike) -> GaussianPasses:
        """See `Passes`."""
        return self.affine(*_about_mean(self, factors))


@dataclass(frozen=True)
class MixturePasses:
    """A mixture of normal distributions for each object and pass, uncorrelated within a component.

    Attributes
    ----------
    weight : (object, pass, component) float64, summing to 1
    center, width : (object, pass, component, parameter) float64: mean and standard deviation of each
    n_members : see `Passes`
    """

    weight: Floats
    center: Floats
    width: Floats
    n_members: int = 1

    @property
    def mean(self) -> Floats:
        """See `Passes`."""
        return np.asarray(np.einsum("otk,otkp->otp", self.weight, self.center))

    def marginal(self, index: int) -> NormalMarginal:
        """See `Passes`."""
        center, width = self.center[..., index], self.width[..., index]
        return NormalMarginal(center, width, self.weight, self.n_members)

    def within(self) -> Floats:
        """See `Passes`."""
        apart = self.center - self.mean[:, :, None]
        found = np.einsum("otk,otki,otkj->oij", self.weight, apart, apart, optimize=True)
        n = found.shape[1]
        found[:, range(n), range(n)] += np.einsum("otk,otki->oi", self.weight, np.square(self.width))
        return np.asarray(found / self.weight.shape[1])

    def covariance(self) -> Floats:
        """See `Passes`."""
        return _total_covariance(self)

    def draws(self, keys: npt.NDArray[np.int64]) -> Floats:
        """See `Passes`: one component for all parameters."""
        below = np.cumsum(self.weight, axis=2) < uniform_draws(keys, 1)
        which = np.minimum(below.sum(axis=2), self.weight.shape[2] - 1)[..., None, None]
        center = np.take_along_axis(self.center, which, axis=2)[:, :, 0]
        width = np.take_along_axis(self.width, which, axis=2)[:, :, 0]
        return np.asarray(center + width * normal_draws(keys, center.shape[2]))

    def affine(self, scale: Floats, shift: Floats) -> MixturePasses:
        """See `Passes`."""
        center = self.center * scale + _for_passes(shift)[:, :, None]
        return replace(self, center=center, width=self.width * scale)

    def inflated(self, factors: npt.ArrayLike) -> MixturePasses:
        """See `Passes`."""
        return self.affine(*_about_mean(self, factors))


@dataclass(frozen=True)
class BinnedPasses:
    """A histogram of each parameter for each object and pass; within a pass the parameters are independent.

    Attributes
    ----------
    parameters : the marginal distribution of each
    """

    parameters: tuple[BinnedMarginal, ...]

    @property
    def n_members(self) -> int:
        """See `Passes`."""
        return self.parameters[0].n_members

    @property
    def mean(self) -> Floats:
        """See `Passes`."""
        return np.stack([marginal.mean for marginal in self.parameters], axis=2)

    def marginal(self, index: int) -> BinnedMarginal:
        """See `Passes`."""
        return self.parameters[index]

    def within(self) -> Floats:
        """See `Passes`."""
        variance = np.stack([np.square(m.std).mean(axis=1) for m in self.parameters], axis=1)
        return np.asarray(variance[:, :, None] * np.eye(len(self.parameters)))

    def covariance(self) -> Floats:
        """See `Passes`."""
        return _total_covariance(self)

    def draws(self, keys: npt.NDArray[np.int64]) -> Floats:
        """See `Passes`."""
        uniform = uniform_draws(keys, len(self.parameters))
        drawn = [m.quantile_of_each_pass(uniform[..., i]) for i, m in enumerate(self.parameters)]
        return np.stack(drawn, axis=2)

    def affine(self, scale: Floats, shift: Floats) -> BinnedPasses:
        """See `Passes`."""
        shift = np.atleast_2d(shift)
        return BinnedPasses(
            tuple(
                replace(m, edges=m.edges * scale[i] + shift[:, i : i + 1])
                for i, m in enumerate(self.parameters)
            )
        )

    def inflated(self, factors: npt.ArrayLike) -> BinnedPasses:
        """See `Passes`."""
        return self.affine(*_about_mean(self, factors))


@dataclass(frozen=True)
class PointPasses:
    """One value for each object, pass and parameter: the passes are draws.

    Attributes
    ----------
    mean : (object, pass, parameter) float64, the values
    n_members : see `Passes`
    """

    mean: Floats
    n_members: int = 1

    def marginal(self, index: int) -> PointMarginal:
        """See `Passes`."""
        return PointMarginal(self.mean[..., index], self.n_members)

    def within(self) -> Floats:
        """See `Passes`: a value has no width."""
        n_objects, _, n = self.mean.shape
        return np.zeros((n_objects, n, n))

    def covariance(self) -> Floats:
        """See `Passes`."""
        return _total_covariance(self)

    def draws(self, keys: npt.NDArray[np.int64]) -> Floats:
        """See `Passes`: the values, whatever the keys."""
        return self.mean

    def affine(self, scale: Floats, shift: Floats) -> PointPasses:
        """See `Passes`."""
        return replace(self, mean=self.mean * scale + _for_passes(shift))

    def inflated(self, factors: npt.ArrayLike) -> PointPasses:
        """See `Passes`."""
        return self.affine(*_about_mean(self, factors))


@dataclass(frozen=True)
class PooledPasses:
    """The passes of several networks, one after another, in one standardized space.

    Attributes
    ----------
    parts : of each network; each of their members has as many passes
    """

    parts: tuple[Passes, ...]

    @property
    def n_members(self) -> int:
        """See `Passes`."""
        return sum(part.n_members for part in self.parts)

    @property
    def mean(self) -> Floats:
        """See `Passes`."""
        return np.concatenate([part.mean for part in self.parts], axis=1)

    def marginal(self, index: int) -> PooledMarginal:
        """See `Passes`."""
        return PooledMarginal(tuple(part.marginal(index) for part in self.parts))

    def within(self) -> Floats:
        """See `Passes`."""
        shares = np.array([part.n_members for part in self.parts]) / self.n_members
        return np.asarray(sum(s * part.within() for s, part in zip(shares, self.parts, strict=True)))

    def covariance(self) -> Floats:
        """See `Passes`."""
        return _total_covariance(self)

    def draws(self, keys: npt.NDArray[np.int64]) -> Floats:
        """See `Passes`."""
        bounds = np.cumsum([0, *(part.mean.shape[1] for part in self.parts)])
        pieces = [keys[:, start:stop] for start, stop in pairwise(bounds)]
        drawn = [part.draws(piece) for part, piece in zip(self.parts, pieces, strict=True)]
        return np.concatenate(drawn, axis=1)

    def affine(self, scale: Floats, shift: Floats) -> PooledPasses:
        """See `Passes`."""
        return PooledPasses(tuple(part.affine(scale, shift) for part in self.parts))

    def inflated(self, factors: npt.ArrayLike) -> PooledPasses:
        """See `Passes`."""
        return self.affine(*_about_mean(self, factors))


def _for_passes(shift: Floats) -> Floats:
    """(parameter,) or (object, parameter) as (object or 1, 1, parameter)."""
    return np.atleast_2d(shift)[:, None]


def pooled(parts: Sequence[Passes]) -> Passes:
    """One posterior of several networks, which weigh as many as they have members.

    Parameters
    ----------
    parts : in one standardized space, with as many passes a member; all of single values, or none
    """
    if len(parts) == 1:
        return parts[0]
    points = [part for part in parts if isinstance(part, PointPasses)]
    if len(points) == len(parts):
        mean = np.concatenate([part.mean for part in points], axis=1)
        return PointPasses(mean, sum(part.n_members for part in points))
    return PooledPasses(tuple(parts))


def read_passes(outputs: npt.NDArray[np.floating], metadata: BundleMetadata) -> Passes:
    """Read a bundle's outputs.

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
    members, n = metadata.members, len(metadata.parameters)
    split = numbers.reshape(n_objects, n_passes, members, n_numbers // members)
    numbers = np.swapaxes(split, 1, 2).reshape(n_objects, members * n_passes, n_numbers // members)
    head = metadata.head
    if head.kind == "gaussian":
        return replace(read_gaussian(numbers, n), n_members=members)
    if head.kind == "mixture":
        return replace(_read_mixture(numbers, head.components, n), n_members=members)
    if head.kind == "binned":
        return _read_binned(numbers, metadata)
    return PointPasses(numbers, members)


def read_gaussian(outputs: npt.NDArray[np.floating], n_parameters: int) -> GaussianPasses:
    """Read a Gaussian head.

    Parameters
    ----------
    outputs : (object, pass, output): n means, n log d_i, then the strictly lower entries of L in the order
        (1,0), (2,0), (2,1), ... (GaMPEN paper, section 3.3: Sigma = L D L^T)
    n_parameters : n
    """
    n = n_parameters
    numbers: Floats = np.asarray(outputs, dtype=np.float64)
    lower = np.zeros((*numbers.shape[:2], n, n))
    rows, columns = np.tril_indices(n, -1)
    lower[..., rows, columns] = numbers[..., 2 * n :]
    lower[..., np.arange(n), np.arange(n)] = 1.0
    root_d = _width(0.5 * numbers[..., n : 2 * n])
    return GaussianPasses(numbers[..., :n], lower * root_d[..., None, :])


def _width(log_width: Floats) -> Floats:
    return np.exp(np.clip(log_width, -MAX_LOG_WIDTH, MAX_LOG_WIDTH))


def _read_mixture(numbers: Floats, components: int, n_parameters: int) -> MixturePasses:
    """Logits of the weights, means of each component, log sigma of each; (object, pass, output)."""
    shape = (*numbers.shape[:2], components, n_parameters)
    means_end = components * (1 + n_parameters)
    weight = softmax(numbers[..., :components], axis=-1)
    center = numbers[..., components:means_end].reshape(shape)
    return MixturePasses(weight, center, _width(numbers[..., means_end:].reshape(shape)))


def _read_binned(numbers: Floats, metadata: BundleMetadata) -> BinnedPasses:
    """For each parameter the logits of its bins; (object, pass, output)."""
    found, start = [], 0
    for parameter, physical in zip(metadata.parameters, metadata.head.edges or (), strict=True):
        edges = standard_edges(physical, parameter)
        stop = start + len(edges) - 1
        probability = softmax(numbers[..., start:stop], axis=-1)
        of_each = np.broadcast_to(edges, (len(numbers), len(edges)))
        found.append(BinnedMarginal(of_each, probability, metadata.members))
        start = stop
    return BinnedPasses(tuple(found))


def standard_edges(edges: Sequence[float], parameter: ParameterInfo) -> Floats:
    """Bin edges in physical units, (edge,), as standardized values.

    Raises
    ------
    BundleError
        The transform has no finite value at an edge, or does not tell two of them apart.
    """
    found = to_output(np.asarray(edges), parameter)
    if not np.isfinite(found).all() or (np.diff(found) <= 0).any():
        limits = "" if parameter.limits is None else f" within the limits {list(parameter.limits)}"
        raise BundleError(
            f"head: the edges of {parameter.name}, {edges[0]:g} to {edges[-1]:g}, must be finite and rise after its "
            f"transform {parameter.transform}{limits}"
        )
    return found
