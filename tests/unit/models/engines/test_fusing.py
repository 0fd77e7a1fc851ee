"""Fused convolutions are taken where a comparison at loading allows them; stand-ins play cuDNN, as no GPU is needed here."""

import pytest
import torch
from torch.nn import functional

from galbatch.models import bundle_path, load_bundle
from galbatch.models.engines import native as native_module
from galbatch.models.engines import native_executor
from galbatch.models.engines.fusing import fuse_convolutions
from galbatch.models.engines.native_networks import Layer


def exact(x, weight, bias, stride):
    return functional.conv2d(x, weight, bias, stride, weight.shape[-1] // 2).relu_()


def rounded(x, weight, bias, stride):
    """Less than a rounding of float16 off, and thousands of float32's."""
    return 1.0003 * exact(x, weight, bias, stride)


def without_bias(x, weight, bias, stride):
    return exact(x, weight, torch.zeros_like(bias), stride)


def unavailable(x, weight, bias, stride):
    raise RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED")


def with_fused(name, fused, monkeypatch):
    """Return whether the executor of a shipped bundle runs fused, and the executor."""
    executor = native_executor(load_bundle(bundle_path(name)), "float32")
    monkeypatch.setattr(
        native_module, "fuse_convolutions", lambda network, first: fuse_convolutions(network, first, fused)
    )
    return executor.fuse(), executor


def outputs(executor, size_px, n_bands):
    images = torch.randn(2, n_bands, size_px, size_px, generator=torch.Generator().manual_seed(1))
    rows = torch.arange(6) % 2
    with torch.inference_mode():
        return executor.prepare(images, None).passes(rows, 0x5851F42D4C957F2D * torch.arange(6))[0]


@pytest.mark.parametrize(("name", "n_bands", "n_fused"), [("demo:gampen", 1, 12), ("demo:sfnet", 2, None)])
def test_a_kernel_that_gives_the_same_is_taken(name, n_bands, n_fused, monkeypatch):
    runs = []

    def counted(*arguments):
        runs.append(1)
        return exact(*arguments)

    plain = outputs(native_executor(load_bundle(bundle_path(name)), "float32"), 96, n_bands)
    is_fused, executor = with_fused(name, counted, monkeypatch)
    assert is_fused
    if n_fused is not None:
        assert len(runs) == n_fused  # every convolution but the first, which is before the dropout
    runs.clear()
    torch.testing.assert_close(outputs(executor, 96, n_bands), plain, rtol=0, atol=0)
    assert runs


@pytest.mark.parametrize("fused", [rounded, without_bias, unavailable])
def test_others_are_not_and_leave_the_network_as_it_was(fused, monkeypatch):
    plain = outputs(native_executor(load_bundle(bundle_path("demo:gampen")), "float32"), 96, 1)
    is_fused, executor = with_fused("demo:gampen", fused, monkeypatch)
    assert not is_fused
    assert all(layer.fused is None for layer in executor.runner.network.modules() if isinstance(layer, Layer))
    torch.testing.assert_close(outputs(executor, 96, 1), plain, rtol=0, atol=0)


def test_lack_of_memory_is_no_reason_to_run_unfused(monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        with_fused("demo:gampen", full, monkeypatch)


def test_nothing_is_fused_on_a_cpu():
    network = native_executor(load_bundle(bundle_path("demo:gampen")), "float32").runner.network
    assert all(layer.fused is None for layer in network.modules() if isinstance(layer, Layer))
