import dataclasses

import numpy as np
import pytest
from scipy import linalg, ndimage

from galbatch.config import FlagsConfig, PosteriorConfig
from galbatch.core.flags import MaskBit, ModelFlag
from galbatch.core.types import Grid
from galbatch.ingest.cut.measure import measure
from galbatch.models import BlockInputs, infer_block
from galbatch.models.inference import (
    FeatureDistance,
    ObjectNumbers,
    describe_domain,
    feature_distance,
    is_out_of_domain,
    sky_scatter,
)

from ..conftest import block_of, galaxies

SKY_NJY = 2.0
UNIT_NJY = 57.544


def with_sky(block):
    """The block with what a store measures in its images, and a PSF."""
    sky = sky_scatter(block.image).astype(np.float32)
    psf = np.random.default_rng(4).normal(0.85, 0.05, sky.shape).astype(np.float32)
    return dataclasses.replace(block, sky_sigma_njy=sky, psf_fwhm_arcsec=psf)


@pytest.fixture(scope="module")
def described(sfnet_bundle):
    """The tiny network's bundle, with the domain of 1600 galaxies of which a half is held out."""
    images = galaxies(1600, 2, seed=1)[0]
    psf = with_sky(block_of(images)).psf_fwhm_arcsec
    domain = describe_domain(
        sfnet_bundle.script,
        images,
        unit_njy=UNIT_NJY,
        psf_fwhm_arcsec=psf,
        held_out=np.arange(0, 1600, 2),
    )
    metadata = dataclasses.replace(sfnet_bundle.metadata, domain=domain)
    return dataclasses.replace(sfnet_bundle, metadata=metadata)


def share_flagged(bundle, block):
    selected = np.ones(len(block), bool)
    values = infer_block(
        bundle, BlockInputs(block, selected), name="net", posterior=PosteriorConfig(passes=2)
    )
    flagged = (values["net_flags"] & ModelFlag.OUT_OF_DOMAIN) > 0
    return flagged.mean(), values["net_ood_distance"]


def test_fresh_draws_are_flagged_at_the_stated_rate(described):
    rate = described.metadata.domain.false_alarm_rate
    found, distance = share_flagged(described, with_sky(block_of(galaxies(800, 2, seed=2)[0])))
    # Binomial errors of the fresh galaxies and of the held-out ones that the limits were found on.
    error = np.sqrt(rate * (1 - rate) * (1 / 800 + 1 / described.metadata.domain.n_held_out))
    assert abs(found - rate) < 3 * error
    assert 0 < distance.max() < 3


def test_doubled_noise_wider_psf_and_strange_pixels_are_flagged(described):
    block = with_sky(block_of(galaxies(60, 2, seed=3)[0]))
    noise = np.random.default_rng(5).normal(0, np.sqrt(3) * SKY_NJY, block.image.shape).astype(np.float32)
    assert share_flagged(described, with_sky(dataclasses.replace(block, image=block.image + noise)))[0] > 0.95
    assert (
        share_flagged(described, dataclasses.replace(block, psf_fwhm_arcsec=block.psf_fwhm_arcsec * 1.5))[0]
        > 0.9
    )
    strange = dataclasses.replace(
        block, image=np.random.default_rng(6).normal(0, 1e6, block.image.shape).astype("f4")
    )
    found, distance = share_flagged(described, strange)
    assert found == 1
    assert (distance > 1).all()


def test_what_is_not_known_is_not_flagged(described):
    block = block_of(galaxies(100, 2, seed=3)[0])
    unknown = np.full((100, 2), np.nan, np.float32)
    block = dataclasses.replace(block, sky_sigma_njy=unknown, psf_fwhm_arcsec=unknown)
    assert share_flagged(described, block)[0] < 0.06


def test_the_limits_are_those_of_the_held_out(gampen_bundle):
    """Noise that only held-out objects have is inside; noise that only the others have is not."""
    images = galaxies(80, 1, seed=1)[0]
    held_out = np.arange(40)
    for noisy, expected in ((held_out, True), (np.arange(40, 80), False)):
        changed = images.copy()
        changed[noisy] += np.random.default_rng(1).normal(0, 20, changed[noisy].shape).astype(np.float32)
        domain = describe_domain(gampen_bundle.script, changed, unit_njy=UNIT_NJY, held_out=held_out)
        assert domain.n_held_out == 40
        ((_, high),) = domain.sky_sigma_njy
        assert (high > 15) is expected


def test_ranges_are_taken_as_they_are_and_widths_with_a_margin(gampen_bundle):
    images = galaxies(80, 1, seed=1)[0]
    given = describe_domain(gampen_bundle.script, images, unit_njy=UNIT_NJY, psf_fwhm_arcsec=((0.7, 1.05),))
    assert given.psf_fwhm_arcsec == ((0.7, 1.05),)
    widths = np.linspace(0.7, 1.0, 80)[:, None]
    ((low, high),) = describe_domain(
        gampen_bundle.script, images, unit_njy=UNIT_NJY, psf_fwhm_arcsec=widths
    ).psf_fwhm_arcsec
    assert low == pytest.approx(0.7 * 0.98, rel=0.01)
    assert high == pytest.approx(1.0 * 1.02, rel=0.02)
    unknown = np.full((80, 1), np.nan)
    assert (
        describe_domain(
            gampen_bundle.script, images, unit_njy=UNIT_NJY, psf_fwhm_arcsec=unknown
        ).psf_fwhm_arcsec
        is None
    )


