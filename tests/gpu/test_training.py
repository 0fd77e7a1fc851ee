"""A training on the GPU learns what one on the CPU does: same order, same masks, sums rounded otherwise."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from galbatch.models import RECIPES, ParameterInfo, Session, train  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


@pytest.mark.parametrize("name", ["gampen", "sfnet"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_losses_are_those_of_the_cpu(name, precision):
    rng = np.random.default_rng(1)
    recipe = RECIPES[name].settings
    flux = 10.0 ** rng.uniform(4, 5.5, 600)
    images = rng.normal(0, 2, (600, len(recipe.bands), 48, 48)).astype(np.float32)
    images[:, :, 22:27, 22:27] += (flux / 25)[:, None, None, None].astype(np.float32)
    settings = dataclasses.replace(
        recipe,
        parameters=(ParameterInfo("flux_njy", "nJy", "total flux", "ln"),),
        epochs=2,
        precision=precision,
    )
    here, there = (
        train(images, flux[:, None], settings=settings, session=Session(device)) for device in ("cpu", "cuda")
    )
    assert all(parameter.device.type == "cpu" for parameter in there.network.parameters())
    losses = [[epoch.validation_loss for epoch in trained.history] for trained in (here, there)]
    np.testing.assert_allclose(losses[1], losses[0], atol=0.02 if precision == "float32" else 0.1)
