"""The binned head: each pass gives a histogram of each parameter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import scipy

from galbatch.errors import BundleError
from galbatch.models.heads.base import Head, Loss
from galbatch.models.metadata import HeadInfo, ParameterInfo
from galbatch.models.networks import uniform_draws
from galbatch.models.posterior import (
    NO_LIMITS,
    Floats,
    Function,
    Rows,
    inflation_map,
    to_output,
    total_covariance,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Binned",
    "BinnedMarginal",
    "BinnedPasses",
    "binned_loss",
    "cross_entropy_loss",
    "crps_loss",
    "standard_edges",
]

# Eight nodes integrate polynomials up to degree 15 exactly: ample for a transform within one bin.
LEGENDRE_NODES, LEGENDRE_WEIGHTS = np.polynomial.legendre.leggauss(8)
# They sum to 1: what is computed are means over a bin.
LEGENDRE_WEIGHTS = LEGENDRE_WEIGHTS / LEGENDRE_WEIGHTS.sum()


class Binned(Head):
    """The binned head. The outputs are a logit per bin of each parameter; their softmax is the bins' probabilities."""

    kind = "binned"
    text = "probabilities of bins, for each parameter"
    is_point = False
    options = ("edges",)
    other_losses = MappingProxyType(
        {
            "cross_entropy": lambda info, parameters: partial(
                cross_entropy_loss, edges=_edge_tensors(info, parameters)
            ),
            "crps": lambda info, parameters: partial(crps_loss, edges=_edge_tensors(info, parameters)),
        }
    )

    def n_outputs(self, info: HeadInfo, n_parameters: int) -> int:
        return sum(len(edges) - 1 for edges in info.edges or ())

    def problems(self, info: HeadInfo, parameters: Sequence[ParameterInfo]) -> list[str]:
        if info.edges is None:
            return ["edges: a binned head needs those of each parameter's bins"]
        problems = []
        if len(info.edges) != len(parameters):
            problems.append(f"edges: {len(info.edges)} lists for {len(parameters)} parameters")
        if any(len(edges) < 2 or list(edges) != sorted(set(edges)) for edges in info.edges):
            problems.append("edges: each parameter needs two or more, rising")
        return problems or _transform_problems(info, parameters)

    def card_text(self, info: HeadInfo) -> str:
        return f"{self.text}, {' and '.join(str(len(edges) - 1) for edges in info.edges or ())} bins"

    def read(
        self, outputs: Floats, info: HeadInfo, *, parameters: Sequence[ParameterInfo], n_members: int
    ) -> BinnedPasses:
        found, start = [], 0
        for parameter, physical in zip(parameters, info.edges or (), strict=True):
            edges = standard_edges(physical, parameter)
            stop = start + len(edges) - 1
            probability = scipy.special.softmax(outputs[..., start:stop], axis=-1)
            # One row of edges per object, as inflation shifts the edges of each object in its own way.
            edges_of_each = np.broadcast_to(edges, (len(outputs), len(edges)))
            found.append(BinnedMarginal(edges_of_each, probability, n_members))
            start = stop
        return BinnedPasses(tuple(found))

    def loss(self, info: HeadInfo, parameters: Sequence[ParameterInfo]) -> Loss:
        return partial(binned_loss, edges=_edge_tensors(info, parameters))


