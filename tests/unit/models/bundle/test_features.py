import dataclasses

import numpy as np
import pytest
import torch

from galbatch.config import PosteriorConfig
from galbatch.core.types import njy_per_unit
from galbatch.errors import BundleError
from galbatch.models import BlockInputs, Bundle, infer_block, localize
from galbatch.models.networks import Sfnet, draw_keys

SIZE_PX = 144


def see_through():
    """An SFNet of 8 features that hands the arsinh of the image on: feature 3 the first band, feature 5 the second."""
    network = Sfnet(2, 2, k=3, width=1 / 64).eval()
    network.resnet.conv1 = torch.nn.Conv2d(2, 8, 7, stride=2, padding=3, bias=False)
    network.resnet.bn1 = torch.nn.BatchNorm2d(8)
    for number in (1, 2, 3, 4):
        stride = 1 if number == 1 else 2
        for i in (0, 1):
            block = getattr(network.resnet, f"layer{number}")[i]
            block.conv1 = torch.nn.Conv2d(8, 8, 3, stride=stride if i == 0 else 1, padding=1, bias=False)
            block.conv2 = torch.nn.Conv2d(8, 8, 3, padding=1, bias=False)
            block.bn1, block.bn2 = torch.nn.BatchNorm2d(8), torch.nn.BatchNorm2d(8)
            torch.nn.init.zeros_(block.conv2.weight)
            if stride == 2 and i == 0:
                block.downsample = torch.nn.Sequential(
                    torch.nn.Conv2d(8, 8, 1, stride=2, bias=False), torch.nn.BatchNorm2d(8)
                )
                with torch.no_grad():
                    block.downsample[0].weight.copy_(torch.eye(8)[:, :, None, None])
    with torch.no_grad():
        network.resnet.conv1.weight.zero_()
        network.resnet.conv1.weight[3, 0, 3, 3] = 1.0
        network.resnet.conv1.weight[5, 1, 3, 3] = 1.0
    return network.eval()


@pytest.fixture(scope="module")
def script():
    return torch.jit.script(see_through())


@pytest.fixture
def bundle(make, script):
    metadata = make.sfnet_metadata(n_top_features=3)
    metadata = dataclasses.replace(metadata, input=dataclasses.replace(metadata.input, size_px=SIZE_PX))
    return Bundle(metadata, "0" * 64, script)


def blob(y_px, x_px, peak):
    offset = np.arange(SIZE_PX)
    radius2 = (offset[:, None] - y_px) ** 2 + (offset[None, :] - x_px) ** 2
    return peak * np.exp(-0.5 * radius2 / 10.0**2)


def test_maps_peak_where_the_light_is(bundle):
    bands = [blob(96, 32, 5.0), blob(64, 128, 2.0)]
    found = localize(bundle, (np.stack(bands)[None] * njy_per_unit(27.0)).astype(np.float32))
    assert found.index.tolist() == [[3, 5, -1]]
    assert found.maps.shape == (1, 3, 5, 5)
    # Rank 0 is the brighter blob's feature, in the first band.
    assert found.peak_px().tolist() == [[[96, 32], [64, 128], [-1, -1]]]
    assert found.maps[0, 0, 3, 1] == pytest.approx(np.arcsinh(5.0), rel=0.01)
    np.testing.assert_allclose(found.maps[0, :2].mean(axis=(1, 2)), found.activation[0, :2], rtol=1e-6)
    assert np.isnan(found.activation[0, 2])
    assert np.isnan(found.maps[0, 2]).all()


def test_maps_on_the_images_pixels(bundle):
    bands = [blob(96, 32, 5.0), blob(64, 128, 2.0)]
    images = (np.stack(bands)[None] * njy_per_unit(27.0)).astype(np.float32)
    images[0, :, 0, 0] = np.nan  # counts as 0
    found = localize(bundle, images, index=np.array([[5]]))
    on_image = found.on_image()
    assert on_image.shape == (1, 1, SIZE_PX, SIZE_PX)
    assert np.unravel_index(on_image[0, 0].argmax(), on_image.shape[2:]) == (64, 128)
    # A quarter of the way from one pixel of the map to the next.
    halfway = 0.75 * found.maps[0, 0, 1, 4] + 0.25 * found.maps[0, 0, 2, 4]
    assert on_image[0, 0, 40, 128] == pytest.approx(halfway, rel=1e-5)


def test_bundles_without_maps_say_so(bundle, gampen_bundle):
    with pytest.raises(BundleError, match="tiny-gampen: its script has no method top_features"):
        localize(gampen_bundle, np.zeros((1, 1, 48, 48), np.float32))


def test_frequency_is_the_share_of_passes_in_which_the_catalogs_features_fired(make, sfnet_bundle):
    images, _, _ = make.galaxies(3, 2)
    posterior = PosteriorConfig(passes=64, seed=3)
    values = infer_block(
        sfnet_bundle, BlockInputs(make.block(images), np.ones(3, bool)), name="m", posterior=posterior
    )
    keys = draw_keys(
        np.arange(3, dtype=np.int64) + 40, seed=3, bundle_sha256=sfnet_bundle.sha256, passes=np.arange(64)
    )
    unit = np.float32(1.0 / njy_per_unit(27.0))
    with torch.inference_mode():
        features = sfnet_bundle.prefix(torch.from_numpy(images * unit))
        for i in range(3):
            _, fired, _ = sfnet_bundle.script.sample_with_top(
                features[i : i + 1].repeat(64, 1, 1, 1), torch.from_numpy(keys[i])
            )
            for rank in range(4):
                expected = float((fired == int(values[f"m_feature_{rank}"][i])).any(dim=1).double().mean())
                assert values[f"m_frequency_{rank}"][i] == pytest.approx(expected)
    frequencies = np.stack([values[f"m_frequency_{rank}"] for rank in range(4)])
    assert 0.0 < frequencies.min() < 1.0  # at this rate some pass drops some feature


def test_bundles_that_do_not_tell_what_fired_have_no_frequency(make, sfnet_bundle):
    class Older:
        """The methods of bundles made before."""

        def __init__(self, script):
            for method in ("prefix", "sample", "last_features", "top_features"):
                setattr(self, method, getattr(script, method))

    older = dataclasses.replace(sfnet_bundle, script=Older(sfnet_bundle.script))
    images, _, _ = make.galaxies(2, 2)
    arguments = {"name": "m", "posterior": PosteriorConfig(passes=8)}
    inputs = BlockInputs(make.block(images), np.ones(2, bool))
    new = infer_block(sfnet_bundle, inputs, **arguments)
    old = infer_block(older, inputs, **arguments)
    assert np.isnan(old["m_frequency_0"]).all()
    np.testing.assert_array_equal(old["m_feature_0"], new["m_feature_0"])
    np.testing.assert_array_equal(old["m_color_gr_mag_q500"], new["m_color_gr_mag_q500"])
