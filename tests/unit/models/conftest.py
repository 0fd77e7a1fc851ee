"""Small networks with random weights, and blocks of made-up galaxies."""

import dataclasses
import hashlib

import numpy as np
import pytest
import torch

from galbatch.core.types import CutoutBlock, Grid
from galbatch.models import (
    BundleMetadata,
    DomainInfo,
    HeadInfo,
    InputInfo,
    LabelInfo,
    ParameterInfo,
    load_bundle,
    save_bundle,
    script_of,
)
from galbatch.models.metadata import write_metadata
from galbatch.models.networks import Gampen, Sfnet

SIZE_PX = 48
SCALE_ARCSEC = 0.168

PARAMETERS = (
    ParameterInfo(
        "bt",
        "",
        "bulge-to-total ratio",
        "logit",
        scale=1.5,
        limits=(0.02, 0.98),
        training_range=(0.0, 1.0),
        labels=(
            LabelInfo("highly bulge-dominated", at_least=0.85),
            LabelInfo("highly disk-dominated", at_most=0.1),
            LabelInfo("intermediate"),
        ),
    ),
    ParameterInfo("re_arcsec", "arcsec", "half-light radius", "ln", location=0.3, scale=0.7),
    ParameterInfo("flux_njy", "nJy", "total flux", "ln", location=10.0, scale=1.2, magnitude="mag"),
)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


def gampen_metadata(**changes):
    metadata = BundleMetadata(
        name="tiny-gampen",
        version="0",
        architecture="gampen",
        input=InputInfo(("g",), SIZE_PX, SCALE_ARCSEC, "ADU", 27.0),
        head=HeadInfo("gaussian"),
        parameters=PARAMETERS,
        dropout_rate=0.02,
    )
    return dataclasses.replace(metadata, **changes)


def sfnet_metadata(**changes):
    metadata = BundleMetadata(
        name="tiny-sfnet",
        version="0",
        architecture="sfnet",
        input=InputInfo(("g", "r"), SIZE_PX, SCALE_ARCSEC, "ADU", 27.0),
        head=HeadInfo("gaussian"),
        parameters=(
            ParameterInfo("color_gr_mag", "mag", "g - r", "identity", location=0.5, scale=0.2),
            ParameterInfo("mag_r", "mag", "r magnitude", "identity", location=18.0),
        ),
        dropout_rate=0.05,
        n_top_features=4,
    )
    return dataclasses.replace(metadata, **changes)


def tiny_gampen(n_out=9, dropout_rate=0.02):
    torch.manual_seed(3)
    return Gampen(SIZE_PX, n_out, width=1 / 16, in_channels=1, dropout_rate=dropout_rate)


def tiny_sfnet(n_out=5, dropout_rate=0.05):
    torch.manual_seed(4)
    return Sfnet(2, n_out, k=4, width=1 / 8, dropout_rate=dropout_rate)


def with_fixed_draws(bundle):
    """Return the bundle with a hash of its metadata in place of its file's.

    TorchScript numbers the names of classes through a whole process, so a file's hash follows from the networks that other tests
    scripted before. Random numbers of the passes follow from the hash: numbers of passes and flags would differ from run to run.
    """
    text = write_metadata(bundle.metadata)
    return dataclasses.replace(bundle, sha256=hashlib.sha256(text.encode()).hexdigest())


@pytest.fixture(scope="session")
def gampen_bundle(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("bundles") / "gampen.pt")
    network = tiny_gampen()
    torch.manual_seed(11)
    # Wider outputs than an untrained head's, so that passes and objects differ visibly.
    torch.nn.init.normal_(network.vgg.classifier[6].weight, std=0.005)
    save_bundle(path, script_of(network), gampen_metadata())
    return with_fixed_draws(load_bundle(path))


@pytest.fixture(scope="session")
def sfnet_bundle(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("bundles") / "sfnet.pt")
    save_bundle(path, script_of(tiny_sfnet()), sfnet_metadata())
    return with_fixed_draws(load_bundle(path))


def with_domain(bundle, **domain):
    metadata = dataclasses.replace(bundle.metadata, domain=DomainInfo(**domain))
    return dataclasses.replace(bundle, metadata=metadata)


def galaxies(n, n_bands, size_px=SIZE_PX, seed=0):
    """Gaussian blobs on noise, (object, band, y, x) float32 nJy, with their flux (nJy) and width (arcsec)."""
    rng = np.random.default_rng(seed)
    flux = 10.0 ** rng.uniform(4, 5.5, n)
    width_px = 10.0 ** rng.uniform(0.2, 0.8, n)
    offset = np.arange(size_px) - size_px // 2
    radius2 = offset[:, None] ** 2 + offset[None, :] ** 2
    shape = np.exp(-0.5 * radius2 / width_px[:, None, None] ** 2)
    light = flux[:, None, None] * shape / shape.sum(axis=(1, 2), keepdims=True)
    images = np.repeat(light[:, None], n_bands, axis=1) + rng.normal(0, 2.0, (n, n_bands, size_px, size_px))
    return images.astype(np.float32), flux, width_px * SCALE_ARCSEC


def block_of(images, *, object_id=None, bands=None):
    n, n_bands, size_px = images.shape[:3]
    return CutoutBlock(
        grid=Grid(size_px, SCALE_ARCSEC),
        bands=bands or ("g", "r", "i")[:n_bands],
        object_id=np.arange(n, dtype=np.int64) + 40 if object_id is None else object_id,
        ra_deg=np.linspace(150, 151, n),
        dec_deg=np.zeros(n),
        image=images,
        mask=None,
        variance=None,
        crpix=np.full((n, 2), 25.0),
        crval=np.zeros((n, 2)),
        cd=np.zeros((n, 2, 2)),
        tile=np.full(n, "t"),
        coverage=np.ones((n, n_bands), np.float32),
        sky_sigma_njy=np.full((n, n_bands), 2.0, np.float32),
        psf_fwhm_arcsec=np.full((n, n_bands), np.nan, np.float32),
        noise_correlation=np.ones((n, n_bands), np.float32),
        flags=np.zeros(n, np.int32),
    )


@pytest.fixture
def make_block():
    """(n, n_bands, seed) -> a block of galaxies."""

    def make(n=6, n_bands=1, seed=0):
        return block_of(galaxies(n, n_bands, seed=seed)[0])

    return make


@pytest.fixture
def make():
    """The builders of this file, for tests that vary them."""

    class Builders:
        gampen = staticmethod(tiny_gampen)
        sfnet = staticmethod(tiny_sfnet)
        gampen_metadata = staticmethod(gampen_metadata)
        sfnet_metadata = staticmethod(sfnet_metadata)
        galaxies = staticmethod(galaxies)
        block = staticmethod(block_of)
        with_domain = staticmethod(with_domain)
        with_fixed_draws = staticmethod(with_fixed_draws)

    return Builders
