"""What training minimizes: the negative log likelihood of each head, as heads.py reads its outputs.

The constant n/2 ln(2 pi) of n normal parameters is left out, as in equation 8 of the GaMPEN paper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from galbatch.models.heads.passes import standard_edges
from galbatch.models.metadata.schema import HeadInfo, ParameterInfo

__all__ = ["binned_loss", "gaussian_loss", "loss_of", "mixture_loss", "point_loss"]

Loss = Callable[[Tensor, Tensor], Tensor]


def loss_of(head: HeadInfo, parameters: Sequence[ParameterInfo]) -> Loss:
    """The loss of a head.

    Parameters
    ----------
    head : whose outputs are judged
    parameters : with location and scale: the edges of bins are in physical units

    Returns
    -------
    Function of outputs (row, output) and targets (row, parameter), float32 and standardized, whose value is the mean
    over the rows.

    Raises
    ------
    BundleError
        The edges of a binned head do not rise after a parameter's transform.
    """
    if head.kind == "gaussian":
        return gaussian_loss
    if head.kind == "point":
        return point_loss
    if head.kind == "mixture":
        return lambda outputs, target: mixture_loss(outputs, target, components=head.components)
    pairs = zip(head.edges or (), parameters, strict=True)
    edges = [torch.from_numpy(standard_edges(e, p).astype(np.float32)) for e, p in pairs]
    return lambda outputs, target: binned_loss(outputs, target, edges=edges)


def gaussian_loss(outputs: Tensor, target: Tensor) -> Tensor:
    """Negative log likelihood of equation 8 of the GaMPEN paper, without its constant.

    With Sigma = L D L^T, z = L^-1 (y - mu) follows by forward substitution.

    Parameters
    ----------
    outputs : (row, output) float32: mu, log d, strictly lower entries of L row by row
    target : (row, parameter) float32, standardized

    Returns
    -------
    Mean over the rows.
    """
    n = target.shape[1]
    residual = target - outputs[:, :n]
    log_d = outputs[:, n : 2 * n]
    solved: list[Tensor] = []
    entry = 2 * n
    for i in range(n):
        z = residual[:, i]
        for j in range(i):
            z = z - outputs[:, entry] * solved[j]
            entry += 1
        solved.append(z)
    z2 = torch.stack(solved, dim=1).square()
    return 0.5 * (z2 * torch.exp(-log_d) + log_d).sum(dim=1).mean()


def point_loss(outputs: Tensor, target: Tensor) -> Tensor:
    """Half the squared error, summed over parameters: the likelihood of a normal distribution of width 1.

    Parameters as for `gaussian_loss`, outputs (row, parameter).
    """
    return 0.5 * (outputs - target).square().sum(dim=1).mean()


def mixture_loss(outputs: Tensor, target: Tensor, *, components: int) -> Tensor:
    """Negative log likelihood of a mixture of normal distributions, each uncorrelated.

    Parameters
    ----------
    outputs : (row, output) float32: logits of the weights, means of each component, log sigma of each
    target : (row, parameter) float32, standardized
    components : how many
    """
    n = target.shape[1]
    log_weight = functional.log_softmax(outputs[:, :components], dim=1)
    center, log_width = outputs[:, components:].reshape(-1, 2, components, n).unbind(dim=1)
    z = (target[:, None] - center) * torch.exp(-log_width)
    log_likelihood = log_weight - (0.5 * z.square() + log_width).sum(dim=2)
    return -torch.logsumexp(log_likelihood, dim=1).mean()


def binned_loss(outputs: Tensor, target: Tensor, *, edges: Sequence[Tensor]) -> Tensor:
    """Negative log density of histograms, summed over parameters: cross entropy, and ln of the bin's width.

    Parameters
    ----------
    outputs : (row, output) float32: for each parameter the logits of its bins
    target : (row, parameter) float32, standardized; outside of all bins it counts as in the nearest
    edges : (edge,) float32 of each parameter, standardized
    """
    bounds = pairwise(np.cumsum([0, *(len(e) - 1 for e in edges)]).tolist())
    losses = []
    for index, ((start, stop), edge) in enumerate(zip(bounds, edges, strict=True)):
        edge = edge.to(target.device)
        bins = torch.bucketize(target[:, index].contiguous(), edge[1:-1], right=True)
        losses.append(functional.cross_entropy(outputs[:, start:stop], bins) + edge.diff().log()[bins].mean())
    return torch.stack(losses).sum()
