"""The benchmark of passes: its plain networks are the bundles', and its projection adds up, at toy size on the CPU."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from galbatch import models

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def passes():
    sys.path.insert(0, str(BENCHMARKS))
    import passes

    yield passes
    sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize("name", ["gampen", "sfnet"])
def test_the_plain_network_is_the_bundles(passes, name):
    """Without dropout it gives what the bundle's passes give where nothing is zeroed; with it, something else each time."""
    bundle = models.load_bundle(models.bundle_path(f"demo:{name}"))
    images = torch.from_numpy(passes.galaxies(bundle, 3))
    plain = passes.plain_of(bundle, torch.float32)
    with torch.inference_mode():
        expected = torch.stack(
            [bundle.sample(bundle.prefix(images), torch.full((3,), key)) for key in range(15)]
        ).median(dim=0)
        torch.testing.assert_close(plain.eval()(images), expected.values, rtol=0.02, atol=0.02)
        for module in plain.modules():
            if isinstance(module, torch.nn.Dropout):
                module.train()
                module.p = 0.1
        assert not torch.equal(plain(images), plain(images))


def test_the_engine_that_auto_takes_is_measured_first(passes):
    assert passes.gpu_engines("cuda")[0] == "rebuilt-float16"


def test_a_million_galaxies(passes):
    assert passes.million_hours(10_000, 0.0, 72) == pytest.approx(2.0)
    assert passes.million_hours(10_000, 3.6e-3, 72) == pytest.approx(3.0)


def test_the_gpus_table_at_toy_size(passes, capsys):
    load = passes.Load(galaxies=2, passes=4, batch=8, mean_passes=50, width=1 / 16)
    engines = ("torchscript-float32", "rebuilt-bfloat16")
    found = passes.on_gpu(load, sizes_px=(48,), engines=engines, device="cpu", peak_side=64)
    assert [row.engine for row in found] == list(engines)
    for row in found:
        assert row.hours_for_a_million == pytest.approx(
            (50 / row.passes_per_s + row.once_per_galaxy_s) / 3.6e-3
        )
        assert 0 < row.share_of_peak < np.inf
    assert "passes/s" in capsys.readouterr().out
