import pytest
import torch
from torch.nn import functional

from galbatch.models.networks import Gampen, HalvingPool

# Table 3 of the paper, weights and biases layer by layer, counted by hand.
FIRST_LOCALIZATION = {1: 64 * 1 * 121 + 64, 3: 64 * 3 * 121 + 64}
SECOND_LOCALIZATION = 96 * 64 * 81 + 96
# Without padding 239 px become 229, 114, 106, 52; 143 become 133, 66, 58, 28; 96 become 86, 42, 34, 16.
LOCALIZED_PX = {239: 52, 143: 28, 96: 16}
FIRST_CONVOLUTION = {1: 64 * 1 * 9 + 64, 3: 64 * 3 * 9 + 64}
OTHER_CONVOLUTIONS = 14_714_688 - 1_792  # torchvision's vgg16.features has 14,714,688, its first layer 1,792
CLASSIFIER = (25088 * 4096 + 4096) + (4096 * 4096 + 4096)
# torchvision's VGG-16 with one Dropout module put before each convolution but the first.
CONVOLUTIONS = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)


def on_no_device(*args, **kwargs):
    """A network with shapes and without numbers: a full one has 143 million."""
    with torch.device("meta"):
        return Gampen(*args, **kwargs)


@pytest.fixture(scope="module")
def full():
    return on_no_device(239, 9)


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("size_px", [239, 143, 96])
def test_full_width_has_the_papers_parameters(size_px, in_channels):
    network = on_no_device(size_px, 9, in_channels=in_channels)
    transformer = (
        FIRST_LOCALIZATION[in_channels]
        + SECOND_LOCALIZATION
        + (96 * LOCALIZED_PX[size_px] ** 2 * 32 + 32)
        + (32 + 1)
    )
    vgg = FIRST_CONVOLUTION[in_channels] + OTHER_CONVOLUTIONS + CLASSIFIER + (4096 * 9 + 9)
    assert sum(p.numel() for p in network.parameters()) == transformer + vgg


def test_the_released_network_for_239_px_has_143_million_parameters(full):
    assert sum(p.numel() for p in full.parameters()) == 143_125_226


@pytest.mark.parametrize(
    ("n_out", "head"), [(9, "gaussian, 3"), (14, "gaussian, 4"), (20, "bins"), (1, "point")]
)
@pytest.mark.parametrize("in_channels", [1, 3])
def test_any_head_and_one_or_three_channels(n_out, head, in_channels):
    network = Gampen(40, n_out, width=1 / 32, in_channels=in_channels).eval()
    for n_bands in {1, in_channels}:
        features = network.prefix(torch.rand(2, n_bands, 40, 40))
        assert features.shape == (2, 2, 40, 40)
        assert network.sample(features, torch.arange(2)).shape == (2, n_out), head


def test_three_bands_are_three_channels():
    torch.manual_seed(0)
    network = Gampen(40, 9, width=1 / 32, in_channels=3).eval()
    band = torch.rand(2, 1, 40, 40)
    keys = torch.arange(2)
    repeated = network(band.repeat(1, 3, 1, 1), keys)
    torch.testing.assert_close(network(band, keys), repeated, rtol=0, atol=0)
    other = torch.cat([band, band, 2 * band], dim=1)
    assert not torch.allclose(network(other, keys), repeated)


def test_cutouts_too_small_for_the_transformer_are_refused():
    assert Gampen(33, 9, width=1 / 32).prefix(torch.rand(1, 1, 33, 33)).shape == (1, 2, 33, 33)
    with pytest.raises(ValueError, match="33 px or more, found 32"):
        Gampen(32, 9, width=1 / 32)


def multiply_adds(network, size_px):
    """Of one pass: in the prefix, and in all."""
    counted = []

    def count(module, inputs, output):
        per_output = module.weight[0].numel()
        counted.append(output.numel() * per_output)

    layers = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    for layer in layers:
        layer.register_forward_hook(count)
    features = network.prefix(torch.empty((1, 1, size_px, size_px), device="meta"))
    prefix = sum(counted)
    network.sample(features, torch.empty(1, dtype=torch.int64, device="meta"))
    return prefix, sum(counted)


