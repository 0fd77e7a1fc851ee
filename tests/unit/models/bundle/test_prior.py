"""The density of training labels, and the population that draws give back once it is divided out."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from galbatch import models
from galbatch.models.posterior import to_output

PAGE = Path(__file__).parents[4] / "docs" / "reference" / "priors.md"
RADIUS = models.ParameterInfo("re_arcsec", "arcsec", "", "ln", location=0.2, scale=0.5)
COLOR = models.ParameterInfo("color", "mag", "", "identity", location=0.6, scale=0.2)
COVARIANCE = np.array([[0.25, 0.05], [0.05, 0.04]])


@pytest.fixture(scope="module")
def labels():
    """ln radius and color of 20,000 galaxies, correlated."""
    values = np.random.default_rng(1).multivariate_normal([0.2, 0.6], COVARIANCE, 20_000)
    return np.stack([np.exp(values[:, 0]), values[:, 1]], axis=1)


@pytest.fixture(scope="module")
def prior(labels):
    return models.estimate_prior(labels, [RADIUS, COLOR], data="toys")


def test_density_is_that_of_the_labels_per_unit(prior):
    at = {"re_arcsec": np.exp([0.2, 0.5, -0.2]), "color": np.array([0.6, 0.7, 0.5])}
    found = models.log_prior(prior, [RADIUS, COLOR], at)
    logs = np.log(at["re_arcsec"])
    right = multivariate_normal([0.2, 0.6], COVARIANCE).logpdf(np.stack([logs, at["color"]], 1)) - logs
    np.testing.assert_allclose(found, right, atol=0.05)


def test_marginal_density_is_of_the_parameters_given(prior):
    found = models.log_prior(prior, [RADIUS, COLOR], {"color": np.array([0.6, 0.8])})
    np.testing.assert_allclose(found, norm(0.6, 0.2).logpdf([0.6, 0.8]), atol=0.03)


def moments(prior):
    weights, means = np.asarray(prior.weights), np.asarray(prior.means)
    mean = weights @ means
    apart = means - mean
    return mean, np.einsum("k,kij->ij", weights, np.asarray(prior.covariances)) + (weights * apart.T) @ apart


def test_mixture_has_mean_and_covariance_of_the_labels(labels, prior):
    outputs = np.stack([to_output(labels[:, 0], RADIUS), to_output(labels[:, 1], COLOR)], axis=1)
    mean, covariance = moments(prior)
    np.testing.assert_allclose(mean, outputs.mean(axis=0), atol=0.01)
    np.testing.assert_allclose(covariance, np.cov(outputs.T), atol=0.02)
    assert prior.n_objects == 20_000


def test_two_kinds_of_galaxies_are_two_peaks():
    rng = np.random.default_rng(3)
    labels = np.concatenate([rng.normal(0.3, 0.05, 3000), rng.normal(0.9, 0.05, 1000)])[:, None]
    prior = models.estimate_prior(rng.permutation(labels), [COLOR])
    found = np.exp(models.log_prior(prior, [COLOR], {"color": np.array([0.3, 0.6, 0.9])}))
    right = 0.75 * norm(0.3, 0.05).pdf(0.3), 0, 0.25 * norm(0.9, 0.05).pdf(0.9)
    np.testing.assert_allclose(found, right, atol=0.6)
    assert found[1] < 0.01


def test_labels_count_with_their_weight():
    """Two kinds of galaxies, three times as many of the first, whose weight is a ninth of that of the second."""
    rng = np.random.default_rng(3)
    labels = np.concatenate([rng.normal(0.3, 0.05, 3000), rng.normal(0.9, 0.05, 1000)])[:, None]
    weight = np.repeat([1.0, 9.0], [3000, 1000])
    mean, _ = moments(models.estimate_prior(labels, [COLOR], weight=weight))
    assert mean[0] == pytest.approx(to_output(np.array([0.25 * 0.3 + 0.75 * 0.9]), COLOR)[0], abs=0.02)


def test_density_integrates_to_one(prior):
    radius, color = np.linspace(0.05, 12, 300), np.linspace(-0.6, 1.8, 200)
    mesh = np.meshgrid(radius, color, indexing="ij")
    found = models.log_prior(prior, [RADIUS, COLOR], {"re_arcsec": mesh[0].ravel(), "color": mesh[1].ravel()})
    total = np.exp(found).sum() * (radius[1] - radius[0]) * (color[1] - color[0])
    assert total == pytest.approx(1, abs=0.01)


def test_values_at_a_limit_have_the_density_at_the_limit():
    share = models.ParameterInfo("bt", "", "", "logit", limits=(0.02, 0.98))
    values = np.clip(np.random.default_rng(2).normal(0.5, 0.4, (5000, 1)), 0, 1)
    prior = models.estimate_prior(values, [share])
    found = models.log_prior(prior, [share], {"bt": np.array([0.0, 0.02, 0.01, np.nan])})
    assert np.isfinite(found[:3]).all()
    assert found[0] == found[1] == found[2]
    assert np.isnan(found[3])


def test_labels_without_a_density_have_no_prior():
    twice = np.repeat(np.linspace(1, 2, 100)[:, None], 2, axis=1)
    assert models.estimate_prior(twice, [COLOR, COLOR]) is None  # one follows from the other
    assert models.estimate_prior(twice[:15], [COLOR, COLOR]) is None  # too few


@pytest.mark.parametrize("name", ["gampen", "gampen_survey", "sfnet"])
def test_shipped_bundles_have_the_prior_of_their_training(name):
    metadata, sha256 = models.read_bundle_metadata(f"demo:{name}")
    prior = models.prior_of(metadata, sha256)
    assert metadata.prior is None  # the file is as it was
    assert prior.problems(len(metadata.parameters)) == []
    assert prior.n_objects == 26_995
    # Standardized by the training set itself, so mean and variance are known.
    mean, covariance = moments(prior)
    np.testing.assert_allclose(mean, 0, atol=0.02)
    np.testing.assert_allclose(np.diagonal(covariance), 1, atol=0.03)


def test_worked_example_of_the_page_gives_its_numbers():
    text = PAGE.read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    scope = {}
    exec(code, scope)
    rows = dict(re.findall(r"\| (the sky|stacked medians|reweighted draws) \| ([\d.]+ \| [\d.]+) \|", text))
    sky, stacked, reweighted = (tuple(map(float, row.split(" | "))) for row in rows.values())
    np.testing.assert_allclose(scope["stacked"], stacked, atol=0.006)
    np.testing.assert_allclose(scope["reweighted"], reweighted, atol=0.006)
    # What the page says: medians miss by many times their error (0.33 / sqrt(500) = 0.015 in ln), reweighted draws do not.
    (times,) = re.findall(r"by (\d+) times the error of their mean", text)
    middle, scatter = scope["stacked"]
    assert np.log(middle / sky[0]) / (scatter / np.sqrt(500)) == pytest.approx(int(times), abs=1)
    assert abs(np.log(reweighted[0] / sky[0])) < 0.06
    assert abs(reweighted[1] - sky[1]) < 0.04


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"weights": (0.7, 0.7)}, "the sum 1"),
        ({"means": ((0.0,),)}, "2 weights need as many means"),
        ({"means": ((0.0,), (0.0, 1.0))}, "2 weights need as many means"),
        ({"covariances": (((1.0,),), ((-1.0,),))}, "positive definite"),
    ],
)
def test_priors_that_contradict_themselves_are_refused(changes, problem):
    good = {"weights": (0.5, 0.5), "means": ((0.0,), (1.0,)), "covariances": (((1.0,),), ((1.0,),))}
    assert models.PriorInfo(**good).problems(1) == []
    (found,) = models.PriorInfo(**good | changes).problems(1)
    assert problem in found
