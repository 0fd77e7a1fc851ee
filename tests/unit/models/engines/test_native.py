"""Rebuilt networks against the scripts they are rebuilt from."""

import dataclasses
import math
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from galbatch.errors import BundleError
from galbatch.models import AuxiliaryInput, Bundle, bundle_path, load_bundle, script_of
from galbatch.models.bundle import made_up_images, made_up_inputs
from galbatch.models.engines import native_executor
from galbatch.models.engines.native import StaticTrunk
from galbatch.models.engines.native_networks import spread_over_pool, subtract_zeroed_, zeroed_values
from galbatch.models.inference import run_passes
from galbatch.models.networks import Gampen, MaskPlan, Sfnet, keyed_dropout, zero_
from galbatch.models.networks.dropout import zeroed_positions

CPU = torch.device("cpu")
LAYERS = [(2, 5000), (7, 130), (102, 16), (105, 3)]


def keys_of(n):
    return torch.from_numpy(np.random.default_rng(7).integers(-(2**62), 2**62, n))


def bundle_of(network, metadata):
    return Bundle(metadata, "0" * 64, script_of(network))


def gampen_of(make, *, size_px=48, width=1 / 16, channels=1, rate=0.02, n_auxiliary=0):
    torch.manual_seed(3)
    network = Gampen(
        size_px, 9, width=width, in_channels=channels, dropout_rate=rate, n_auxiliary=n_auxiliary
    )
    nn.init.normal_(network.vgg.classifier[6].weight, std=0.05)
    for name, parameter in network.named_parameters():
        if name.endswith("bias") and "loc" not in name:
            nn.init.normal_(parameter, std=0.05)
    return bundle_of(network, changed(make.gampen_metadata(), size_px, rate, n_auxiliary))


def sfnet_of(make, *, size_px=48, width=1 / 8, k=4, rate=0.02, n_auxiliary=0):
    torch.manual_seed(4)
    network = Sfnet(2, 5, k=k, width=width, dropout_rate=rate, n_auxiliary=n_auxiliary)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2.0),
                (module.weight, 0.5, 1.5),
                (module.bias, -0.2, 0.2),
            ):
                nn.init.uniform_(tensor, low, high)
    return bundle_of(network, changed(make.sfnet_metadata(n_top_features=k), size_px, rate, n_auxiliary))


def changed(metadata, size_px, rate, n_auxiliary):
    auxiliary = tuple(AuxiliaryInput(f"c{i}") for i in range(n_auxiliary))
    inputs = dataclasses.replace(metadata.input, size_px=size_px, auxiliary_inputs=auxiliary)
    return dataclasses.replace(metadata, input=inputs, dropout_rate=rate)


def both(bundle, executor, *, n_passes=6, batch=7):
    images, others = made_up_inputs(bundle.metadata)
    keys = keys_of(2 * n_passes).numpy().reshape(2, n_passes)
    auxiliary = None if others is None else others.numpy()
    return [
        run_passes(bundle, images.numpy(), keys, batch=batch, auxiliary=auxiliary, executor=one)
        for one in (None, executor)
    ]


def assert_same(expected, found, *, atol=2e-5):
    for field in dataclasses.fields(expected):
        first, second = getattr(expected, field.name), getattr(found, field.name)
        if first is None:
            assert second is None, field.name
        else:
            np.testing.assert_allclose(second, first, rtol=1e-4, atol=atol, err_msg=field.name)


@pytest.mark.parametrize("rate", [5e-5, 7e-4, 0.02, 0.3])
def test_masks_drawn_together_are_those_of_each_layer(rate):
    keys = keys_of(300)
    plan = MaskPlan(LAYERS, rate, CPU)
    masks = plan.draw(keys)
    assert plan.slots[-1].stop == masks.positions.shape[1]
    for i, (number, n) in enumerate(LAYERS):
        positions, any_zeroed = zeroed_positions(keys, number, n, rate)
        assert torch.equal(masks.any_zeroed[:, i], any_zeroed)
        # Rows without a zero write nothing, wherever their slots point.
        assert torch.equal(masks.positions[:, plan.slots[i]][any_zeroed], positions[any_zeroed])


