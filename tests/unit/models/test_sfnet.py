import pytest
import torch

from galbatch.models.sfnet import Sfnet


def test_full_width_has_resnet18s_parameters():
    with torch.device("meta"):
        network = Sfnet(3, 4, k=4)
    # torchvision's resnet18 without its fc has 11,176,512; here fc gives 4 outputs.
    assert sum(p.numel() for p in network.parameters()) == 11_176_512 + 512 * 4 + 4
    names = dict(network.named_parameters())
    assert names["resnet.layer2.0.downsample.0.weight"].shape == (128, 64, 1, 1)
    assert names["resnet.layer4.1.conv2.weight"].shape == (512, 512, 3, 3)
    assert "resnet.layer1.0.downsample.0.weight" not in names
    images = torch.empty((2, 3, 144, 144), device="meta")
    assert network.prefix(images).shape == (2, 64, 36, 36)
    assert network.last_features(network.prefix(images)).shape == (2, 512)


def test_prediction_is_linear_in_the_k_largest_features(make):
    network = make.sfnet(dropout_rate=0.0).eval()
    features = network.prefix(torch.rand(3, 2, 48, 48))
    index, activation = network.top_features(network.last_features(features))
    assert index.shape == (3, 4)
    weight = network.resnet.fc.weight[:, index]  # (output, object, rank)
    expected = (weight * activation).sum(-1).T + network.resnet.fc.bias
    torch.testing.assert_close(network.sample(features, torch.arange(3)), expected)


def test_fewer_features_than_k_leave_gaps(make):
    last = torch.zeros(1, 64)
    last[0, 5], last[0, 9] = 2.0, 3.0
    index, activation = make.sfnet().top_features(last)
    assert index.tolist() == [[9, 5, -1, -1]]
    assert activation[0, :2].tolist() == [3.0, 2.0]
    assert activation[0, 2:].isnan().all()


@pytest.mark.parametrize(("rate", "differ"), [(0.0, False), (0.05, True)])
def test_keys_change_the_output_only_with_dropout(make, rate, differ):
    network = make.sfnet(dropout_rate=rate).eval()
    features = network.prefix(torch.rand(1, 2, 48, 48)).repeat(2, 1, 1, 1)
    first, second = network.sample(features, torch.tensor([1, 2]))
    assert torch.allclose(first, second, atol=1e-6) != differ
