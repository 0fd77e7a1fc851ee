"""Posteriors whose passes are tensors, against those of the same passes as arrays."""

import dataclasses

import numpy as np
import pytest
import torch

from galbatch.models import BundleMetadata, HeadInfo, InputInfo, ParameterInfo
from galbatch.models.heads import OutputInfo, pooled_passes
from galbatch.models.heads.device import passes_on_device, reads_tensors
from galbatch.models.inference import estimate_quantiles
from galbatch.models.posterior import (
    PooledPasses,
    gridded_mass,
    quantities_of,
    statistics_of,
    summarize_mixture,
)

LEVELS = (0.02275, 0.15865, 0.5, 0.84135, 0.97725)
PARAMETERS = (
    ParameterInfo("bt", "", "", "logit", location=0.2, scale=1.3, limits=(0.01, 0.99)),
    ParameterInfo("re_arcsec", "arcsec", "", "ln", location=0.4, scale=0.6),
    ParameterInfo("flux_njy", "nJy", "", "log10", location=4.0, scale=0.5, magnitude="mag"),
    ParameterInfo("color", "mag", "", "identity", location=0.5, scale=0.2, limits=(-0.2, 1.5)),
    ParameterInfo("faint_njy", "nJy", "", "identity", location=30.0, scale=12.0, magnitude="faint_mag"),
)
N, T = 7, 40
N_OUTPUTS = 5 * 2 + 10


def metadata_of(**changes):
    found = BundleMetadata(
        "m", "0", "gampen", InputInfo(("g",), 48, 0.168, "nJy"), HeadInfo("gaussian"), PARAMETERS, 0.02
    )
    return dataclasses.replace(found, **changes)


def outputs_of(seed, members=1):
    rng = np.random.default_rng(seed)
    found = np.empty((N, T, members, N_OUTPUTS), np.float32)
    found[..., :5] = rng.normal(0, 1, (N, 1, 1, 5)) + rng.normal(0, 0.3, (N, T, members, 5))
    found[..., 5:10] = rng.normal(-1.5, 0.5, (N, T, members, 5))
    found[..., 10:] = rng.normal(0, 0.4, (N, T, members, 10))
    found[0, :3, :, 5:10] = -12.0  # passes far narrower than the others
    return found.reshape(N, T, members * N_OUTPUTS)


MOVED = tuple(
    dataclasses.replace(one, location=one.location + 0.1, scale=1.2 * one.scale) for one in PARAMETERS
)
ENSEMBLES = {
    "one bundle": [(OutputInfo(metadata_of(), "a"), 1)],
    "inflated": [(OutputInfo(metadata_of(), "a", (1.2, 1.0, 1.5, 1.1, 1.0)), 1)],
    "two members with weights": [(OutputInfo(metadata_of(members=2, member_weights=(2, 1)), "a"), 2)],
    "two bundles": [
        (OutputInfo(metadata_of(), "a"), 1),
        (OutputInfo(metadata_of(parameters=MOVED, members=2), "b", (1.3, 1.0, 1.0, 1.0, 1.1)), 2),
    ],
}


@pytest.fixture(params=ENSEMBLES)
def both(request):
    """The pooled passes as arrays and as tensors."""
    infos, members = zip(*ENSEMBLES[request.param], strict=True)
    outputs = [outputs_of(seed, n) for seed, n in enumerate(members)]
    return pooled_passes(infos, outputs), passes_on_device(
        infos, [torch.from_numpy(part) for part in outputs]
    )


def assert_same(found, expected, *, rtol, mode_rtol=None):
    for field in dataclasses.fields(expected):
        wanted = mode_rtol if field.name == "mode" and mode_rtol else rtol
        values = [getattr(one, field.name) for one in (found, expected)]
        np.testing.assert_allclose(*values, err_msg=field.name, rtol=wanted, atol=1e-9)


