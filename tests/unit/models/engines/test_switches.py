"""No process-wide switch of torch, numpy or Python is left changed by training, inference, making an executor, or a fault in them."""

import contextlib
import sys
import threading
import warnings

import numpy as np
import pytest
import torch

from galbatch import models
from galbatch.config import PosteriorConfig
from galbatch.errors import GalbatchError, UsageError
from galbatch.models.engines import denormals_flushed, repeatable_float32, tf32_allowed
from galbatch.models.training import describing

CUDA = torch.device("cuda")


def state():
    """Every switch that galbatch, or what it calls, could change."""
    backends = torch.backends
    return {
        "TF32 of products": backends.cuda.matmul.allow_tf32,
        "TF32 of convolutions": backends.cudnn.allow_tf32,
        "cuDNN deterministic": backends.cudnn.deterministic,
        "cuDNN benchmark": backends.cudnn.benchmark,
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "precision of products": torch.get_float32_matmul_precision(),
        "denormals are flushed": sys.float_info.min / 2.0 == 0.0,
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")),
        "default dtype": torch.get_default_dtype(),
        "random numbers of torch": torch.get_rng_state().tolist(),
        "random numbers of numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "floating-point errors": np.geterr(),
        # Torch imports sympy when it first needs it, which adds a filter for a warning of its own.
        "warnings": [kept for kept in warnings.filters if not kept[2].__module__.startswith("sympy")],
        "sums of float16": backends.cuda.matmul.allow_fp16_reduced_precision_reduction,
        "sums of bfloat16": backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
        "sums in float16": backends.cuda.matmul.allow_fp16_accumulation,
        "fusers of TorchScript": (
            torch._C._jit_texpr_fuser_enabled(),
            torch._C._jit_can_fuse_on_gpu(),
            torch._C._jit_can_fuse_on_cpu(),
            torch._C._jit_nvfuser_enabled(),
            torch._C._jit_llga_enabled(),
        ),
    }


@contextlib.contextmanager
def set_to(unusual):
    """TF32, benchmarks and the flush of denormals on, or off, whatever galbatch wants them to be."""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.allow_tf32, products.allow_tf32, cudnn.benchmark)
    cudnn.allow_tf32 = products.allow_tf32 = cudnn.benchmark = unusual
    torch.set_flush_denormal(unusual)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        cudnn.allow_tf32, products.allow_tf32, cudnn.benchmark = before


def settings(**changes):
    values = {
        "name": "small",
        "architecture": "sfnet",
        "bands": ("g",),
        "parameters": (models.ParameterInfo("x", "", "", "identity"),),
        "width": 1 / 16,
        "n_top_features": 2,
        "head": "gaussian",
        "dropout_rate": 0.01,
        "epochs": 1,
        "batch": 8,
        "learning_rate": 1e-3,
        **changes,
    }
    return models.TrainingSettings(**values)


def training(**changes):
    rng = np.random.default_rng(1)
    images = rng.normal(size=(64, 1, 32, 32)).astype(np.float32)
    return models.train(
        images, images.mean(axis=(1, 2, 3), dtype=np.float64)[:, None], settings=settings(**changes)
    )


def failing_training():
    with pytest.raises(GalbatchError, match="diverged"):
        training(learning_rate=1e30, optimizer="sgd")


def interrupted_training():
    """The domain of the bundle is described last, under the switches of the training."""

    def fail(*_, **__):
        raise UsageError("no")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(describing, "describe_domain", fail)
        with pytest.raises(UsageError, match="no"):
            training()


def bundle():
    return models.load_bundle(models.bundle_path("demo:sfnet"))


def making_an_executor():
    for kind in ("torchscript", "rebuilt"):
        models.executor(bundle(), models.Engine(kind), "cpu")


def failing_executor():
    with contextlib.suppress(GalbatchError):  # compiled: there may be no compiler
        models.executor(bundle(), models.Engine("compiled"), "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(GalbatchError, match="no CUDA GPU"):
            models.executor(bundle(), models.Engine("rebuilt"), "cuda")


def inference():
    network = bundle()
    models.measure_memory(models.Ensemble((network,)), models.Execution(), PosteriorConfig(passes=4))
    infer(network)


def infer(network, **changes):
    from galbatch.models.inference import run_passes

    size = network.grid.size_px
    images = np.random.default_rng(2).normal(size=(3, len(network.bands), size, size)).astype(np.float32)
    run_passes(network, images, np.arange(6, dtype=np.int64).reshape(3, 2), batch=4, **changes)


def failing_inference():
    from galbatch.models.inference import run_passes

    with pytest.raises(RuntimeError):
        run_passes(bundle(), np.zeros((1, 7, 96, 96), np.float32), np.zeros((1, 2), np.int64), batch=4)


CALLS = [
    training,
    failing_training,
    interrupted_training,
    making_an_executor,
    failing_executor,
    inference,
    failing_inference,
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
@pytest.mark.parametrize("unusual", [False, True], ids=["as torch sets them", "as somebody else sets them"])
def test_every_switch_is_as_before(call, unusual):
    with set_to(unusual):
        before = state()
        call()
        after = state()
    assert {name: value for name, value in after.items() if value != before[name]} == {}


@pytest.fixture
def switched_on():
    with set_to(True):
        yield


def test_inside_they_are_what_they_should_be(switched_on):
    before = state()
    with repeatable_float32(CUDA):
        found = state()
        assert (found["TF32 of products"], found["TF32 of convolutions"]) == (False, False)
        assert found["cuDNN deterministic"]
        assert not any(found[f"sums {how}"] for how in ("of float16", "of bfloat16", "in float16"))
        assert not any(found["fusers of TorchScript"])
    with repeatable_float32(torch.device("cpu")):
        assert state() == before
    torch.set_flush_denormal(False)
    with denormals_flushed():
        assert state()["denormals are flushed"]
    assert not state()["denormals are flushed"]
    torch.set_flush_denormal(True)
    with pytest.raises(KeyError), tf32_allowed(False), repeatable_float32(CUDA):
        raise KeyError
    assert state() == before


def test_the_last_thread_to_leave_restores_them(switched_on):
    """One thread holds them while another comes and goes, and leaves after a third has come."""
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with repeatable_float32(CUDA):
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(10)
    with repeatable_float32(CUDA):
        pass
    assert not torch.backends.cudnn.allow_tf32
    with repeatable_float32(CUDA):
        leave.set()
        thread.join()
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32
