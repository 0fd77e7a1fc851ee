"""Engines on a GPU against the script on the CPU: the same masks, outputs to each engine's tolerance."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from galbatch import simulation  # noqa: E402
from galbatch.core.types import njy_per_unit  # noqa: E402
from galbatch.models import (  # noqa: E402
    RECIPES,
    Bundle,
    Engine,
    Session,
    bundle_path,
    executor,
    load_bundle,
    script_of,
    train,
)
from galbatch.models.heads import read_passes  # noqa: E402
from galbatch.models.inference import Sampler, run_passes  # noqa: E402
from galbatch.models.networks import MaskPlan, draw_keys  # noqa: E402
from galbatch.models.posterior import quantities_of, summarize_mixture, to_output  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]

N_GALAXIES, N_PASSES = 24, 64
LEVELS = np.array([0.02275, 0.15865, 0.5, 0.84135, 0.97725])
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.3, "float16": 0.05}  # of outputs, which are of order 1
KINDS = [
    "torchscript-float32",
    *(f"{kind}-{precision}" for kind in ("rebuilt", "compiled") for precision in TOLERANCE),
]


def inputs(bundle):
    truth = simulation.draw_population(N_GALAXIES, bands=bundle.bands, seed=9)
    images = simulation.draw_stamps(
        truth, bands=bundle.bands, size_px=bundle.grid.size_px, seed=9, processes=1
    )
    keys = draw_keys(np.arange(N_GALAXIES), seed=1, bundle_sha256=bundle.sha256, passes=range(N_PASSES))
    return images / np.float32(njy_per_unit(bundle.metadata.input.zero_point_mag)), keys


@pytest.fixture(scope="module")
def wide_bundle():
    """A GaMPEN of the paper's width, trained for a few epochs: its posteriors are as wide as such a training leaves them."""
    settings = dataclasses.replace(RECIPES["gampen"].settings, width=1.0, dropout_rate=4e-4, epochs=4)
    truth = simulation.draw_population(6000, bands=settings.bands, seed=3)
    images = simulation.draw_stamps(truth, bands=settings.bands, size_px=96, seed=3)
    labels = np.stack([truth.column(p.name).to_numpy() for p in settings.parameters], axis=1)
    trained = train(images, labels, settings=settings, session=Session("cuda"))
    return Bundle(trained.metadata, "5" * 64, script_of(trained.network))


def on_gpu(bundle, engine, images, keys, *, batch=256):
    made = executor(bundle, Engine.named(engine), "cuda")
    return run_passes(bundle, images, keys, batch=batch, executor=made)


def test_masks_of_all_layers_are_the_same_on_the_gpu():
    keys = torch.from_numpy(np.random.default_rng(1).integers(-(2**62), 2**62, 500))
    layers = [(2, 50_000), (5, 700), (102, 30)]
    for rate in (2e-4, 7e-4, 0.05):
        here, there = (
            MaskPlan(layers, rate, torch.device(device)).draw(keys.to(device)) for device in ("cpu", "cuda")
        )
        assert torch.equal(here.positions, there.positions.cpu())
        assert torch.equal(here.any_zeroed, there.any_zeroed.cpu())


@pytest.mark.parametrize("name", ["demo:gampen", "demo:sfnet"])
@pytest.mark.parametrize("engine", KINDS)
def test_passes_agree_with_the_cpu(name, engine):
    bundle = load_bundle(bundle_path(name))
    images, keys = inputs(bundle)
    here, there = run_passes(bundle, images, keys, batch=256), on_gpu(bundle, engine, images, keys)
    differ = np.abs(there.outputs - here.outputs).max(axis=2)
    # Where two features are as large, rounding decides which is among the top k.
    share = 0.0 if engine.endswith("float32") and name == "demo:gampen" else 0.02
    assert (differ > TOLERANCE[engine.partition("-")[2]]).mean() <= share
    if name == "demo:gampen" and not engine.endswith("float32"):
        # Rounded as its passes are; SFNet's are not, as the largest of them are chosen.
        rounding = {"bfloat16": 2**-8, "float16": 2**-11}[engine.partition("-")[2]]
        assert np.linalg.norm(there.last - here.last) < 5 * rounding * np.linalg.norm(here.last)
    else:
        np.testing.assert_allclose(there.last, here.last, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_bundles_on_the_gpu_are_not_those_of_the_cpu(precision):
    """The script that others use stays where it is."""
    bundle = load_bundle(bundle_path("demo:gampen"))
    executor(bundle, Engine("rebuilt", precision), "cuda")
    assert all(value.device.type == "cpu" for value in bundle.script.state_dict().values())


@pytest.mark.parametrize("engine", KINDS)
def test_equal_batches_give_equal_bits(engine):
    bundle = load_bundle(bundle_path("demo:gampen"))
    images, keys = inputs(bundle)
    first, second = (on_gpu(bundle, engine, images, keys, batch=100) for _ in range(2))
    assert np.array_equal(first.outputs, second.outputs)


@pytest.mark.parametrize("engine", ["rebuilt-float32", "compiled-float32"])
def test_rounds_of_some_objects_are_those_of_all(engine):
    bundle = load_bundle(bundle_path("demo:gampen"))
    images, keys = inputs(bundle)
    whole = on_gpu(bundle, engine, images[:16], keys[:16])
    sampler = Sampler(executor(bundle, Engine.named(engine), "cuda"), images[:16], batch=256)
    part = sampler.run(np.array([7, 2]), keys[[7, 2], 16:35])
    np.testing.assert_allclose(part.outputs, whole.outputs[[7, 2], 16:35], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("engine", ["rebuilt-bfloat16", "rebuilt-float16"])
def test_rounding_moves_quantiles_of_a_wide_network_by_less_than_2_percent_of_a_sigma(engine, wide_bundle):
    images, keys = inputs(wide_bundle)
    exact, rounded = (
        read_passes(on_gpu(wide_bundle, one, images, keys).outputs.astype(float), wide_bundle.metadata)
        for one in ("rebuilt-float32", engine)
    )
    for quantity in quantities_of(wide_bundle.metadata.parameters):
        if not quantity.is_magnitude:
            first, second = (
                to_output(summarize_mixture(passes, quantity, LEVELS).quantiles, quantity.parameter)
                for passes in (exact, rounded)
            )
            sigma = 0.5 * (first[:, 3] - first[:, 1])
            error = np.abs(second - first)[:, 1:4] / sigma[:, None]
            assert np.sqrt(np.nanmean(error[sigma > 0] ** 2)) < 0.02, quantity.name


@pytest.mark.parametrize("kind", ["torchscript-float32", "rebuilt-float16"])
def test_switches_are_as_before(kind):
    """TF32 and cuDNN's choice of kernels are the process's, not galbatch's."""
    backends = torch.backends
    before = (backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32, backends.cudnn.deterministic)
    backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32 = True, True
    try:
        bundle = load_bundle(bundle_path("demo:gampen"))
        images, keys = inputs(bundle)
        run_passes(bundle, images, keys, batch=64, executor=executor(bundle, Engine.named(kind), "cuda"))
        assert backends.cudnn.allow_tf32
        assert backends.cuda.matmul.allow_tf32
        assert backends.cudnn.deterministic == before[2]
    finally:
        backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32, backends.cudnn.deterministic = before
