"""The second opinion of a bundle, measured on held-out images."""

import dataclasses

import numpy as np
import pytest

from galbatch import models, photometry
from galbatch.learning import second_opinion
from galbatch.models.networks import Gampen
from tests.unit.models.conftest import SIZE_PX, gampen_metadata
from tests.unit.photometry.scenes import gaussian, noise

N = 220


@pytest.fixture(scope="module")
def bundle():
    """A tiny network of random weights: its estimates need not be good, only related to the pixels."""
    import torch

    torch.manual_seed(1)
    metadata = gampen_metadata()
    network = Gampen(SIZE_PX, 9, in_channels=1, width=1 / 16, dropout_rate=0.02).eval()
    return models.Bundle(metadata, "0" * 64, models.script_of(network))


@pytest.fixture(scope="module")
def held_out():
    rng = np.random.default_rng(2)
    fluxes, sizes = np.exp(rng.normal(9, 0.5, N)), rng.uniform(2, 4, N)
    images = np.stack(
        [gaussian(SIZE_PX, flux=flux, sigma_px=size) for flux, size in zip(fluxes, sizes, strict=True)]
    )
    images = (images[:, None] + noise((N, 1, SIZE_PX, SIZE_PX), 3.0)).astype(np.float32)
    return models.HeldOut(images, np.zeros((N, 3)))


@pytest.fixture(scope="module")
def info(bundle, held_out):
    lines = []
    found = second_opinion.measure_disagreement(bundle, held_out, data="made up", notify=lines.append)
    assert lines == [f"comparing the network with the photometry of {N} objects"]
    return found


def test_it_is_of_flux_and_size_in_the_photometry_of_today(info):
    assert [fit.parameter for fit in info.fits] == ["re_arcsec", "flux_njy"]
    assert info.photometry_version == photometry.PHOTOMETRY_VERSION
    assert (info.n_objects, info.data) == (N, "made up")
    assert not info.problems(("bt", "re_arcsec", "flux_njy"), 1)


def test_its_features_are_those_of_the_images(info):
    """The mean logarithm of the fluxes is that which was drawn, but for what lies outside the apertures."""
    assert info.centers[0] == pytest.approx(9.0, abs=0.1)
    assert info.scales[0] == pytest.approx(0.5, rel=0.15)


def test_the_same_objects_give_the_same(bundle, held_out, info):
    assert second_opinion.measure_disagreement(bundle, held_out, data="made up") == info


def test_few_objects_and_other_networks_have_none(bundle, held_out):
    few = held_out.take(np.arange(models.MIN_DISAGREEMENT_OBJECTS - 1))
    assert second_opinion.measure_disagreement(bundle, few) is None
    shapes = gampen_metadata(parameters=bundle.metadata.parameters[:1])
    of_shapes = dataclasses.replace(bundle, metadata=shapes)
    assert second_opinion.measure_disagreement(of_shapes, held_out) is None


def test_no_more_objects_than_asked_for_are_run(bundle, held_out):
    lines = []
    second_opinion.measure_disagreement(bundle, held_out, max_objects=210, notify=lines.append)
    n_run = int(lines[0].split()[-2])
    assert 200 <= n_run < N
