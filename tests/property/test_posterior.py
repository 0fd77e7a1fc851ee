"""Whatever the passes say, whatever the head: held to scipy's distributions, to brute force, and to their own CDF."""

import dataclasses

import hypothesis.strategies as st
import numpy as np
from hypothesis import example, given, settings
from hypothesis.extra.numpy import arrays
from scipy.stats import multivariate_normal, norm, rv_histogram

from galbatch.models import BundleMetadata, HeadInfo, InputInfo, ParameterInfo, head_of
from galbatch.models.heads import (
    BinnedMarginal,
    BinnedPasses,
    GaussianPasses,
    head_problems,
    outputs_per_pass,
    read_passes,
)
from galbatch.models.networks import draw_keys, member_keys
from galbatch.models.posterior import mixture_cdf, pooled, quantities_of, summarize_mixture, to_output

PARAMETERS = (
    ParameterInfo("bt", "", "", "logit", scale=1.5, limits=(0.02, 0.98)),
    ParameterInfo("flux_njy", "nJy", "", "ln", location=10.0, scale=1.2, magnitude="mag"),
)
LIMITED = (PARAMETERS[0], dataclasses.replace(PARAMETERS[1], limits=(3e2, 3e6)))
EDGES = ((0.02, 0.05, 0.1, 0.11, 0.5, 0.7, 0.98), (3e2, 1e4, 2e4, 2.2e4, 9e4, 3e6))
HEADS = (
    HeadInfo("gaussian"),
    HeadInfo("mixture", components=1),
    HeadInfo("mixture", components=4),
    HeadInfo("binned", edges=EDGES),
)
TINY = 1e-290  # well above the smallest normal float, 2.2e-308, below which relative precision is lost
LEVELS = st.lists(st.floats(1e-3, 1 - 1e-3), min_size=1, max_size=6, unique=True).map(sorted)


def metadata_of(head, members=1):
    grid = InputInfo(("g",), 4, 0.2, "nJy", 31.4)
    # Heads whose tails have no moments under ln refuse it without limits.
    parameters = LIMITED if head_problems(head, PARAMETERS) else PARAMETERS
    return BundleMetadata("n", "1", "x", grid, head, parameters, 0.1, members=members)


@st.composite
def outputs_of_heads(draw, heads=HEADS):
    """Metadata and outputs (object, pass, member x output)."""
    metadata = metadata_of(draw(st.sampled_from(heads)), members=draw(st.integers(1, 2)))
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 6)), outputs_per_pass(metadata))
    return metadata, draw(arrays(np.float64, shape, elements=st.floats(-4, 4)))


@st.composite
def normals(draw):
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 9)))
    mean = draw(arrays(np.float64, shape, elements=st.floats(-8, 8)))
    log_std = draw(arrays(np.float64, shape, elements=st.floats(-5, 1)))
    return mean, np.exp(log_std)


@st.composite
def histograms(draw):
    """Edges (edge,) and probabilities (object, pass, bin): narrow and empty bins among them."""
    n_bins = draw(st.integers(1, 12))
    widths = draw(arrays(np.float64, n_bins, elements=st.sampled_from([1e-6, 1e-3, 0.1, 1.0, 30.0])))
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 5)), n_bins)
    weight = draw(arrays(np.float64, shape, elements=st.sampled_from([0.0, 0.0, 1e-9, 0.1, 1.0])))
    weight[..., draw(st.integers(0, n_bins - 1))] += 0.25
    edges = draw(st.floats(-5, 5)) + np.concatenate([[0.0], np.cumsum(widths)])
    return edges, weight / weight.sum(axis=2, keepdims=True)


def marginal_of(mean, std):
    return GaussianPasses(mean[..., None], std[..., None, None]).marginal(0)


def histogram_marginal(edges, probability):
    return BinnedMarginal(np.broadcast_to(edges, (len(probability), len(edges))), probability)


# A narrow pass aside from six wide ones: Newton's steps alone jump to and fro.
NARROW = np.array([[1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]]), np.exp([[-5.0, -2.0, -2.0, -2.0, -2.0, -2.0, -2.0]])

# Narrow passes far apart: halfway between them the density is 0, and the slope over it is not finite.
APART = np.array([[0.0, -5.0, *6 * [8.0]]]), np.full((1, 8), 0.03421812)


