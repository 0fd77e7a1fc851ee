import numpy as np
import pytest
import torch

from galbatch.errors import BundleError
from galbatch.models import (
    AuxiliaryInput,
    BundleMetadata,
    HeadInfo,
    InputInfo,
    ParameterInfo,
    load_bundle,
    save_bundle,
    script_of,
)
from galbatch.models.networks import Mlp, prefix_arguments

COLUMNS = tuple(AuxiliaryInput(name) for name in ("color", "mag", "size"))


def metadata_of(**changes):
    settings = {
        "name": "dense",
        "version": "1",
        "architecture": "mlp",
        "input": InputInfo(auxiliary_inputs=COLUMNS),
        "head": HeadInfo("gaussian"),
        "parameters": (ParameterInfo("z", "", "redshift", "identity"),),
        "dropout_rate": 0.2,
    }
    return BundleMetadata(**{**settings, **changes})


def network_of(rate=0.2, hidden=(16, 8)):
    torch.manual_seed(3)
    network = Mlp(3, 2, hidden=hidden, dropout_rate=rate).eval()
    network.auxiliary.mean.copy_(torch.tensor([0.5, 22.0, 1.0]))
    network.auxiliary.std.copy_(torch.tensor([0.2, 1.5, 0.4]))
    return network


def test_without_dropout_it_is_a_chain_of_matrices():
    network = network_of(rate=0.0)
    columns = torch.tensor([[0.4, 21.0, 2.0], [0.9, 24.0, 0.7]])
    x = (columns.numpy() - [0.5, 22.0, 1.0]) / np.array([0.2, 1.5, 0.4])
    for layer in (network.first, network.hidden[0]):
        x = np.maximum(x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy(), 0.0)
    expected = x @ network.fc.weight.detach().numpy().T + network.fc.bias.detach().numpy()
    found = network(columns, torch.zeros(2, dtype=torch.int64)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(network.last_features(network.prefix(columns)).detach().numpy(), x, rtol=1e-5)


def test_dropout_zeroes_units_before_every_layer_but_the_first():
    # With weights of one, all sums count the units that are left.
    network = network_of(rate=0.25, hidden=(400, 300))
    with torch.no_grad():
        for layer in (network.hidden[0], network.fc):
            layer.weight.fill_(1.0)
            layer.bias.zero_()
    features, keys = torch.ones((500, 400)), torch.arange(500)
    with torch.no_grad():
        hidden = network.last(features, keys, 0.25) * 0.75  # each is the number of units left of 400
        assert hidden.mean().item() == pytest.approx(300, abs=3)
        assert hidden.std(dim=0).mean().item() == pytest.approx(np.sqrt(400 * 0.25 * 0.75), rel=0.2)
        outputs = network.sample(features, keys)
    # Of the 300 second units 225 are left, each about 400.
    assert (outputs[:, 0] * 0.75 / 400).mean().item() == pytest.approx(225, abs=3)


@pytest.mark.parametrize(("columns", "hidden"), [(0, (4,)), (3, ())])
def test_no_columns_or_no_layers_are_refused(columns, hidden):
    with pytest.raises(ValueError, match=f"found {columns} and {len(hidden)}"):
        Mlp(columns, 2, hidden=hidden)


def test_its_bundle_takes_no_pixels_and_keeps_its_bits(tmp_path):
    path = str(tmp_path / "dense.pt")
    network = network_of()
    save_bundle(path, script_of(network), metadata_of())
    bundle = load_bundle(path)
    assert (bundle.grid, bundle.bands) == (None, ())
    assert repr(bundle) == "<Bundle dense 1: z from color, mag, size>"
    assert "arcsec in" not in bundle._repr_html_()
    columns, keys = torch.tensor([[0.4, 21.0, 2.0]]), torch.tensor([7])
    found = bundle.sample(bundle.prefix(torch.zeros((1, 0, 0, 0)), columns), keys)
    assert torch.equal(found, network(columns, keys))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": InputInfo()}, "bands with a size and a pixel scale, auxiliary_inputs, or both"),
        ({"input": InputInfo(("g",), 32, 0.168, auxiliary_inputs=COLUMNS)}, "state unit and zero_point_mag"),
        (
            {"input": InputInfo(size_px=32, auxiliary_inputs=COLUMNS)},
            "a size, a pixel scale above 0 and bands",
        ),
        ({"dropout_rate": 0.0}, "dropout_rate 0"),
        ({"input": InputInfo(auxiliary_inputs=COLUMNS[:2])}, r"fails on auxiliary inputs \(2, 2\)"),
    ],
)
def test_metadata_that_do_not_fit_are_refused(tmp_path, changes, message):
    with pytest.raises(BundleError, match=message):
        save_bundle(str(tmp_path / "a.pt"), script_of(network_of()), metadata_of(**changes))


def test_arguments_of_prefix_leave_out_what_is_not_there():
    images, none, columns = torch.zeros((2, 1, 4, 4)), torch.zeros((2, 0, 0, 0)), torch.zeros((2, 3))
    assert [
        len(prefix_arguments(*pair)) for pair in ((images, None), (images, columns), (none, columns))
    ] == [1, 2, 1]
    assert prefix_arguments(none, columns)[0] is columns