@dataclass(frozen=True)
class BinnedPasses:
    """A histogram of each parameter for each object and pass; within a pass the parameters are independent.

    Attributes
    ----------
    parameters : marginal distribution of each parameter
    """

    parameters: tuple[BinnedMarginal, ...]

    is_point = False

    @property
    def n_members(self) -> int:
        return self.parameters[0].n_members

    @property
    def mean(self) -> Floats:
        return np.stack([marginal.mean for marginal in self.parameters], axis=2)

    def marginal(self, index: int) -> BinnedMarginal:
        return self.parameters[index]

    def within(self) -> Floats:
        # Diagonal, as the parameters are independent within a pass.
        # (object, parameter)
        variance = np.stack([np.square(m.std).mean(axis=1) for m in self.parameters], axis=1)
        return variance[:, :, None] * np.eye(len(self.parameters))

    def covariance(self) -> Floats:
        return total_covariance(self)

    def draws(self, keys: npt.NDArray[np.int64]) -> Floats:
        uniform = uniform_draws(keys, len(self.parameters))
        drawn = [m.quantile_of_each_pass(uniform[..., i]) for i, m in enumerate(self.parameters)]
        return np.stack(drawn, axis=2)

    def affine(self, scale: Floats, shift: Floats) -> BinnedPasses:
        shift = np.atleast_2d(shift)  # (object or 1, parameter)
        return BinnedPasses(
            tuple(
                replace(m, edges=m.edges * scale[i] + shift[:, i : i + 1])
                for i, m in enumerate(self.parameters)
            )
        )

    def inflated(self, factors: npt.ArrayLike) -> BinnedPasses:
        return self.affine(*inflation_map(self, factors))


