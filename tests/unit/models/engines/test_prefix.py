"""What is computed once for each object: one run of the localization network, with the bits of the script's methods."""

import pytest
import torch

from galbatch.models import Bundle, bundle_path, load_bundle, script_of
from galbatch.models.engines import native_executor
from galbatch.models.engines.prefix import choose_prefix, cropped_once, script_prefix
from galbatch.models.networks import Gampen

CPU = torch.device("cpu")


class Doubled(Gampen):
    """A version whose intensity stretch is another one."""

    def intensity_stretch(self, images: torch.Tensor) -> torch.Tensor:
        return torch.arcsinh(2.0 * images).expand(-1, self.in_channels, -1, -1)


@pytest.mark.parametrize("name", ["demo:gampen", "demo:gampen_survey"])
def test_shipped_gampens_crop_once_with_the_bits_of_their_scripts(name):
    bundle = load_bundle(bundle_path(name))
    assert choose_prefix(bundle, CPU) is cropped_once
    images = 3.0 * torch.randn(5, 1, 96, 96, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        found, expected = cropped_once(bundle, images, None), script_prefix(bundle, images, None)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


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


def test_networks_without_these_parts_keep_their_own(make):
    sfnet = load_bundle(bundle_path("demo:sfnet"))
    assert choose_prefix(sfnet, CPU) is script_prefix
    renamed = Bundle(make.gampen_metadata(), "0" * 64, sfnet.script)
    with pytest.raises(AttributeError):
        cropped_once(renamed, torch.zeros(1, 1, 48, 48), None)