@given(normals(), LEVELS)
@example(NARROW, [0.59375])
@example(APART, [0.5])
@settings(max_examples=60)
def test_cdf_at_the_quantiles_is_the_level(mixture, levels):
    mean, std = mixture
    found = marginal_of(mean, std).quantiles(np.asarray(levels))
    cdf = norm.cdf(found[:, :, None], mean[:, None, :], std[:, None, :]).mean(axis=2)
    np.testing.assert_allclose(cdf, np.broadcast_to(levels, cdf.shape), atol=1e-6)


@given(outputs_of_heads(), LEVELS)
@settings(max_examples=60)
def test_quantiles_solve_the_cdf_of_every_head(outputs, levels):
    metadata, numbers = outputs
    passes = read_passes(numbers, metadata)
    for index in range(len(PARAMETERS)):
        marginal = passes.marginal(index)
        found = marginal.quantiles(np.asarray(levels))
        cdf = np.stack([mixture_cdf(marginal, column) for column in found.T], axis=1)
        np.testing.assert_allclose(cdf, np.broadcast_to(levels, cdf.shape), atol=1e-8)
        assert (np.diff(found, axis=1) >= 0).all()


@given(histograms(), LEVELS, arrays(np.float64, 7, elements=st.floats(-10, 40)))
@settings(max_examples=80)
def test_histograms_are_scipys(histogram, levels, points):
    """CDF, density, mean, standard deviation; quantiles also across empty bins, where the CDF is flat."""
    edges, probability = histogram
    marginal = histogram_marginal(edges, probability)
    x = np.broadcast_to(points, (len(probability), len(points)))
    cdf, mixed = marginal.cdf(x), marginal.density(x)
    inside = np.abs(points[:, None] - edges).min(axis=1) > 1e-9  # at an edge either side will do
    densities = np.empty(cdf.shape)
    for row, one_pass in np.ndindex(probability.shape[:2]):
        truth = rv_histogram((probability[row, one_pass] / np.diff(edges), edges), density=True)
        np.testing.assert_allclose(cdf[row, one_pass], truth.cdf(points), atol=1e-9)
        densities[row, one_pass] = truth.pdf(points)
        # scipy's variance is a difference of squares, which cancel: 500 points in each bin instead.
        fine = (edges[:-1, None] + np.diff(edges)[:, None] * (np.arange(500) + 0.5) / 500).ravel()
        weight = np.repeat(probability[row, one_pass] / 500, 500)
        mean = (weight * fine).sum()
        np.testing.assert_allclose(marginal.mean[row, one_pass], mean, atol=1e-9)
        variance = (weight * np.square(fine - mean)).sum()
        np.testing.assert_allclose(marginal.std[row, one_pass] ** 2, variance, rtol=1e-5)
    np.testing.assert_allclose(mixed[:, inside], densities.mean(axis=1)[:, inside], rtol=1e-7)
    # Levels that the empty bins stand at, beside those of chance.
    flat = np.cumsum(probability.mean(axis=1), axis=1)[0, :-1]
    wanted = np.unique([*levels, *flat[(flat > 1e-3) & (flat < 1 - 1e-3)]])
    found = marginal.quantiles(np.asarray(wanted))
    at = np.stack([mixture_cdf(marginal, column) for column in found.T], axis=1)
    # Quantiles are good to 1e-10 standard deviations, which is a share of the narrowest bins' probability.
    steepest = (probability / np.diff(edges)).max() * (edges[-1] - edges[0])
    np.testing.assert_allclose(at, np.broadcast_to(wanted, at.shape), atol=1e-9 + 2e-10 * steepest)
    assert ((found >= edges[0]) & (found <= edges[-1])).all()


