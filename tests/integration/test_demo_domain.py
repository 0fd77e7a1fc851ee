"""OUT_OF_DOMAIN of the shipped bundles: on fresh draws of their population, noise, PSFs and real pixels."""

import dataclasses

import numpy as np
import pytest
import torch

from galbatch.config import FlagsConfig, PosteriorConfig
from galbatch.core.flags import MaskBit, ModelFlag
from galbatch.core.types import CutoutBlock, Grid
from galbatch.ingest.cut.measure import measure
from galbatch.models import (
    BlockInputs,
    Engine,
    Execution,
    bundle_path,
    demo_bundles,
    infer_block,
    load_bundle,
)
from galbatch.simulation import SKIES, draw_population, draw_stamps

N_GALAXIES = 400
GRID = Grid(96, 0.168)
SKY_NJY = np.array([2.0, 2.6], np.float32)[:, None, None]
PSF_FWHM_ARCSEC = (0.85, 0.79)


def block_of(images, light):
    """As a store holds it: the light above 5 sigma a pixel is DETECTED, as in the simulated survey."""
    n, n_bands = images.shape[:2]
    mask = np.where(light > 5 * SKY_NJY, np.uint16(MaskBit.DETECTED), np.uint16(0))
    variance = np.broadcast_to(SKY_NJY**2, images.shape).astype(np.float32)
    found = measure(images, mask, variance=variance, grid=GRID, flags=FlagsConfig())
    return CutoutBlock(
        grid=GRID,
        bands=("g", "r"),
        object_id=np.arange(n, dtype=np.int64),
        ra_deg=np.zeros(n),
        dec_deg=np.zeros(n),
        image=images,
        mask=None,
        variance=None,
        crpix=np.zeros((n, 2)),
        crval=np.zeros((n, 2)),
        cd=np.zeros((n, 2, 2)),
        tile=np.full(n, "t"),
        coverage=found.coverage,
        sky_sigma_njy=found.sky_sigma_njy,
        psf_fwhm_arcsec=np.broadcast_to(np.array(PSF_FWHM_ARCSEC, np.float32), (n, n_bands)).copy(),
        noise_correlation=np.ones((n, n_bands), np.float32),
        flags=found.flags,
    )


@pytest.fixture(scope="module")
def skies():
    """By population: light and images (object, band, y, x) of fresh galaxies."""
    torch.set_num_threads(1)
    return {population: drawn(population) for population in SKIES}


def drawn(population):
    truth = draw_population(N_GALAXIES, bands=("g", "r"), population=population, seed=4711)
    skies = (dataclasses.replace(SKIES[population], noise=noise) for noise in (False, True))
    return tuple(draw_stamps(truth, bands=("g", "r"), size_px=96, seed=4711, sky=sky) for sky in skies)


@pytest.fixture
def sky(skies, name):
    """Of the population that the bundle was trained on."""
    return skies[load_bundle(bundle_path(name)).metadata.training["population"]]


def out_of_domain(name, block, *, engine="torchscript-float32"):
    """(object,) bool, and the distance."""
    bundle = load_bundle(bundle_path(name))
    n_bands = len(bundle.bands)
    per_band = ("image", "sky_sigma_njy", "psf_fwhm_arcsec", "coverage", "noise_correlation")
    block = dataclasses.replace(
        block, bands=bundle.bands, **{key: getattr(block, key)[:, :n_bands] for key in per_band}
    )
    selected = np.ones(len(block), bool)
    posterior = PosteriorConfig(passes=2)
    values = infer_block(
        bundle,
        BlockInputs(block, selected),
        name="net",
        posterior=posterior,
        execution=Execution(Engine.named(engine)),
    )
    return (values["net_flags"] & ModelFlag.OUT_OF_DOMAIN) > 0, values["net_ood_distance"]


@pytest.mark.parametrize("name", demo_bundles())
def test_fresh_draws_are_flagged_at_the_stated_rate(sky, name):
    light, images = sky
    domain = load_bundle(bundle_path(name)).metadata.domain
    found, _ = out_of_domain(name, block_of(images, light))
    rate = domain.false_alarm_rate
    error = np.sqrt(rate * (1 - rate) * (1 / N_GALAXIES + 1 / domain.n_held_out))
    assert abs(found.mean() - rate) < 3.5 * error


@pytest.mark.parametrize("name", demo_bundles())
def test_doubled_noise_is_flagged(sky, name):
    light, images = sky
    block = block_of(light + 2 * (images - light), light)
    measured = np.isfinite(block.sky_sigma_njy[:, 0])
    found, _ = out_of_domain(name, block)
    # Where a galaxy of the paper's fills the frame there is no sky to tell its noise by.
    assert measured.mean() > 0.6
    assert found[measured].mean() > 0.7


@pytest.mark.parametrize("name", demo_bundles())
def test_a_wider_psf_is_flagged_where_it_is_known(sky, name):
    light, images = sky
    block = block_of(images, light)
    wider = dataclasses.replace(block, psf_fwhm_arcsec=block.psf_fwhm_arcsec * np.float32(1.4))
    assert out_of_domain(name, wider)[0].all()


@pytest.mark.parametrize("name", demo_bundles())
def test_images_of_nothing_that_was_trained_on_are_far(name):
    strange = np.random.default_rng(1).normal(0, 1e5, (40, 2, 96, 96)).astype(np.float32)
    found, distance = out_of_domain(name, block_of(strange, np.zeros_like(strange)))
    assert found.all()
    if load_bundle(bundle_path(name)).metadata.training["population"] == "paper":
        assert (distance > 1).all()
    else:  # bright neighbors have widened the limits of its features: by them alone noise is at a fifth of the limit
        assert (distance < 1).all()


def test_the_other_populations_galaxies_are_told(skies):
    """Galaxies of the paper are brighter and larger than a survey's; among a survey's faint ones the paper's network is lost."""
    light, images = skies["paper"]
    assert out_of_domain("demo:gampen_survey", block_of(images, light))[0].mean() > 0.9
    light, images = skies["survey"]
    assert out_of_domain("demo:gampen", block_of(images, light))[0].mean() > 0.5


@pytest.mark.parametrize("engine", ["rebuilt-bfloat16", "rebuilt-float16"])
@pytest.mark.parametrize("name", ["demo:gampen", "demo:gampen_survey"])
def test_rounding_moves_distances_by_less_than_their_limit_is_known_to(sky, name, engine):
    """The limit is a quantile of the distances of as many objects as the training held out: other objects would give another one."""
    light, images = sky
    domain = load_bundle(bundle_path(name)).metadata.domain
    block = block_of(images, light)
    (expected_flags, expected), (flags, distance) = (
        out_of_domain(name, block, engine=one) for one in ("rebuilt-float32", engine)
    )
    rng = np.random.default_rng(6)
    limits = np.quantile(rng.choice(expected, (200, domain.n_held_out)), 1 - domain.false_alarm_rate, axis=1)
    moved = np.sqrt(np.mean((distance / expected - 1) ** 2))
    assert 0 < moved < limits.std() / limits.mean()
    np.testing.assert_array_equal(flags, expected_flags)
