"""What must not depend on the device: masks to the bit, outputs to float32 rounding."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from galbatch.models import Ensemble, bundle_path, load_bundle  # noqa: E402
from galbatch.models.heads import outputs_per_pass  # noqa: E402
from galbatch.models.inference import RawPasses  # noqa: E402
from galbatch.models.inference.summaries import columns_of  # noqa: E402
from galbatch.models.networks import draw_keys, keyed_dropout  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


def keys_of(n):
    return torch.from_numpy(draw_keys(np.arange(n), seed=1, bundle_sha256="a", passes=[0])[:, 0].copy())


def test_masks_are_the_same_on_the_gpu():
    x, keys = torch.ones(64, 8, 30, 30), keys_of(64)
    for rate in (7e-4, 0.02, 0.2):
        there = keyed_dropout(x.cuda(), keys.cuda(), 3, rate).cpu()
        assert torch.equal(there == 0, keyed_dropout(x, keys, 3, rate) == 0)


@pytest.mark.parametrize("name", ["demo:gampen", "demo:sfnet"])
def test_demo_bundles_agree_with_the_cpu(name, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    script = load_bundle(bundle_path(name)).script
    bands = load_bundle(bundle_path(name)).bands
    images, keys = torch.rand(8, len(bands), 96, 96) * 50, keys_of(8)
    here = script.sample(script.prefix(images), keys)
    there = script.cuda()
    found = there.sample(there.prefix(images.cuda()), keys.cuda()).cpu()
    script.cpu()
    torch.testing.assert_close(found, here, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["demo:gampen", "demo:sfnet"])
def test_columns_summarized_on_the_gpu_are_those_of_the_cpu(name):
    """Of the same outputs, so that only the summaries differ."""
    bundle = load_bundle(bundle_path(name))
    ensemble = Ensemble((bundle,))
    rng = np.random.default_rng(1)
    outputs = rng.normal(0, 0.3, (20, 64, outputs_per_pass(bundle.metadata))).astype(np.float32)
    keys = [np.zeros((20, 64), np.int64)]
    here, there = (
        columns_of(ensemble, [RawPasses(part)], keys, method="mixture", quantiles=(0.16, 0.5, 0.84))
        for part in (outputs, torch.from_numpy(outputs).cuda())
    )
    for key, column in here.items():
        if column.dtype.kind == "f":
            np.testing.assert_allclose(there[key], column, rtol=1e-6, atol=1e-8, err_msg=str(key))