@pytest.mark.parametrize(
    ("size_px", "in_channels", "total_gmac", "share"),
    [(239, 1, 22.9, 0.263), (239, 3, 23.8, 0.291), (143, 3, 8.1, 0.263), (96, 3, 3.7, 0.207)],
)
def test_share_of_a_pass_that_is_deterministic(size_px, in_channels, total_gmac, share):
    network = on_no_device(size_px, 9, in_channels=in_channels, dropout_rate=0.0)
    prefix, total = multiply_adds(network, size_px)
    first_px = size_px - 10
    second_px = (first_px - 3) // 2 + 1 - 8
    convolutions = 64 * in_channels * 121 * first_px**2 + 96 * 64 * 81 * second_px**2
    connected = 96 * LOCALIZED_PX[size_px] ** 2 * 32 + 32
    assert prefix == convolutions + connected + 64 * in_channels * 9 * size_px**2
    assert total / 1e9 == pytest.approx(total_gmac, abs=0.05)
    assert prefix / total == pytest.approx(share, abs=0.001)


def test_full_width_shapes(full):
    images = torch.empty((2, 1, 239, 239), device="meta")
    features = full.prefix(images)
    assert features.shape == (2, 64, 239, 239)
    keys = torch.empty(2, dtype=torch.int64, device="meta")
    assert full.vgg.trunk(features, keys, 0.0).shape == (2, 512, 7, 7)
    assert full.vgg.head(full.vgg.pooled(torch.empty((2, 512, 7, 7), device="meta")), keys, 0.0).shape == (
        2,
        9,
    )


def test_parameters_are_named_as_in_the_released_checkpoints(full):
    names = {name.removesuffix(".weight") for name, _ in full.named_parameters() if name.endswith("weight")}
    assert names == {
        "localization.0",
        "localization.3",
        "fc_loc.0",
        "fc_loc.2",
        *(f"vgg.features.{i}" for i in CONVOLUTIONS),
        *(f"vgg.classifier.{i}" for i in (0, 3, 6)),
    }
    assert full.vgg.features[0].weight.shape == (64, 3, 3, 3)
    assert full.vgg.features[40].weight.shape == (512, 512, 3, 3)


def test_layers_stand_in_the_order_of_table_3(full):
    def kinds(layers):
        short = {
            "Conv2d": "C",
            "ReLU": "R",
            "Identity": "D",
            "HalvingPool": "M",
            "MaxPool2d": "P",
            "Linear": "L",
        }
        return "".join(short[type(layer).__name__] for layer in layers)

    assert kinds(full.localization) == "CPRCPR"
    assert kinds(full.fc_loc) == "LRL"
    # D: dropout, before every convolution but the first and twice in the classifier.
    two, three = "DCRDCRM", "DCRDCRDCRM"
    assert kinds(full.vgg.features) == two[1:] + two + 3 * three
    assert kinds(full.vgg.classifier) == "LRDLRDL"
    assert [i for i, drop in enumerate(full.vgg.drops) if drop] == [i - 1 for i in CONVOLUTIONS[1:]]
    assert [layer.out_channels for layer in full.vgg.features if hasattr(layer, "out_channels")] == [
        *(64, 64, 128, 128, 256, 256, 256),
        *(512,) * 6,
    ]


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
    assert network.intensity_stretch(torch.full((1, 1, 2, 2), 3.0)).tolist() == [
        [[[pytest.approx(1.8184464)] * 2] * 2] * 3
    ]


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_halving_pool_is_max_pool(size):
    x = torch.rand(2, 3, *size)
    assert torch.equal(HalvingPool().eval()(x), functional.max_pool2d(x, 2, 2))
    assert torch.equal(HalvingPool().train()(x), functional.max_pool2d(x, 2, 2))
