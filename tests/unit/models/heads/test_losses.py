"""The losses against the densities that heads.py reads from the same outputs, and against scipy."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats

from galbatch.errors import BundleError
from galbatch.models import BundleMetadata, HeadInfo, InputInfo, ParameterInfo, head_of
from galbatch.models.heads import loss_of, read_passes
from galbatch.models.networks import draw_keys

PARAMETERS = (
    ParameterInfo("z", "", "", "identity", location=0.4, scale=0.3),
    ParameterInfo("re_arcsec", "arcsec", "", "ln", location=0.2, scale=0.7),
)
HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)
HEADS = {
    "gaussian": HeadInfo("gaussian"),
    "mixture": HeadInfo("mixture", components=3),
    "binned": HeadInfo("binned", edges=((-0.3, 0.1, 0.4, 0.5, 1.4), (0.05, 1.0, 1.5, 30.0))),
}

LEFT_OUT = {"gaussian": HALF_LOG_2PI, "mixture": HALF_LOG_2PI, "binned": 0.0}
"""Constants of one parameter's negative log density that the losses leave out, as they change no gradient."""


def metadata_of(head, parameters=PARAMETERS):
    return BundleMetadata("n", "1", "x", InputInfo(("g",), 4, 0.2, "nJy", 31.4), head, parameters, 0.1)


def made_up(kind, n_rows=200, seed=1):
    rng = np.random.default_rng(seed)
    outputs = rng.normal(0, 0.7, (n_rows, head_of(HEADS[kind]).n_outputs(HEADS[kind], 2))).astype(np.float32)
    return outputs, rng.uniform(-1.5, 1.5, (n_rows, 2)).astype(np.float32)


def loss(kind, outputs, target):
    return loss_of(HEADS[kind], PARAMETERS)(torch.from_numpy(outputs), torch.from_numpy(target)).item()


@pytest.mark.parametrize("kind", HEADS)
def test_one_parameter_costs_what_its_density_says(kind):
    """But for a constant that the loss may leave out: those of the heads here are known."""
    head = HEADS[kind]
    if head.edges:
        head = dataclasses.replace(head, edges=head.edges[:1])
    n_outputs = head_of(head).n_outputs(head, 1)
    rng = np.random.default_rng(2)
    outputs = rng.normal(size=(300, n_outputs)).astype(np.float32)
    target = rng.uniform(-1.5, 1.5, (300, 1)).astype(np.float32)
    loss_of_rows = loss_of(head, PARAMETERS[:1])
    rows = zip(torch.from_numpy(outputs).split(1), torch.from_numpy(target).split(1), strict=True)
    found = np.array([loss_of_rows(*row).item() for row in rows])
    marginal = read_passes(outputs[:, None], metadata_of(head, PARAMETERS[:1])).marginal(0)
    expected = -np.log(marginal.density(target.astype(np.float64)))[:, 0]
    constant = LEFT_OUT.get(kind, (expected - found).mean())
    np.testing.assert_allclose(found, expected - constant, rtol=1e-4, atol=1e-4)
    assert found.mean() == pytest.approx(expected.mean() - constant, rel=1e-5)


def test_binned_parameters_add_up():
    outputs, target = made_up("binned")
    passes = read_passes(outputs[:, None], metadata_of(HEADS["binned"]))
    points = target.astype(np.float64)
    each = [np.log(passes.marginal(i).density(points[:, i : i + 1])).mean() for i in range(2)]
    assert loss("binned", outputs, target) == pytest.approx(-sum(each), rel=1e-5)


def test_gaussian_loss_is_the_multivariate_normals():
    outputs, target = made_up("gaussian")
    passes = read_passes(outputs[:, None], metadata_of(HEADS["gaussian"]))
    expected = [
        stats.multivariate_normal.logpdf(target[row], passes.mean[row, 0], passes.within()[row])
        for row in range(len(target))
    ]
    assert loss("gaussian", outputs, target) == pytest.approx(-np.mean(expected) - 2 * HALF_LOG_2PI, rel=1e-5)