@given(
    outputs_of_heads([h for h in HEADS if h.kind in ("gaussian", "mixture")]),
    arrays(np.float64, 5, elements=st.floats(-9, 9)),
)
@settings(max_examples=40)
def test_normal_heads_are_scipys(outputs, points):
    """CDF and density of the marginals, whose components are read by hand from the outputs."""
    metadata, numbers = outputs
    metadata, n, k = dataclasses.replace(metadata, members=1), 2, max(1, metadata.head.components)
    numbers = numbers[..., : outputs_per_pass(metadata)]
    if metadata.head.kind == "gaussian":
        mean, d, low = numbers[..., None, :2], np.exp(numbers[..., 2:4]), numbers[..., 4]
        std = np.sqrt(np.stack([d[..., 0], low**2 * d[..., 0] + d[..., 1]], axis=-1))[..., None, :]
        weight = np.ones((*numbers.shape[:2], 1))
    else:
        weight = np.exp(numbers[..., :k]) / np.exp(numbers[..., :k]).sum(axis=-1, keepdims=True)
        mean = numbers[..., k : k + n * k].reshape(*numbers.shape[:2], k, n)
        std = np.exp(numbers[..., k + n * k :]).reshape(*numbers.shape[:2], k, n)
    x = np.broadcast_to(points, (len(numbers), len(points)))
    for index in range(n):
        marginal = read_passes(numbers, metadata).marginal(index)
        of_each = mean[..., None, :, index], std[..., None, :, index]
        cdf = (norm.cdf(points[:, None], *of_each) * weight[..., None, :]).sum(-1)
        np.testing.assert_allclose(marginal.cdf(x), cdf, atol=1e-12)
        density = (norm.pdf(points[:, None], *of_each) * weight[..., None, :]).sum(-1).mean(axis=1)
        np.testing.assert_allclose(marginal.density(x), density, rtol=1e-9, atol=TINY)
        around = marginal.cdf_pdf_slope(x)
        np.testing.assert_allclose(around[0], cdf.mean(axis=1), atol=1e-12)
        np.testing.assert_allclose(around[1], density, rtol=1e-9, atol=TINY)
        score = (points[:, None] - of_each[0]) / of_each[1]
        slope = -(norm.pdf(score) * score * weight[..., None, :] / of_each[1] ** 2).sum(-1).mean(axis=1)
        # Far out in the tail the densities have few bits left (5e-324 has one), so a relative error means nothing there.
        np.testing.assert_allclose(around[2], slope, rtol=1e-7, atol=1e-9 * np.abs(slope).max() + TINY)


