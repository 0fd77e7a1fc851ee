import pytest
import torch
from torch.nn import functional

from galbatch.models.gampen import Gampen, HalvingPool

# Table 3 of the paper at 239 px: weights and biases of every layer, counted by hand.
LOCALIZATION = (64 * 3 * 121 + 64) + (96 * 64 * 81 + 96) + (96 * 52 * 52 * 32 + 32) + (32 + 1)
VGG_CONVOLUTIONS = 14_714_688  # torchvision's vgg16.features
CLASSIFIER = (25088 * 4096 + 4096) + (4096 * 4096 + 4096) + (4096 * 9 + 9)


@pytest.fixture(scope="module")
def full():
    with torch.device("meta"):
        return Gampen(239, 9)


def test_full_width_has_the_papers_parameters(full):
    assert sum(p.numel() for p in full.parameters()) == LOCALIZATION + VGG_CONVOLUTIONS + CLASSIFIER


def test_full_width_shapes(full):
    images = torch.empty((2, 1, 239, 239), device="meta")
    features = full.prefix(images)
    assert features.shape == (2, 64, 239, 239)
    keys = torch.empty(2, dtype=torch.int64, device="meta")
    assert full.vgg.trunk(features, keys, 0.0).shape == (2, 512, 7, 7)
    assert full.vgg.head(torch.empty((2, 512, 7, 7), device="meta"), keys, 0.0).shape == (2, 9)


def test_parameters_are_named_as_in_the_released_checkpoints(full):
    names = {name.removesuffix(".weight") for name, _ in full.named_parameters() if name.endswith("weight")}
    # torchvision's VGG-16 with one Dropout module put before each convolution but the first.
    convolutions = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)
    assert names == {
        "localization.0",
        "localization.3",
        "fc_loc.0",
        "fc_loc.2",
        *(f"vgg.features.{i}" for i in convolutions),
        *(f"vgg.classifier.{i}" for i in (0, 3, 6)),
    }
    assert full.vgg.features[0].weight.shape == (64, 3, 3, 3)
    assert full.vgg.features[40].weight.shape == (512, 512, 3, 3)


def test_dropout_stands_before_every_convolution_but_the_first(full):
    kinds = [type(layer).__name__ for layer in full.vgg.features]
    for i, kind in enumerate(kinds):
        if kind == "Conv2d" and i > 0:
            assert full.vgg.drops[i - 1]
    assert sum(full.vgg.drops) == 12


def test_transformer_crops_about_the_center(make):
    network = make.gampen()
    with torch.no_grad():
        network.fc_loc[2].bias.fill_(0.5)
    # A line of slope 1 through the center comes out with slope s: magnified by 1 / s.
    image = torch.linspace(-1, 1, 48).repeat(48, 1)[None, None]
    x = torch.sinh(image)
    sampled = {}
    network.vgg.first = lambda value: sampled.setdefault("x", value)
    network.prefix(x)
    torch.testing.assert_close(sampled["x"], 0.5 * image, atol=1e-5, rtol=0)
    assert network.crop(x).tolist() == pytest.approx([0.5])


def test_starts_as_the_identity(make):
    torch.testing.assert_close(make.gampen().crop(torch.rand(3, 1, 48, 48)), torch.ones(3))


def test_passes_are_prefix_and_sample(make):
    network = make.gampen().eval()
    images, keys = torch.rand(3, 1, 48, 48), torch.tensor([5, 6, 7])
    torch.testing.assert_close(network(images, keys), network.sample(network.prefix(images), keys))


def test_bands_are_repeated_to_three_channels():
    torch.manual_seed(0)
    network = Gampen(48, 9, width=1 / 16, in_channels=3)
    assert network.stretch(torch.full((1, 1, 2, 2), 3.0)).tolist() == [
        [[[pytest.approx(1.8184464)] * 2] * 2] * 3
    ]


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_halving_pool_is_max_pool(size):
    x = torch.rand(2, 3, *size)
    assert torch.equal(HalvingPool().eval()(x), functional.max_pool2d(x, 2, 2))
    assert torch.equal(HalvingPool().train()(x), functional.max_pool2d(x, 2, 2))