def test_mixture_loss_is_that_of_the_joint_density():
    outputs, target = made_up("mixture")
    passes = read_passes(outputs[:, None], metadata_of(HEADS["mixture"]))
    normal = stats.norm.pdf(target[:, None], passes.center[:, 0], passes.width[:, 0]).prod(axis=2)
    expected = -np.log((passes.weight[:, 0] * normal).sum(axis=1)).mean()
    assert loss("mixture", outputs, target) == pytest.approx(expected - 2 * HALF_LOG_2PI, rel=1e-5)


def test_targets_outside_the_bins_count_as_in_the_nearest():
    outputs, target = made_up("binned")
    inside, outside = target.copy(), target.copy()
    inside[:, 0], outside[:, 0] = 2.0, 99.0
    assert loss("binned", outputs, outside) == loss("binned", outputs, inside)
    inside[:, 0], outside[:, 0] = -2.0, -99.0
    assert loss("binned", outputs, outside) == loss("binned", outputs, inside)


@pytest.mark.parametrize("kind", HEADS)
def test_the_loss_is_least_at_the_distribution_that_the_targets_are_drawn_from(kind):
    """There the mean gradient is 0, within 5 standard errors; elsewhere the loss is larger."""
    n_rows = 4000
    truth, _ = made_up(kind, 1, seed=4)
    passes = read_passes(np.repeat(truth[None], n_rows, axis=1), metadata_of(HEADS[kind]))
    keys = draw_keys([1], seed=1, bundle_sha256="", passes=range(n_rows))
    target = torch.from_numpy(passes.draws(keys)[0].astype(np.float32))
    outputs = torch.from_numpy(truth).repeat(n_rows, 1).requires_grad_()
    at_the_truth = loss_of(HEADS[kind], PARAMETERS)(outputs, target)
    at_the_truth.backward()
    each = n_rows * outputs.grad.numpy().astype(np.float64)  # the loss is a mean over the rows
    assert (np.abs(each.mean(axis=0)) < 5 * each.std(axis=0) / np.sqrt(n_rows) + 1e-6).all()
    elsewhere = truth + 0.5 * np.random.default_rng(5).choice([-1, 1], truth.shape).astype(np.float32)
    assert loss(kind, np.repeat(elsewhere, n_rows, axis=0), target.numpy()) > at_the_truth.item() + 0.02


@pytest.mark.parametrize("kind", ["gaussian", "mixture", "binned"])
def test_the_likelihoods_maximum_is_the_truths_distribution(kind):
    """Trained on draws of one distribution, the outputs alone end where that distribution is."""
    rng = np.random.default_rng(3)
    target = torch.from_numpy(rng.normal(0.2, 0.5, (4000, 2)).astype(np.float32))
    outputs = torch.zeros(1, head_of(HEADS[kind]).n_outputs(HEADS[kind], 2))
    outputs += 0.1 * torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1))
    outputs.requires_grad_()
    optimizer = torch.optim.LBFGS([outputs], max_iter=100)

    def closure():
        optimizer.zero_grad()
        found = loss_of(HEADS[kind], PARAMETERS)(outputs.expand(len(target), -1), target)
        found.backward()
        return found

    optimizer.step(closure)
    passes = read_passes(outputs.detach().numpy()[None], metadata_of(HEADS[kind]))
    if kind == "binned":
        share = np.histogram(target[:, 0], passes.marginal(0).edges[0])[0] / 4000
        np.testing.assert_allclose(passes.marginal(0).probability[0, 0], share, atol=2e-3)
    else:
        np.testing.assert_allclose(passes.mean[0, 0], target.mean(0), atol=0.01)
        np.testing.assert_allclose(np.sqrt(np.diag(passes.covariance()[0])), target.std(0), rtol=0.02)


