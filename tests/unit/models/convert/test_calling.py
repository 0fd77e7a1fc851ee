"""Foreign networks with numbers beside the image or alone, several heads, draws of their own, and features."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from galbatch.config import PosteriorConfig
from galbatch.errors import BundleError
from galbatch.models import BlockInputs, convert_script, infer_block, load_bundle
from galbatch.models.convert.calling import Signature

SIZE_PX = 48
NUMBERS = 'auxiliary_inputs = [{name = "ebv", unit = "mag"}, {name = "color", unit = "mag"}]'
TOML = """
name = "theirs"
{top}
[input]
bands = ["g"]
size_px = 48
pixel_scale_arcsec = 0.168
unit = "nJy"
zero_point_mag = 31.4
{numbers}
[head]
kind = "gaussian"
[[parameters]]
name = "redshift"
unit = ""
description = "photometric redshift"
transform = "identity"
"""


class Both(nn.Module):
    """A network of an image and two numbers, whose mean and log variance are heads of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 5, stride=4)
        self.mean, self.width = nn.Linear(6, 1), nn.Linear(6, 1)

    @torch.jit.export
    def last_features(self, images: Tensor, auxiliary: Tensor) -> Tensor:
        seen = self.convolution(torch.arcsinh(images)).relu().mean(dim=[2, 3])
        return torch.cat([seen, auxiliary], dim=1)

    def forward(self, images: Tensor, auxiliary: Tensor) -> tuple[Tensor, Tensor]:
        last = self.last_features(images, auxiliary)
        # A head of one number may have lost its last axis.
        return self.mean(last), self.width(last)[:, 0]


class Drawing(nn.Module):
    """A network that draws by itself, and holds a dropout module that is off in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.off = nn.Dropout(0.9)

    def forward(self, images: Tensor) -> Tensor:
        mean = self.off(functional.dropout(torch.ones(images.shape[0], 64), 0.5, training=True)).mean(dim=1)
        return torch.stack([mean, torch.randn(images.shape[0])], dim=1)


@pytest.fixture
def convert(tmp_path):
    """(network, top=, numbers=) -> a loaded bundle, converted by the command's function."""

    def make(network, *, top="", numbers=""):
        torch.jit.script(network.eval()).save(str(tmp_path / "theirs.pt"))
        (tmp_path / "theirs.toml").write_text(TOML.format(top=top, numbers=numbers))
        convert_script(*(str(tmp_path / name) for name in ("theirs.pt", "theirs.toml", "bundle.pt")))
        return load_bundle(str(tmp_path / "bundle.pt"))

    return make


def both():
    torch.manual_seed(5)
    return Both()


def test_numbers_and_several_heads_give_what_the_network_gives(convert, make):
    network = both()
    bundle = convert(network, numbers=NUMBERS)
    images, _, _ = make.galaxies(5, 1)
    auxiliary = np.random.default_rng(1).normal(size=(5, 2)).astype(np.float32)
    values = infer_block(
        bundle,
        BlockInputs(make.block(images), np.ones(5, bool), auxiliary),
        name="z",
        posterior=PosteriorConfig(batch=3),
    )
    with torch.inference_mode():
        mean, log_variance = network(torch.from_numpy(make.block(images).image), torch.from_numpy(auxiliary))
    np.testing.assert_allclose(values["z_redshift_q500"], mean[:, 0].numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(values["z_redshift_std"], np.exp(log_variance.numpy() / 2), rtol=1e-5)
    assert (values["z_passes"] == 1).all()


def test_features_of_a_foreign_network_are_those_it_names(convert, make):
    network = both()
    bundle = convert(network, numbers=NUMBERS)
    images = torch.from_numpy(make.block(make.galaxies(3, 1)[0]).image)
    auxiliary = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    with torch.inference_mode():
        found = bundle.script.last_features(bundle.prefix(images, auxiliary))
        torch.testing.assert_close(found, network.last_features(images, auxiliary), rtol=1e-6, atol=1e-6)
    assert bundle.n_features == 6


def test_a_network_that_draws_says_so_and_draws_from_the_keys(convert):
    bundle = convert(Drawing(), top="draws = true")
    assert (bundle.metadata.draws, bundle.metadata.dropout_rate) == (True, 0.0)
    assert bundle.metadata.passes_text == "draws of the network's own"
    images = torch.zeros(1, 1, SIZE_PX, SIZE_PX).repeat(400, 1, 1, 1)
    with torch.inference_mode():
        features = bundle.prefix(images)
        rows = bundle.sample(features, torch.arange(400))
        assert torch.equal(rows, bundle.sample(features, torch.arange(400)))
    # Its own dropout doubles half of 64 ones; with the module's, which stays off, the variance would be 19 times as large.
    assert float(rows[:, 0].var()) == pytest.approx(1.0 / 64, rel=0.3)
    assert float(rows[:, 1].std()) == pytest.approx(1.0, abs=0.15)


def test_a_network_that_draws_without_saying_so_is_refused(convert):
    with pytest.raises(BundleError, match="a converted network that draws by itself must say draws = true"):
        convert(Drawing())


def test_a_network_that_says_it_draws_and_does_not_is_refused(convert):
    with pytest.raises(
        BundleError, match="different keys give the same outputs, but its metadata says that it draws"
    ):
        convert(both(), top="draws = true", numbers=NUMBERS)


def test_numbers_that_the_description_does_not_state_are_told(convert):
    with pytest.raises(
        BundleError, match=r"takes \(Tensor, Tensor\), its description says forward\(images: Tensor\)"
    ):
        convert(both())


@pytest.mark.parametrize(
    ("signature", "text"),
    [
        (Signature(1, False), "forward(images: Tensor)"),
        (Signature(0, True), "forward(auxiliary: Tensor)"),
        (Signature(3, True), "forward(images: List[Tensor], auxiliary: Tensor)"),
    ],
)
def test_signatures_are_told_in_words(signature, text):
    assert signature.text == text
