"""What is computed once for each object: what the script's methods compute, but for rounding, in less time."""

import pytest
import torch

from galbatch.models import Bundle, bundle_path, load_bundle, script_of
from galbatch.models.engines import native_executor
from galbatch.models.engines.prefix import arsinh_stem, choose_prefix, cropped_once, script_prefix
from galbatch.models.networks import AsTheyAre, Gampen, Sfnet

CPU = torch.device("cpu")


class Doubled(Gampen):
    """A version whose intensity stretch is another one."""

    def intensity_stretch(self, images: torch.Tensor) -> torch.Tensor:
        return torch.arcsinh(2.0 * images).expand(-1, self.in_channels, -1, -1)


@pytest.mark.parametrize(
    ("name", "faster"),
    [("demo:gampen", cropped_once), ("demo:gampen_survey", cropped_once), ("demo:sfnet", arsinh_stem)],
)
def test_shipped_networks_begin_faster_with_the_numbers_of_their_scripts(name, faster):
    """Of pixels from a hundredth of the sky's noise to the cores of bright galaxies."""
    bundle = load_bundle(bundle_path(name))
    assert choose_prefix(bundle, CPU) is faster
    generator = torch.Generator().manual_seed(2)
    shape = (5, len(bundle.bands), 96, 96)
    images = torch.randn(shape, generator=generator) * 10.0 ** (
        6.0 * torch.rand(shape, generator=generator) - 2.0
    )
    with torch.inference_mode():
        (features, crop), (expected, own_crop) = (
            faster(bundle, images, None),
            script_prefix(bundle, images, None),
        )
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert (crop is None) == (own_crop is None)
    if crop is not None:
        torch.testing.assert_close(crop, own_crop, rtol=1e-5, atol=1e-6)


def tiny(make, kind, *, in_channels=3):
    torch.manual_seed(3)
    metadata = make.gampen_metadata()
    network = kind(48, 9, width=1 / 16, in_channels=in_channels, dropout_rate=metadata.dropout_rate)
    return Bundle(metadata, "0" * 64, script_of(network))


@pytest.mark.parametrize("in_channels", [1, 3])
def test_a_new_gampen_crops_once(in_channels, make):
    assert choose_prefix(tiny(make, Gampen, in_channels=in_channels), CPU) is cropped_once


def test_a_script_that_computes_another_prefix_keeps_its_own(make):
    """The engine takes the network all the same: its passes follow from the script's own features."""
    bundle = tiny(make, Doubled)
    assert choose_prefix(bundle, CPU) is script_prefix
    assert native_executor(bundle, "float32").prefix is script_prefix


def test_an_sfnet_of_another_stretch_keeps_its_own():
    sfnet = load_bundle(bundle_path("demo:sfnet"))
    torch.manual_seed(3)
    network = Sfnet(len(sfnet.bands), 3, width=1 / 16, intensity_stretch=AsTheyAre())
    assert choose_prefix(Bundle(sfnet.metadata, "0" * 64, script_of(network)), CPU) is script_prefix


def test_networks_without_these_parts_keep_their_own(make):
    sfnet = load_bundle(bundle_path("demo:sfnet"))
    renamed = Bundle(make.gampen_metadata(), "0" * 64, sfnet.script)
    with pytest.raises(AttributeError):
        cropped_once(renamed, torch.zeros(1, 1, 48, 48), None)
