"""Classification: probabilities of classes, and their scatter between passes."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import special

from galbatch.errors import BundleError
from galbatch.models import BundleMetadata, HeadInfo, InputInfo, ParameterInfo
from galbatch.models.heads import head_problems, loss_of, read_passes
from galbatch.models.posterior import quantities_of, summarize_draws

CLASSES = tuple(ParameterInfo(f"p_{name}", "", name, "identity") for name in ("star", "galaxy", "quasar"))
HEAD = HeadInfo("softmax")


def passes_of(outputs):
    metadata = BundleMetadata("n", "1", "x", InputInfo(("g",), 4, 0.2, "nJy", 31.4), HEAD, CLASSES, 0.1)
    return read_passes(outputs, metadata)


def test_the_mean_over_the_passes_is_the_probability_and_their_scatter_is_epistemic():
    outputs = np.random.default_rng(1).normal(0, 1.5, (5, 40, 3))
    passes = passes_of(outputs)
    probability = special.softmax(outputs, axis=2)
    total = 0
    for index, quantity in enumerate(quantities_of(CLASSES)):
        found = summarize_draws(passes.mean, quantity, [0.5])
        np.testing.assert_allclose(found.mean, probability[..., index].mean(axis=1), rtol=1e-9)
        np.testing.assert_allclose(found.epistemic_std, probability[..., index].std(axis=1), rtol=1e-9)
        total = total + found.mean
    np.testing.assert_allclose(total, 1.0, rtol=1e-12)


def test_the_loss_is_torchs_cross_entropy():
    outputs = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    classes = torch.arange(50) % 3
    loss = loss_of(HEAD, CLASSES)
    expected = torch.nn.functional.cross_entropy(outputs, classes)
    assert loss(outputs, torch.eye(3)[classes]).item() == pytest.approx(expected.item(), rel=1e-6)
    # Shares of votes: least where the softmax is the shares.
    shares = torch.tensor([[0.2, 0.3, 0.5]])
    entropy = -(shares * shares.log()).sum().item()
    assert loss(shares.log(), shares).item() == pytest.approx(entropy, rel=1e-6)


def test_classes_are_neither_transformed_nor_standardized():
    assert head_problems(HEAD, CLASSES) == []
    scaled = (dataclasses.replace(CLASSES[0], scale=0.3), *CLASSES[1:])
    assert head_problems(HEAD, scaled) == ["head softmax: p_star: a class has location 0 and scale 1"]
    limited = (dataclasses.replace(CLASSES[0], transform="logit", limits=(0.01, 0.99)), *CLASSES[1:])
    (problem,) = head_problems(HEAD, limited)
    assert "transform identity, no limits" in problem
    (problem,) = head_problems(HEAD, CLASSES[:1])
    assert "two or more are needed, found 1" in problem


def test_other_losses_are_refused():
    with pytest.raises(BundleError, match="head softmax: has no loss crps"):
        loss_of(HEAD, CLASSES, name="crps")