@given(outputs_of_heads(), st.floats(0.2, 4), st.floats(-3, 3))
@settings(max_examples=40)
def test_affine_maps_and_inflation_move_what_the_heads_say(outputs, factor, shift):
    """The CDF at a moved point is the CDF before; the covariance follows; inflation keeps the mean."""
    metadata, numbers = outputs
    passes = read_passes(numbers, metadata)
    scale, shifts = np.array([factor, 1.3]), np.array([shift, 0.1])
    moved, inflated = passes.affine(scale, shifts), passes.inflated(scale)
    for index in range(2):
        points = np.quantile(passes.marginal(index).mean, [0.1, 0.5, 0.9], axis=1).T + 0.01
        there = points * scale[index] + shifts[index]
        before = passes.marginal(index).cdf(points)
        np.testing.assert_allclose(moved.marginal(index).cdf(there), before, atol=1e-9)
        center = passes.mean.mean(axis=1)[:, index, None]
        there = center + scale[index] * (points - center)
        np.testing.assert_allclose(inflated.marginal(index).cdf(there), before, atol=1e-9)
    outer = np.outer(scale, scale)
    np.testing.assert_allclose(moved.covariance(), passes.covariance() * outer, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(inflated.covariance(), passes.covariance() * outer, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(inflated.mean.mean(axis=1), passes.mean.mean(axis=1), atol=1e-9)


@given(st.sampled_from(HEADS), st.integers(1, 6), st.integers(1, 2))
@settings(max_examples=16)
def test_draws_are_of_the_distributions(head, seed, members):
    """One pass, repeated 40,000 times: its draws have its CDF, and its covariance."""
    metadata, rng = metadata_of(head, members), np.random.default_rng(seed)
    numbers = rng.normal(0, 0.8, (1, 1, outputs_per_pass(metadata)))
    n_draws = 40_000 // members
    passes = read_passes(np.repeat(numbers, n_draws, axis=1), metadata)
    keys = draw_keys([seed], seed=seed, bundle_sha256="", passes=range(n_draws))
    draws = passes.draws(member_keys(keys, members))[0]
    assert draws.shape == (40_000, 2)
    one = read_passes(numbers, metadata)
    for index in range(2):
        ranks = np.sort(one.marginal(index).cdf(draws[None, :, index])[0].mean(axis=0))
        gap = np.abs(ranks - (np.arange(40_000) + 0.5) / 40_000).max()
        assert gap < 2.2 / np.sqrt(40_000)  # Kolmogorov: 1e-4 chance
    expected = one.covariance()[0]
    error = 6 * np.sqrt(3 * np.outer(np.diag(expected), np.diag(expected)) / 40_000)
    assert (np.abs(np.cov(draws.T) - expected) < error).all()


@given(outputs_of_heads(), outputs_of_heads(), LEVELS)
@settings(max_examples=40)
def test_pooled_posteriors_weigh_members_alike(first, second, levels):
    """Whatever heads are pooled: the CDF is the mean over members, and so are moments; quantiles solve it."""
    parts = []
    n_objects, n_passes = (min(first[1].shape[i], second[1].shape[i]) for i in (0, 1))
    for metadata, numbers in (first, second):
        parts.append(read_passes(numbers[:n_objects, :n_passes], metadata))
    both = pooled(parts)
    shares = np.array([part.n_members for part in parts]) / sum(part.n_members for part in parts)
    for index in range(2):
        marginal = both.marginal(index)
        found = marginal.quantiles(np.asarray(levels))
        for column, level in zip(found.T, levels, strict=True):
            cdf = sum(
                s * mixture_cdf(part.marginal(index), column) for s, part in zip(shares, parts, strict=True)
            )
            np.testing.assert_allclose(cdf, level, atol=1e-8)
    mean = sum(s * part.mean.mean(axis=1) for s, part in zip(shares, parts, strict=True))
    np.testing.assert_allclose(both.mean.mean(axis=1), mean, atol=1e-9)
    second_moment = sum(
        s * (part.covariance() + np.einsum("oi,oj->oij", m := part.mean.mean(axis=1), m))
        for s, part in zip(shares, parts, strict=True)
    )
    np.testing.assert_allclose(
        both.covariance(), second_moment - np.einsum("oi,oj->oij", mean, mean), rtol=1e-7, atol=1e-7
    )


@given(outputs_of_heads(), LEVELS)
@settings(max_examples=60)
def test_summaries_are_monotone_bounded_and_finite(outputs, levels):
    metadata, numbers = outputs
    passes = read_passes(0.35 * numbers, metadata)  # fluxes of wider ones overflow
    for quantity in quantities_of(metadata.parameters):
        summary = summarize_mixture(passes, quantity, levels)
        assert (np.diff(summary.quantiles.astype(np.float32), axis=1) >= 0).all()
        for column in (summary.mean, summary.std, summary.mode, summary.epistemic_std, summary.mc_error):
            assert np.isfinite(column).all()
        assert (summary.epistemic_std <= summary.std * (1 + 1e-9) + 1e-12).all()
        if quantity.name == "bt":
            inside = (
                (summary.quantiles == 0) | (summary.quantiles == 1) | (np.abs(summary.quantiles - 0.5) < 0.48)
            )
            assert inside.all()
            assert ((summary.mean >= 0) & (summary.mean <= 1)).all()


@given(arrays(np.float64, 9, elements=st.floats(-4, 4)), st.integers(1, 6))
@settings(max_examples=20)
def test_the_gaussian_heads_draws_are_its_joint_distribution(outputs, seed):
    """Mean log density of draws under scipy's multivariate normal: its negative entropy."""
    parameters = (*PARAMETERS, ParameterInfo("x", "", "", "identity"))
    metadata = dataclasses.replace(metadata_of(HeadInfo("gaussian")), parameters=parameters)
    assert head_of(metadata.head).n_outputs(metadata.head, 3) == 9
    passes = read_passes(np.broadcast_to(outputs, (1, 4000, 9)), metadata)
    keys = draw_keys([seed], seed=seed, bundle_sha256="", passes=range(4000))
    covariance = passes.within()[0]
    # L D L^T with L of a large entry is badly conditioned, not wrong.
    truth = multivariate_normal(passes.mean[0, 0], covariance, allow_singular=True)
    lower = np.eye(3)
    lower[np.tril_indices(3, -1)] = outputs[6:]
    np.testing.assert_allclose(covariance, lower @ np.diag(np.exp(outputs[3:6])) @ lower.T, rtol=1e-9)
    if np.linalg.cond(covariance) < 1e6:
        found = truth.logpdf(passes.draws(keys)[0])
        assert abs(found.mean() + truth.entropy()) < 6 * np.sqrt(1.5 / 4000)


def test_edges_in_physical_units_become_edges_of_the_output():
    passes = read_passes(np.zeros((2, 3, 11)), metadata_of(HeadInfo("binned", edges=EDGES)))
    assert isinstance(passes, BinnedPasses)
    for index, parameter in enumerate(PARAMETERS):
        np.testing.assert_allclose(
            passes.marginal(index).edges[1], to_output(np.array(EDGES[index]), parameter)
        )
    np.testing.assert_allclose(passes.marginal(0).probability, 1 / 6)