@pytest.mark.parametrize("shape", [(40, 6, 9, 9), (40, 130)])
def test_zeros_in_place_are_those_of_the_dropout(shape):
    keys, rate = keys_of(shape[0]), 0.01
    x = torch.randn(shape)
    x = x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
    masks = MaskPlan([(3, math.prod(shape[1:]))], rate, CPU).draw(keys)
    zeroed = x.clone()
    zero_(zeroed, masks.positions, masks.any_zeroed[:, 0])
    torch.testing.assert_close(zeroed / (1 - rate), keyed_dropout(x, keys, 3, rate))
    assert (zeroed == 0).sum() > 0


@pytest.mark.parametrize("rate", [0.002, 0.2])
def test_a_convolution_corrected_for_zeros_is_that_of_the_zeroed_maps(rate):
    """Also at the edges, and where a position is drawn twice."""
    torch.manual_seed(0)
    weight = torch.randn(5, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    maps = torch.randn(3, 4, 7, 9).contiguous(memory_format=torch.channels_last)
    rows, keys = torch.arange(60) % 3, keys_of(60)
    masks = MaskPlan([(1, 4 * 7 * 9)], rate, CPU).draw(keys)
    x = functional.conv2d(maps, weight, padding=1)[rows]
    positions = masks.positions.sort(dim=1).values
    subtract_zeroed_(x, zeroed_values(maps, rows, positions, masks.any_zeroed[:, 0]), positions, weight)
    zeroed = maps[rows]
    zero_(zeroed, masks.positions, masks.any_zeroed[:, 0])
    torch.testing.assert_close(x, functional.conv2d(zeroed, weight, padding=1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", [1, 3, 4, 6])
def test_weights_of_smaller_maps_stand_for_the_average_pool(side):
    torch.manual_seed(0)
    weight, maps, column = torch.randn(6, 5 * 49 + 1), torch.randn(4, 5, side, side), torch.randn(4, 1)
    pooled = torch.flatten(functional.adaptive_avg_pool2d(maps, 7), 1)
    expected = torch.cat([pooled, column], 1) @ weight.T
    smaller = spread_over_pool(weight, 5, side)
    assert smaller.shape == (6, 5 * side**2 + 1)
    found = torch.cat([torch.flatten(maps, 1), column], 1) @ smaller.T
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


GAMPENS = {
    "one channel": {},
    "three channels": {"channels": 3},
    "columns": {"n_auxiliary": 2},
    "narrow": {"width": 1 / 32},
    "wider": {"width": 1 / 8},
    "odd side": {"size_px": 67},
    "7 px before the pool": {"size_px": 230, "width": 1 / 64},
    "rare zeros": {"rate": 1e-4},
    "many zeros": {"rate": 0.3},
    "no dropout": {"rate": 0.0},
}
SFNETS = {
    "as is": {},
    "columns": {"n_auxiliary": 1},
    "dense": {"k": 64},
    "one feature": {"k": 1},
    "wider, odd side": {"width": 1 / 4, "size_px": 61},
    "many zeros": {"rate": 0.3},
    "no dropout": {"rate": 0.0},
}


@pytest.mark.parametrize("name", GAMPENS)
def test_gampen_gives_what_its_script_gives(name, make):
    bundle = gampen_of(make, **GAMPENS[name])
    expected, found = both(bundle, native_executor(bundle, "float32"))
    assert expected.outputs.std() > 0.01
    assert_same(expected, found)


@pytest.mark.parametrize("name", SFNETS)
def test_sfnet_gives_what_its_script_gives(name, make):
    bundle = sfnet_of(make, **SFNETS[name])
    expected, found = both(bundle, native_executor(bundle, "float32"))
    assert expected.outputs.std() > 0.01
    assert_same(expected, found)


def test_the_script_is_left_as_it_was(make):
    bundle = gampen_of(make)
    before = {name: value.clone() for name, value in bundle.script.state_dict().items()}
    both(bundle, native_executor(bundle, "bfloat16"))
    assert all(torch.equal(before[name], value) for name, value in bundle.script.state_dict().items())


def test_bfloat16_is_shifted_to_what_float32_gives():
    """What moves all passes of an object alike is measured on other passes, and less than a third of it is left."""
    bundle = load_bundle(bundle_path("demo:gampen"))
    executor = native_executor(bundle, "bfloat16")
    expected, found = both(bundle, executor, n_passes=40)
    prepare = executor.prepare
    executor.prepare = lambda *inputs: dataclasses.replace(prepare(*inputs), shift=None)
    _, rounded = both(bundle, executor, n_passes=40)
    error, without = (
        np.abs((some.outputs - expected.outputs).mean(axis=1)).max() for some in (found, rounded)
    )
    assert 0 < error < without / 3 < 0.02


def test_bfloat16_without_dropout_is_float32(make):
    """Its one pass is the one that the shift is measured on. The last features are rounded."""
    bundle = gampen_of(make, rate=0.0)
    expected, found = both(bundle, native_executor(bundle, "bfloat16"))
    assert_same(*(dataclasses.replace(one, last=None) for one in (expected, found)))


def test_passes_beyond_the_range_of_float16_are_run_in_float32(make):
    """Hidden units of the first galaxy exceed 65504, those of the second, without light, do not."""
    torch.manual_seed(3)
    network = Gampen(48, 9, width=1 / 16, in_channels=1, dropout_rate=0.02)
    with torch.no_grad():
        nn.init.normal_(network.vgg.classifier[6].weight, std=0.05)
        nn.init.normal_(network.vgg.classifier[3].bias, std=1.0)
        network.vgg.classifier[3].weight *= 3e4
        network.vgg.classifier[6].weight /= 3e4
    bundle = bundle_of(network, make.gampen_metadata())
    images = made_up_images(bundle.metadata).numpy() * np.array([1.0, 0.0], np.float32).reshape(2, 1, 1, 1)
    keys = keys_of(2 * 5).numpy().reshape(2, 5)
    expected, found = (
        run_passes(bundle, images, keys, batch=10, executor=native_executor(bundle, precision)).outputs
        for precision in ("float32", "float16")
    )
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-6)
    assert np.isfinite(found[1]).all()
    assert np.abs(found[1] - expected[1]).max() > 1e-6 * np.abs(expected[1]).max()


def test_networks_it_does_not_know_are_refused(make):
    bundle = gampen_of(make)
    for metadata in (
        dataclasses.replace(bundle.metadata, architecture="sfnet"),
        dataclasses.replace(bundle.metadata, architecture="another"),
    ):
        other = dataclasses.replace(bundle, metadata=metadata)
        with pytest.raises(BundleError, match=r"cannot rebuild this network .*engine = \"torchscript\""):
            native_executor(other, "float32")


class Doubled(Gampen):
    """Weights as GaMPEN's, but it says something else."""

    @torch.jit.export
    def sample(self, features: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        rate = self.dropout_rate
        return 2.0 * self.vgg.head(self.vgg.pooled(self.vgg.trunk(features, keys, rate)), keys, rate) + 1.0


class OtherMasks(Gampen):
    """Its dropout draws from other keys."""

    @torch.jit.export
    def sample(self, features: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        keys, rate = keys + 1, self.dropout_rate
        return self.vgg.head(self.vgg.pooled(self.vgg.trunk(features, keys, rate)), keys, rate)


@pytest.mark.parametrize("kind", [Doubled, OtherMasks])
def test_a_network_that_computes_something_else_is_refused(kind, make):
    torch.manual_seed(3)
    network = kind(48, 9, width=1 / 16, in_channels=1, dropout_rate=0.02)
    nn.init.normal_(network.vgg.classifier[6].weight, std=0.05)
    bundle = bundle_of(network, make.gampen_metadata())
    with pytest.raises(BundleError, match="another network than its script: outputs differ by up to"):
        native_executor(bundle, "float32")


def test_fixed_numbers_of_rows_fit_any_number():
    assert [StaticTrunk.rows_of(n) for n in (1, 3, 4, 15, 16, 63, 64, 250)] == [1, 1, 4, 4, 16, 16, 64, 64]


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.slow
def test_compiled_gives_what_the_script_gives(make):
    """In steps of 4 rows, the last one filled up."""
    bundle = sfnet_of(make, size_px=33, width=1 / 16, k=3)
    executor = native_executor(bundle, "float32", is_compiled=True)
    assert_same(*both(bundle, executor, n_passes=7, batch=4))


def test_threads_take_turns_at_the_buffers_of_a_compiled_trunk(monkeypatch):
    """As those of a worker do that was started with several threads."""

    def slow(x, masks):
        time.sleep(0.02)
        return x + 0.0

    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    trunk = StaticTrunk(SimpleNamespace(trunk=slow))
    given = [torch.full((4, 1, 2, 2), float(number)) for number in range(6)]
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda x: trunk(x, None), given))
    assert all(torch.equal(one, x) for one, x in zip(found, given, strict=True))


def test_a_machine_that_cannot_compile_says_so(make, monkeypatch):
    def fails(*_args, **_options):
        raise RuntimeError("\nno C++ compiler found")

    monkeypatch.setattr(torch, "compile", lambda *_args, **_options: fails)
    with pytest.raises(
        BundleError, match=r'torch.compile fails on this machine: no C.. compiler found.*"rebuilt"'
    ):
        native_executor(gampen_of(make), "float32", is_compiled=True)


def test_made_up_galaxies_differ(make):
    """The check against the script would see nothing on empty images."""
    images = made_up_images(gampen_of(make).metadata)
    assert float(images[0].max()) > 100 > 30 > float(images[1].max()) > 10


def test_last_features_share_the_first_convolution_of_the_passes(make):
    bundle = gampen_of(make, rate=0.3)
    images, _ = made_up_inputs(bundle.metadata)
    with torch.inference_mode():
        expected = bundle.script.last_features(bundle.prefix(images, None))
        prepared = native_executor(bundle, "float32").prepare(images, None)
    assert prepared.start.convolved is not None
    # The bias of the passes is smaller by the factor of the dropout: it counts.
    torch.testing.assert_close(prepared.last, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(("precision", "rounding"), [("bfloat16", 2**-8), ("float16", 2**-11)])
def test_last_features_are_rounded_where_they_give_a_distance_alone(precision, rounding, make):
    gampen, sfnet = gampen_of(make), sfnet_of(make)
    for bundle in (gampen, sfnet):
        inputs = made_up_inputs(bundle.metadata)
        with torch.inference_mode():
            expected, found = (
                native_executor(bundle, one).prepare(*inputs) for one in ("float32", precision)
            )
        error = float((found.last - expected.last).norm() / expected.last.norm())
        if bundle is gampen:
            assert rounding / 10 < error < 5 * rounding
            assert torch.equal(found.crop, expected.crop)
        else:  # The largest of these are chosen.
            assert error == 0


def test_last_features_beyond_the_range_of_float16_are_run_in_float32(make):
    """Those of the first galaxy exceed 65504, those of the second, which is fainter by far, do not."""
    bundle = gampen_of(make)
    images = made_up_images(bundle.metadata) * torch.tensor([1.0, 1e-4]).reshape(2, 1, 1, 1)
    weights = bundle.script.state_dict()
    with torch.inference_mode():
        for name, tensor in weights.items():
            if name.startswith("vgg.features") and name.endswith("bias"):
                tensor.zero_()
        # Without biases the features grow with the last weights and with the light.
        largest = native_executor(bundle, "float32").prepare(images, None).last.amax(dim=1)
        weights["vgg.features.40.weight"].mul_(4 * 65504 / largest[0])
        expected, found = (
            native_executor(bundle, one).prepare(images, None).last for one in ("float32", "float16")
        )
    assert float(expected[0].max()) > 65504 > 10 * float(expected[1].max()) > 0
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-3)
    assert torch.isfinite(found[1]).all()
    assert not torch.equal(found[1], expected[1])