@pytest.mark.parametrize("quantity", quantities_of(PARAMETERS), ids=lambda one: one.name)
def test_summaries_are_the_same_to_rounding(both, quantity):
    host, device = both
    expected = summarize_mixture(host, quantity, LEVELS)
    # On the host each bundle has points of its own among which the mode is searched: the highest peaks may be others' in part.
    mode_rtol = 5e-3 if isinstance(host, PooledPasses) else None
    assert_same(summarize_mixture(device, quantity, LEVELS), expected, rtol=1e-8, mode_rtol=mode_rtol)
    if quantity.name != "faint_mag":
        assert np.isfinite(expected.std).all()


def test_some_fluxes_reach_zero(both):
    """The magnitude of a flux near zero has moments of its own, which are tested above only if there is one."""
    host, _ = both
    quantity = quantities_of(PARAMETERS)[-1]
    assert quantity.name == "faint_mag"
    lowest = host.marginal(quantity.index).quantiles(np.array([0.001]))[:, 0]
    assert (lowest < quantity.zero_output).any()


@pytest.mark.parametrize("allows_jumps", [False, True])
def test_estimates_and_errors_are_the_same_to_rounding(both, allows_jumps):
    host, device = both
    found, expected = (
        estimate_quantiles(passes, quantities_of(PARAMETERS), LEVELS, allows_jumps=allows_jumps)
        for passes in (device, host)
    )
    assert_same(found, expected, rtol=1e-7)
    assert found.member_error.shape[-1] == host.n_members
    assert (expected.undetected_jumps > 0).any() == allows_jumps


def test_covariances_and_densities_are_the_same_to_rounding(both):
    host, device = both
    np.testing.assert_allclose(device.covariance(), host.covariance(), rtol=1e-12)
    np.testing.assert_allclose(device.within(), host.within(), rtol=1e-12)
    np.testing.assert_allclose(device.mean, host.mean, rtol=1e-12)
    quantity, edges = quantities_of(PARAMETERS)[1], np.linspace(0.0, 5.0, 41)
    masses = [gridded_mass(passes.marginal(1), quantity, edges) for passes in (device, host)]
    np.testing.assert_allclose(*masses, rtol=1e-10, atol=1e-13)


def test_marginals_can_be_brought_to_the_host(both):
    host, device = both
    there, here = device.marginal(2), host.marginal(2)
    assert statistics_of(there) is there
    x = np.linspace(-2, 2, 9)[None].repeat(N, axis=0)
    np.testing.assert_allclose(there.cdf(x), here.cdf(x), rtol=1e-12)
    np.testing.assert_allclose(there.std, here.std, rtol=1e-12)
    for found, expected in zip(there.moments(np.exp, 8), here.moments(np.exp, 8), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    with pytest.raises(NotImplementedError, match="host's memory"):
        device.draws(np.zeros((N, T), np.int64))


def test_components_with_weights(both):
    """Two halves of the passes as the components of half as many passes: the mixture over all stays the same."""
    one = both[1].marginal(1)
    center, width = (part[..., 0].reshape(N, -1, 2) for part in (one.center, one.width))
    weight = torch.full_like(center, 0.5)
    two = type(one)(center, width, weight)
    here = two.on_host()
    quantity = quantities_of(PARAMETERS)[1]
    for limits in ((-np.inf, np.inf), (-0.5, 0.7)):
        np.testing.assert_allclose(
            two.total_moments(quantity, 40, limits),
            statistics_of(here).total_moments(quantity, 40, limits),
            rtol=1e-10,
        )
    x = np.linspace(-2, 2, 9)[None].repeat(N, axis=0)
    np.testing.assert_allclose(two.cdf_scatter(x), statistics_of(here).cdf_scatter(x), atol=1e-14)
    np.testing.assert_allclose(two.mean_cdf(x), one.mean_cdf(x), rtol=1e-12)
    np.testing.assert_allclose(two.total_std(), one.total_std(), rtol=1e-12)
    np.testing.assert_allclose(
        two.mode_grid(np.array([[-2.0, 2.0]] * N)), here.mode_grid(np.array([[-2.0, 2.0]] * N))
    )


def test_other_heads_are_read_on_the_host():
    infos = [
        OutputInfo(metadata_of(), "a"),
        OutputInfo(metadata_of(head=HeadInfo("mixture", components=2)), "b"),
    ]
    assert reads_tensors(infos[:1])
    assert not reads_tensors(infos)
