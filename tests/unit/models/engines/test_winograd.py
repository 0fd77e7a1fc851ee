"""Winograd's convolutions against torch's, and the networks that take them."""

import dataclasses

import pytest
import torch
from torch.nn import functional

from galbatch.errors import BundleError
from galbatch.models import wide_gampen
from galbatch.models.engines import native_executor, winograd
from galbatch.models.engines.native import disagreement
from galbatch.models.engines.native_networks import Layer
from galbatch.models.engines.winograd import WinogradConvolution, use_winograd


def layer_and_maps(n_rows=3, n_in=24, n_out=40, y_px=8, x_px=8, seed=1):
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(n_out, n_in, 3, 3, generator=draw) * (2 / (9 * n_in)) ** 0.5
    bias = 0.3 * torch.randn(n_out, generator=draw)
    maps = torch.randn(n_rows, n_in, y_px, x_px, generator=draw)
    return weight, bias, maps.contiguous(memory_format=torch.channels_last)


def direct(maps, weight, bias):
    return functional.conv2d(maps.double(), weight.double(), bias.double(), 1, 1).relu()


@pytest.mark.parametrize(("y_px", "x_px"), [(8, 8), (7, 7), (6, 9), (1, 2), (3, 1)])
def test_it_is_the_convolution_at_even_and_odd_sides(y_px, x_px):
    weight, bias, maps = layer_and_maps(y_px=y_px, x_px=x_px)
    before = maps.clone()
    found = WinogradConvolution(weight)(maps, weight, bias, 1)
    torch.testing.assert_close(found.double(), direct(maps, weight, bias), rtol=0, atol=3e-6)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert (found == 0).any() or min(y_px, x_px) == 1  # the ReLU
    assert torch.equal(maps, before)


def test_it_rounds_no_more_than_torch_does():
    weight, bias, maps = layer_and_maps(n_in=256, n_out=256, y_px=12, x_px=12)
    exact = direct(maps, weight, bias)
    of_torch = functional.conv2d(maps, weight, bias, 1, 1).relu()
    found = WinogradConvolution(weight)(maps, weight, bias, 1)
    assert float((found - exact).abs().max()) <= float((of_torch - exact).abs().max())


def test_the_values_of_a_row_do_not_depend_on_the_others(monkeypatch):
    weight, bias, maps = layer_and_maps(n_rows=7, n_in=256, n_out=32)
    convolution = WinogradConvolution(weight)
    together = convolution(maps, weight, bias, 1)
    for rows in (slice(0, 1), slice(2, 5)):
        assert torch.equal(convolution(maps[rows], weight, bias, 1), together[rows])
    # Two rows at a time: 16 numbers for each of 4 x 4 tiles and 256 channels.
    monkeypatch.setattr(winograd, "TILES_BYTES", 2 * 16 * 16 * 256 * 4)
    assert torch.equal(convolution(maps, weight, bias, 1), together)


def test_layers_with_many_channels_take_it():
    weight, bias, _ = layer_and_maps(n_in=256, n_out=4)
    narrow, small = weight[:, :255], weight[..., :1, :1]
    layers = torch.nn.ModuleList(
        [
            Layer(weight, bias, 1.0),
            Layer(weight, bias, 1.0, stride=2),
            Layer(narrow, bias, 1.0),
            Layer(small, bias, 1.0),
            Layer(weight.bfloat16(), bias.bfloat16(), 1.0),
            Layer(weight[..., 0, 0], bias, 1.0),
        ]
    )
    assert use_winograd(layers) == 1
    assert [layer.fused is not None for layer in layers] == [True, False, False, False, False, False]


@pytest.fixture(scope="module")
def wide():
    return wide_gampen(48, width=0.5)


@pytest.mark.parametrize(("precision", "n_runner", "n_exact"), [("float32", 5, 5), ("bfloat16", 0, 5)])
def test_a_network_of_half_the_papers_width_runs_with_it(wide, precision, n_runner, n_exact):
    executor = native_executor(wide, precision)
    counts = [
        sum(layer.fused is not None for layer in runner.network.modules() if isinstance(layer, Layer))
        for runner in (executor.runner, executor.exact)
    ]
    assert counts == [n_runner, n_exact]
    # 256 to 256 channels five times; 16 numbers a filter.
    assert executor.filters_bytes == 5 * 16 * 256 * 256 * 4
    assert disagreement(executor) is None


def test_a_wrong_transform_is_another_network_than_the_script(wide, monkeypatch):
    monkeypatch.setattr(winograd, "FILTER_ROWS", (*winograd.FILTER_ROWS[:3], (0.0, 0.0, 0.9)))
    with pytest.raises(BundleError, match="another network than its script"):
        native_executor(dataclasses.replace(wide), "float32")
