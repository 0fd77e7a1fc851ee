import pytest
import torch

from galbatch.models.networks import Sfnet


def on_no_device(*args, **kwargs):
    with torch.device("meta"):
        return Sfnet(*args, **kwargs)


@pytest.mark.parametrize("k", [2, 3, 4, 6, 8, 512])
def test_full_width_has_resnet18s_parameters(k):
    network = on_no_device(3, 4, k=k)
    # torchvision's resnet18 without its fc has 11,176,512; here fc gives 4 outputs.
    assert sum(p.numel() for p in network.parameters()) == 11_176_512 + 512 * 4 + 4
    images = torch.empty((2, 3, 144, 144), device="meta")
    features = network.prefix(images)
    assert features.shape == (2, 64, 36, 36)
    last = network.last_features(features)
    assert last.shape == (2, 512)
    index, activation = network.top_features(last)
    assert index.shape == activation.shape == (2, k)
    assert network.feature_maps(features, index).shape == (2, k, 5, 5)


def test_modules_are_torchvisions_in_its_order():
    network = on_no_device(3, 4, k=4)
    names = dict(network.named_parameters())
    assert names["resnet.layer2.0.downsample.0.weight"].shape == (128, 64, 1, 1)
    assert names["resnet.layer4.1.conv2.weight"].shape == (512, 512, 3, 3)
    assert "resnet.layer1.0.downsample.0.weight" not in names
    order = [name for name, _ in network.resnet.named_children()]
    assert order == [
        *("conv1", "bn1", "relu", "maxpool"),
        *("layer1", "layer2", "layer3", "layer4"),
        *("avgpool", "fc"),
    ]


def test_trunk_is_the_resnet_again():
    network = on_no_device(3, 4, k=4)
    state = network.state_dict()
    assert state["trunk.7.1.bn2.running_var"].shape == (512,)
    trunk = {name for name in state if name.startswith("trunk.")}
    assert len(trunk) == 120  # 20 convolutions, and 20 BatchNorms of five tensors
    assert len([name for name in state if name.startswith("resnet.")]) == 122
    assert list(network.trunk) == list(network.resnet.children())[:-1]
    assert network.trunk[4] is network.resnet.layer1


@pytest.mark.parametrize("k", [0, 65])
def test_k_beyond_the_features_is_refused(k):
    with pytest.raises(ValueError, match=f"between 1 and the 64 features, found {k}"):
        Sfnet(1, 2, k=k, width=1 / 8)


def test_k_of_all_features_is_the_dense_network(make):
    torch.manual_seed(0)
    network = Sfnet(2, 5, k=64, width=1 / 8).eval()
    features = network.prefix(torch.rand(3, 2, 48, 48))
    dense = network.resnet.fc(network.last_features(features))
    torch.testing.assert_close(network.sample(features, torch.arange(3)), dense)


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


def test_which_features_fired_in_a_pass(make):
    network = make.sfnet(dropout_rate=0.3).eval()
    features = network.prefix(torch.rand(1, 2, 48, 48)).repeat(40, 1, 1, 1)
    keys = torch.arange(40)
    outputs, index, activation = network.sample_with_top(features, keys)
    assert torch.equal(outputs, network.sample(features, keys))
    assert len({tuple(row.tolist()) for row in index}) > 5  # other masks, other features
    # The outputs follow from the features that fired and nothing else.
    weight = network.resnet.fc.weight[:, index.clamp(min=0)]
    by_hand = (weight * activation.nan_to_num(0.0)).sum(-1).T + network.resnet.fc.bias
    torch.testing.assert_close(outputs, by_hand)
    without = Sfnet(2, 5, k=4, width=1 / 8, dropout_rate=0.0).eval()
    without.load_state_dict(network.state_dict())
    _, index, activation = without.sample_with_top(features[:1], keys[:1])
    expected = network.top_features(network.last_features(features[:1]))
    assert torch.equal(index, expected[0])
    assert torch.equal(activation, expected[1])


def test_mean_of_a_feature_map_is_the_activation(make):
    network = make.sfnet().eval()
    features = network.prefix(torch.rand(3, 2, 48, 48))
    index, activation = network.top_features(network.last_features(features))
    maps = network.feature_maps(features, index)
    assert maps.shape == (3, 4, 2, 2)
    torch.testing.assert_close(maps.mean(dim=(2, 3)), activation)
    index[1, 2] = -1
    assert network.feature_maps(features, index)[1, 2].isnan().all()