def test_a_stores_own_sky_is_taken_instead_of_the_images(gampen_bundle):
    images = galaxies(80, 1, seed=1)[0]
    known = ObjectNumbers(sky_sigma_njy=np.full((80, 1), 7.0))
    domain = describe_domain(gampen_bundle.script, images, unit_njy=UNIT_NJY, known=known)
    assert domain.sky_sigma_njy == ((7.0, 7.0),)


class Silent:
    """Its features: one never fires, two are always equal."""

    def parameters(self):
        import torch

        return iter([torch.zeros(1)])

    def prefix(self, images):
        return images

    def last_features(self, images):
        import torch

        mean = images.mean(dim=(1, 2, 3))
        return torch.stack([mean, mean, torch.zeros_like(mean)], dim=1)


def test_features_that_never_fire_or_are_equal_leave_a_distance():
    images = galaxies(40, 1, seed=1)[0]
    domain = describe_domain(Silent(), images, unit_njy=UNIT_NJY)
    covariance = np.array(domain.features_covariance)
    assert np.linalg.cond(covariance) < 1e4
    mean = np.array(domain.features_mean)
    std = np.sqrt(covariance[0, 0])
    assert feature_distance(mean[None], mean, covariance)[0] == 0
    fired = mean + np.array([0, 0, std])
    assert feature_distance(fired[None], mean, covariance)[0] == pytest.approx(10, rel=0.01)


def test_distances_are_those_of_the_inverse_covariance_in_units_of_the_limit():
    rng = np.random.default_rng(5)
    mean, root = rng.normal(size=6), rng.normal(size=(6, 6))
    covariance = root @ root.T + np.eye(6)
    features = rng.normal(0, 3, (9, 6))
    apart = features - mean
    expected = np.sqrt(np.einsum("oi,ij,oj->o", apart, np.linalg.inv(covariance), apart))
    features[4, 2] = np.nan
    expected[4] = np.nan
    found = FeatureDistance(mean, covariance, limit=2.5)(features)
    np.testing.assert_allclose(found, expected / 2.5, rtol=1e-12)


def test_nan_distance_is_not_beyond(described):
    known = {"sky_sigma_njy": np.full((2, 2), SKY_NJY), "psf_fwhm_arcsec": np.full((2, 2), 0.85)}
    domain = described.metadata.domain
    assert is_out_of_domain(domain, np.array([np.nan, 1.1]), **known).tolist() == [False, True]
    assert not is_out_of_domain(domain, None, **known).any()


def test_sky_of_noise_alone_is_its_sigma():
    noise = np.random.default_rng(1).normal(0, [[[[2.0]], [[3.0]]]], (200, 2, 48, 48)).astype(np.float32)
    found = sky_scatter(noise)
    assert found.shape == (200, 2)
    np.testing.assert_allclose(found.mean(axis=0), [2.0, 3.0], rtol=0.01)
    assert found.std(axis=0) / found.mean(axis=0) == pytest.approx(0.04, abs=0.01)  # of 1000 pixels


def test_light_counts_as_light_and_not_as_noise():
    """Galaxies as wide as the stamp: their light varies over the frame by a hundred times the noise."""
    offset = np.arange(64) - 32
    radius2 = offset[:, None] ** 2 + offset[None, :] ** 2
    rng = np.random.default_rng(2)
    sky = rng.normal(0, SKY_NJY, (100, 1, 64, 64))
    peak = 10.0 ** rng.uniform(0, 4, (100, 1, 1, 1))
    images = (sky + peak * np.exp(-0.5 * radius2 / 16.0**2)).astype(np.float32)
    found = sky_scatter(images)
    assert np.nanmedian(found) == pytest.approx(SKY_NJY, rel=0.25)
    assert np.nanmax(found) < 2.2 * SKY_NJY
    filled = images.copy() + 1e4 * np.exp(-0.5 * radius2 / 60.0**2).astype(np.float32)
    assert np.isnan(sky_scatter(filled)).all()


def test_sky_is_what_a_store_measures_with_a_mask():
    """Of galaxies in a corner: their light is in the frame."""
    images = np.roll(galaxies(150, 1, size_px=64, seed=9)[0], 20, axis=(2, 3))
    light = ndimage.uniform_filter(images, (1, 1, 5, 5)) > 5 * SKY_NJY
    mask = np.where(light, np.uint16(MaskBit.DETECTED), np.uint16(0))
    stored = measure(
        images, mask, variance=np.full_like(images, 4.0), grid=Grid(64, 0.168), flags=FlagsConfig()
    ).sky_sigma_njy
    found = sky_scatter(images)
    np.testing.assert_allclose(found, stored, rtol=0.08)
    np.testing.assert_allclose(np.median(found), np.median(stored), rtol=0.01)


@pytest.mark.parametrize("n_features", [3, 64, 512])
def test_distances_have_the_bits_of_scipys_triangular_solution(n_features):
    rng = np.random.default_rng(n_features)
    sample = rng.normal(size=(2 * n_features, n_features))
    covariance, features = np.cov(sample.T), rng.normal(size=(20, n_features)).astype(np.float32)
    factor = np.linalg.cholesky(covariance)
    whitened = [linalg.solve_triangular(factor, one.astype(np.float64), lower=True) for one in features]
    expected = [np.sqrt(np.square(one).sum()) for one in whitened]
    assert feature_distance(features, np.zeros(n_features), covariance).tolist() == expected