def test_edges_that_a_transform_does_not_tell_apart_are_refused():
    logit = ParameterInfo("bt", "", "", "logit", limits=(0.02, 0.98))
    with pytest.raises(BundleError, match=r"edges of bt, 0 to 1, must .* limits \[0.02, 0.98\]"):
        loss_of(HeadInfo("binned", edges=((0.0, 0.01, 0.5, 1.0),)), (logit,))
    flux = ParameterInfo("f", "", "", "ln")
    with pytest.raises(BundleError, match="must be finite"):
        loss_of(HeadInfo("binned", edges=((0.0, 0.5, 1.0),)), (flux,))


def test_cross_entropy_is_that_of_the_targets_bin():
    outputs, target = made_up("binned")
    passes = read_passes(outputs[:, None], metadata_of(HEADS["binned"]))
    expected = 0.0
    for index in range(2):
        marginal = passes.marginal(index)
        bins = np.clip(np.searchsorted(marginal.edges[0], target[:, index], side="right") - 1, 0, None)
        bins = np.minimum(bins, marginal.probability.shape[2] - 1)
        expected -= np.log(marginal.probability[np.arange(len(target)), 0, bins]).mean()
    loss = loss_of(HEADS["binned"], PARAMETERS, name="cross_entropy")
    assert loss(torch.from_numpy(outputs), torch.from_numpy(target)).item() == pytest.approx(
        expected, rel=1e-5
    )


def crps(outputs, target):
    return loss_of(HEADS["binned"], PARAMETERS, name="crps")(
        torch.from_numpy(outputs), torch.from_numpy(target)
    ).item()


def test_the_crps_is_the_integral_over_the_bins_of_unequal_widths():
    outputs, target = made_up("binned", n_rows=20)
    passes = read_passes(outputs[:, None], metadata_of(HEADS["binned"]))
    expected = 0.0
    for index in range(2):
        marginal = passes.marginal(index)
        edges = marginal.edges[0]
        for row in range(20):
            cdf = np.concatenate([[0], np.cumsum(marginal.probability[row, 0])])
            truth = np.clip(target[row, index], edges[0], edges[-1])
            x = np.union1d(np.linspace(edges[0], edges[-1], 200_001), edges)
            squared = np.square(np.interp(x, edges, cdf) - (x >= truth))
            expected += np.trapezoid(squared, x) / 20
    assert crps(outputs, target) == pytest.approx(expected, rel=1e-4)


def test_the_crps_of_a_certain_network_is_its_distance_from_the_truth():
    # All probability in the first bin of z, [-0.3, 0.1]: standardized from -7/3 to -1. Those of the other parameter are even.
    outputs = np.full((1, 7), -40.0, np.float32)
    outputs[0, 0] = 40.0
    outputs[0, 4:] = 0.0
    far, farther = np.array([[1.0, 0.0]], np.float32), np.array([[2.0, 0.0]], np.float32)
    assert crps(outputs, farther) - crps(outputs, far) == pytest.approx(1.0, rel=1e-5)


def test_the_cross_entropy_is_least_at_the_shares_of_the_targets():
    target = np.random.default_rng(5).normal(0.2, 0.6, (4000, 2)).astype(np.float32)
    edges = read_passes(np.zeros((1, 1, 7), np.float32), metadata_of(HEADS["binned"])).marginal(0).edges[0]
    share = np.histogram(np.clip(target[:, 0], edges[0], edges[-1]), edges)[0] / 4000
    best = np.zeros((4000, 7), np.float32)
    best[:, :4] = np.log(share)
    for change in ([0.1, 0, 0, 0], [0, -0.1, 0, 0], [0, 0, 0.1, 0], [0, 0, 0, -0.1]):
        other = best.copy()
        other[:, :4] += np.array(change, np.float32)
        loss = loss_of(HEADS["binned"], PARAMETERS, name="cross_entropy")
        both = [loss(torch.from_numpy(o), torch.from_numpy(target)).item() for o in (best, other)]
        assert both[0] < both[1]


def test_a_loss_of_another_head_is_refused_by_name():
    with pytest.raises(BundleError, match="head gaussian: has no loss crps; it has likelihood"):
        loss_of(HEADS["gaussian"], PARAMETERS, name="crps")
