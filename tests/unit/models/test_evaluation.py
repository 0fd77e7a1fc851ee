import dataclasses

import numpy as np
import pytest
import torch

from galbatch.config import PosteriorConfig
from galbatch.models import ParameterInfo, evaluate

UNIT_NJY = 10 ** (0.4 * (31.4 - 27.0))


class Oracle:
    """Knows the mean of each posterior (pixel 0) and its spread; nothing else of the image counts."""

    def __init__(self, log_d):
        self.log_d = log_d

    def prefix(self, images):
        return images

    def sample(self, features, keys):
        mean = features[:, 0, 0, :1]
        return torch.cat([mean, torch.full_like(mean, self.log_d)], dim=1)


def judged(bundle, parameter, *, width=1.0, n=6000, mean_std=1.0):
    """Truths drawn from N(mean, 1); the network says N(mean, width)."""
    rng = np.random.default_rng(1)
    mean = rng.normal(0, mean_std, n)
    truth = mean + rng.normal(size=n)
    images = np.zeros((n, 1, 4, 4), np.float32)
    images[:, 0, 0, 0] = mean * UNIT_NJY
    metadata = dataclasses.replace(bundle.metadata, parameters=(parameter,), dropout_rate=0.0)
    oracle = dataclasses.replace(bundle, metadata=metadata, script=Oracle(2 * np.log(width)))
    return truth, lambda labels: evaluate(
        oracle, images, labels[:, None], posterior=PosteriorConfig(passes=2)
    )


def test_right_posteriors_have_right_coverage(gampen_bundle):
    parameter = ParameterInfo("x", "", "", "identity")
    truth, run = judged(gampen_bundle, parameter)
    found = run(truth)["x"]
    assert found["coverage_68"] == pytest.approx(0.6827, abs=0.02)
    assert found["coverage_95"] == pytest.approx(0.9545, abs=0.01)
    assert found["coverage_68_closed"] == pytest.approx(found["coverage_68"], abs=1e-9)
    assert found["r2"] == pytest.approx(0.5, abs=0.03)
    assert found["scatter"] == pytest.approx(1.0, abs=0.04)


def test_too_narrow_posteriors_are_seen(gampen_bundle):
    truth, run = judged(gampen_bundle, ParameterInfo("x", "", "", "identity"), width=0.5)
    assert run(truth)["x"]["coverage_68"] == pytest.approx(0.383, abs=0.02)  # within half a sigma


def test_truths_at_the_limits_are_judged_by_the_mass_there(gampen_bundle):
    """Clamping both truth and posterior leaves the randomized coverage right; the closed one flatters."""
    parameter = ParameterInfo("bt", "", "", "logit", limits=(0.2, 0.8))
    truth, run = judged(gampen_bundle, parameter, mean_std=2.0)
    bt = 1 / (1 + np.exp(-truth))
    bt[bt < 0.1] = 0.0
    bt[bt > 0.9] = 1.0
    found = run(bt)["bt"]
    assert found["coverage_68"] == pytest.approx(0.6827, abs=0.02)
    assert found["coverage_95"] == pytest.approx(0.9545, abs=0.01)
    assert found["coverage_68_closed"] > found["coverage_68"] + 0.05


def test_r2_of_ln_parameters_is_of_the_logarithm(gampen_bundle):
    truth, run = judged(gampen_bundle, ParameterInfo("f", "", "", "ln"))
    found = run(np.exp(truth))["f"]
    assert found["r2_of"] == "ln f"
    assert found["r2"] == pytest.approx(0.5, abs=0.03)