@dataclass(frozen=True)
class BinnedMarginal:
    """Histograms of one parameter for each object and pass; the density is constant inside a bin of the standardized space.

    Attributes
    ----------
    edges : (object, edge) float64, rising
    probability : (object, pass, bin) float64, summing to 1 over the bins
    n_members : number of networks, as in `Marginal`
    """

    edges: Floats
    probability: Floats
    n_members: int = 1

    is_smooth = False

    @property
    def _middle(self) -> Floats:
        return 0.5 * (self.edges[:, 1:] + self.edges[:, :-1])

    @property
    def _width(self) -> Floats:
        return np.diff(self.edges, axis=1)

    @cached_property
    def _below(self) -> Floats:
        """The probability of all bins below each bin, (object, pass, bin)."""
        total = np.cumsum(self.probability, axis=2)
        return total - self.probability

    def _averaged(self, means: Floats, variances: Floats) -> tuple[Floats, Floats]:
        """Return mean and variance (object, pass) of a quantity that has these means and variances (object, bin) in each bin."""
        mean: Floats = (self.probability @ means[..., None])[..., 0]
        # In place: of all arrays here it alone has the size of the probabilities.
        off = means[:, None] - mean[..., None]  # (object, pass, bin)
        off *= off
        off += variances[:, None]
        return mean, np.einsum("opb,opb->op", self.probability, off)

    @cached_property
    def _moments(self) -> tuple[Floats, Floats]:
        # A uniform distribution has the variance width^2 / 12.
        return self._averaged(self._middle, np.square(self._width) / 12)

    @property
    def mean(self) -> Floats:
        return self._moments[0]

    @cached_property
    def std(self) -> Floats:
        return np.sqrt(self._moments[1])

    @property
    def min_sigma(self) -> Floats:
        return np.zeros(len(self.edges))

    @cached_property
    def pooled(self) -> BinnedMarginal:
        """The mixture over the passes, which is a histogram with the same edges, as a marginal of one pass."""
        return BinnedMarginal(self.edges, self.probability.mean(axis=1, keepdims=True))

    def cdf(self, x: Floats) -> Floats:
        share = (x[:, None] - self.edges[:, :-1, None]) / self._width[..., None]  # (object, bin, point)
        return self.probability @ np.clip(share, 0.0, 1.0)

    def density(self, x: Floats) -> Floats:
        inside = [np.searchsorted(edges, at, side="right") for edges, at in zip(self.edges, x, strict=True)]
        bins = np.asarray(inside, dtype=np.intp).reshape(x.shape) - 1
        height = self.probability.mean(axis=1) / self._width
        found = np.take_along_axis(height, np.clip(bins, 0, height.shape[1] - 1), axis=1)
        return np.where((x < self.edges[:, :1]) | (x > self.edges[:, -1:]), 0.0, found)

    def cdf_pdf_slope(self, x: Floats) -> tuple[Floats, Floats, Floats]:
        # The slope is 0, as the density is constant inside a bin.
        return self.pooled.cdf(x)[:, 0], self.density(x), np.zeros_like(x)

    def quantiles(self, levels: Floats) -> Floats:
        shape = (len(self.edges), len(levels), self.probability.shape[2])
        # The mixture is repeated as one pass per level, so that one method finds quantiles of passes and of the mixture.
        of_each_level = BinnedMarginal(self.edges, np.broadcast_to(self.pooled.probability, shape))
        return of_each_level.quantile_of_each_pass(np.broadcast_to(levels, shape[:2]))

    def quantile_of_each_pass(self, levels: Floats) -> Floats:
        """Return the quantiles (object, pass) of each pass's own distribution at levels (object, pass)."""
        last = self.probability.shape[2] - 1
        bins = np.minimum((self._below + self.probability < levels[..., None]).sum(axis=2), last)[..., None]
        # An empty bin has no share of its own: the quantile is then its upper edge.
        inside = np.take_along_axis(self.probability, bins, axis=2)[..., 0]  # (object, pass)
        above = levels - np.take_along_axis(self._below, bins, axis=2)[..., 0]
        share = np.divide(above, inside, out=np.ones_like(above), where=inside > 0)
        start, width = (
            np.take_along_axis(part[:, None], bins, axis=2)[..., 0] for part in (self.edges, self._width)
        )
        return start + np.clip(share, 0.0, 1.0) * width

    def bracket(self, levels: Floats) -> tuple[Floats, Floats]:
        # No value lies beyond the outermost edges.
        shape = (len(self.edges), len(levels))
        return np.broadcast_to(self.edges[:, :1], shape), np.broadcast_to(self.edges[:, -1:], shape)

    def moments(
        self, function: Function, n_points: int, limits: tuple[float, float] = NO_LIMITS
    ) -> tuple[Floats, Floats]:
        # Gauss-Legendre quadrature within each bin; `n_points` is meant for normal distributions, and no bin reaches beyond a limit.
        half = 0.5 * self._width[..., None]
        values = function(self._middle[..., None] + half * LEGENDRE_NODES)  # (object, bin, node)
        means = values @ LEGENDRE_WEIGHTS  # (object, bin)
        variances = np.square(values - means[..., None]) @ LEGENDRE_WEIGHTS
        return self._averaged(means, variances)

    @property
    def max_sigma(self) -> Floats:
        # The components are the bins, and their widths stand for standard deviations.
        return self._width.max(axis=1)

    def component_range(self) -> tuple[Floats, Floats]:
        # The centers of the components are the bins' middles.
        return self._middle[:, 0], self._middle[:, -1]

    def mode_grid(self, ends: Floats) -> Floats:
        # The mode of a histogram is the middle of its highest bin.
        return np.clip(self._middle, ends[:, :1], ends[:, 1:])

    def numbers_per_pass(self, n_points: int) -> int:
        return max(n_points, int(self.probability.shape[2]))

    def rows(self, index: Rows) -> BinnedMarginal:
        return BinnedMarginal(self.edges[index], self.probability[index], self.n_members)


def _transform_problems(info: HeadInfo, parameters: Sequence[ParameterInfo]) -> list[str]:
    """Return messages on edges that are not finite or do not rise after the parameters' transforms."""
    problems = []
    for edges, parameter in zip(info.edges or (), parameters, strict=True):
        try:
            # A scale of 0 divides by 0 here; it is reported with the parameter.
            with np.errstate(all="ignore"):
                standard_edges(edges, parameter)
        except BundleError as error:
            problems.append(str(error))
    return problems


def standard_edges(edges: Sequence[float], parameter: ParameterInfo) -> Floats:
    """Return bin edges in physical units, (edge,), as standardized values.

    Raises
    ------
    BundleError
        The transform is not finite at an edge, or gives the same value for two of them.
    """
    found = to_output(np.asarray(edges), parameter)
    if not np.isfinite(found).all() or (np.diff(found) <= 0).any():
        limits = "" if parameter.limits is None else f" within the limits {list(parameter.limits)}"
        raise BundleError(
            f"the edges of {parameter.name}, {edges[0]:g} to {edges[-1]:g}, must be finite and rise after its "
            f"transform {parameter.transform}{limits}"
        )
    return found


def _edge_tensors(info: HeadInfo, parameters: Sequence[ParameterInfo]) -> list[Tensor]:
    """Return the standardized edges of each parameter's bins, (edge,) float32."""
    import torch

    pairs = zip(info.edges or (), parameters, strict=True)
    return [torch.from_numpy(standard_edges(e, p).astype(np.float32)) for e, p in pairs]


def binned_loss(outputs: Tensor, target: Tensor, *, edges: Sequence[Tensor]) -> Tensor:
    """Return the negative log density of histograms, summed over parameters: cross entropy plus ln of the bin's width.

    Parameters
    ----------
    outputs : (row, output) float32: for each parameter the logits of its bins
    target : (row, parameter) float32, standardized; a value outside all bins counts as in the nearest one
    edges : one array (edge,) float32 per parameter, standardized

    Returns
    -------
    scalar tensor, the mean over the rows
    """
    widths = [edge.diff().log()[bins].mean() for edge, bins in _bins_of(target, edges)]
    total: Tensor = cross_entropy_loss(outputs, target, edges=edges) + sum(widths)
    return total


def cross_entropy_loss(outputs: Tensor, target: Tensor, *, edges: Sequence[Tensor]) -> Tensor:
    """Return the negative log probability of the target's bin, summed over parameters; arguments as for `binned_loss`.

    Its gradients are those of `binned_loss`; its value is that of classifiers over redshift bins in the literature.
    """
    import torch
    from torch.nn import functional

    pairs = zip(_logits_of(outputs, edges), _bins_of(target, edges), strict=True)
    return torch.stack([functional.cross_entropy(one, bins) for one, (_, bins) in pairs]).sum()


def crps_loss(outputs: Tensor, target: Tensor, *, edges: Sequence[Tensor]) -> Tensor:
    """Return the continuous ranked probability score of histograms, summed over parameters; arguments as for `binned_loss`.

    It is the integral of (F(x) - [x >= target])^2 over the standardized values, in closed form: over a width w in which the
    CDF is linear between a and b, its square has the integral w (a^2 + a b + b^2) / 3 (Gneiting & Raftery 2007, JASA 102, 359,
    equation 20). A target outside all bins counts as at the nearest end.
    """
    import torch

    losses = []
    for index, (one, edge) in enumerate(zip(_logits_of(outputs, edges), edges, strict=True)):
        edge = edge.to(target.device)
        probability = one.softmax(dim=1)
        high = probability.cumsum(dim=1)
        low = high - probability
        # (row, bin), the end of the part of each bin that lies below the target
        split = target[:, index : index + 1].clamp(edge[0], edge[-1]).maximum(edge[:-1]).minimum(edge[1:])
        middle = low + probability * (split - edge[:-1]) / edge.diff()
        below = (split - edge[:-1]) * (low.square() + low * middle + middle.square())
        rest, end = 1.0 - middle, 1.0 - high
        above = (edge[1:] - split) * (rest.square() + rest * end + end.square())
        losses.append((below + above).sum(dim=1).mean() / 3.0)
    return torch.stack(losses).sum()


def _logits_of(outputs: Tensor, edges: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield the logits (row, bin) of each parameter's bins."""
    bounds = pairwise(np.cumsum([0, *(len(edge) - 1 for edge in edges)]).tolist())
    yield from (outputs[:, start:stop] for start, stop in bounds)


def _bins_of(target: Tensor, edges: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the edges of each parameter on the target's device, and the index (row,) of the bin that each target lies in."""
    import torch

    for index, edge in enumerate(edges):
        edge = edge.to(target.device)
        # Only the inner edges are compared, so that values beyond the outermost ones fall into the first or last bin.
        yield edge, torch.bucketize(target[:, index].contiguous(), edge[1:-1], right=True)
