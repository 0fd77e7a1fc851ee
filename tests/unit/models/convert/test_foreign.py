from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from galbatch.config import PosteriorConfig
from galbatch.errors import BundleError, ConfigError
from galbatch.models import BlockInputs, convert_script, infer_block, load_bundle
from galbatch.models.convert import read_description

SIZE_PX = 48

TOML = """
name = "theirs"
dropout_rate = 0.3
licence = "MIT"
[input]
bands = ["g"]
size_px = 48
pixel_scale_arcsec = 0.168
unit = "ADU"
zero_point_mag = 27.0
[head]
kind = "gaussian"
[[parameters]]
name = "redshift"
unit = ""
description = "photometric redshift"
transform = "identity"
location = 0.5
scale = 0.2
[preprocessing]
intensity_stretch = "arsinh"
channels = 3
mean = [0.1, 0.2, 0.3]
std = [1.0, 2.0, 0.5]
"""


class Theirs(nn.Module):
    """A plain network with BatchNorm and dropout, as people script them."""

    def __init__(self, n_out=2, dropout=nn.Dropout):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 5, stride=4), nn.BatchNorm2d(6), nn.ReLU())
        self.drop = dropout(0.3)
        self.head = nn.Linear(6, n_out)

    def forward(self, x):
        return self.head(self.drop(self.features(x).mean(dim=(2, 3))))


@pytest.fixture(scope="module")
def source():
    torch.manual_seed(2)
    network = Theirs()
    nn.init.normal_(network.head.weight)
    network.features[1].running_mean.normal_(0, 0.2)
    network.features[1].running_var.uniform_(0.5, 2)
    return network.eval()


@pytest.fixture
def files(tmp_path, source):
    """Script, description, bundle."""
    script, description = tmp_path / "theirs.pt", tmp_path / "theirs.toml"
    torch.jit.script(source).save(str(script))
    description.write_text(TOML)
    return str(script), str(description), str(tmp_path / "bundle.pt")


def rewritten(path, old, new):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    assert old in text
    with open(path, "w", encoding="utf-8") as file:
        file.write(text.replace(old, new))


def seen(images):
    """What the network gets, by hand."""
    mean = torch.tensor([0.1, 0.2, 0.3]).reshape(3, 1, 1)
    std = torch.tensor([1.0, 2.0, 0.5]).reshape(3, 1, 1)
    return (torch.arcsinh(images).repeat(1, 3, 1, 1) - mean) / std


def test_outputs_are_the_sources_without_dropout(files, source):
    rewritten(files[1], "dropout_rate = 0.3", "dropout_rate = 0.0")
    sha256, _ = convert_script(*files)
    bundle = load_bundle(files[2], sha256=sha256)
    images = torch.randn(3, 1, SIZE_PX, SIZE_PX)
    with torch.inference_mode():
        converted = bundle.sample(bundle.prefix(images), torch.arange(3))
        torch.testing.assert_close(converted, source(seen(images)), rtol=1e-5, atol=1e-5)


def test_dropout_draws_from_the_keys_alone(files, source):
    convert_script(*files)
    bundle = load_bundle(files[2])
    images = torch.randn(1, 1, SIZE_PX, SIZE_PX).repeat(6, 1, 1, 1)
    keys = torch.tensor([3, -(2**63), 3, 2**63 - 1, 0, 8])
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with torch.inference_mode():
        features = bundle.prefix(images)
        rows = bundle.sample(features, keys)
        for _ in range(3):  # TorchScript recompiles what ran twice
            assert torch.equal(rows, bundle.sample(features, keys))
        assert torch.equal(rows[0], rows[2])
        order = torch.tensor([5, 0, 1])
        assert torch.equal(bundle.sample(features[:3], keys[order]), rows[order])
        assert len(torch.unique(rows, dim=0)) >= 4
    # The caller's generator is as it was.
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_hits_with_its_rate_and_batchnorm_stays(files, source):
    convert_script(*files)
    bundle = load_bundle(files[2])
    image = torch.randn(1, 1, SIZE_PX, SIZE_PX)
    with torch.inference_mode():
        rows = bundle.sample(bundle.prefix(image).repeat(500, 1, 1, 1), torch.arange(500))
        pooled = source.features(seen(image)).mean(dim=(2, 3))
        # Each of 6 features is zeroed with 0.3 and the others scaled: mean and variance of the outputs follow.
        expected = source.head(pooled)
        variance = (source.head.weight * pooled).square().sum(dim=1) * 0.3 / 0.7
    error = (variance / 500).sqrt()
    assert ((rows.mean(dim=0) - expected[0]).abs() < 5 * error).all()
    assert rows.var(dim=0).tolist() == pytest.approx(variance.tolist(), rel=0.3)


def test_catalog_columns_of_a_foreign_network(files, make):
    convert_script(*files)
    bundle = load_bundle(files[2])
    images, _, _ = make.galaxies(3, 1)
    posterior = PosteriorConfig(passes=16, batch=8)
    chosen = np.ones(3, bool)
    values = infer_block(bundle, BlockInputs(make.block(images), chosen), name="z", posterior=posterior)
    assert np.isfinite(values["z_redshift_q500"]).all()
    other = PosteriorConfig(passes=16, batch=48)
    again = infer_block(bundle, BlockInputs(make.block(images), chosen), name="z", posterior=other)
    np.testing.assert_array_equal(values["z_redshift_q500"], again["z_redshift_q500"])
    rounds = PosteriorConfig(passes="adaptive", min_passes=4, max_passes=16, tolerance=1e-6)
    last = infer_block(bundle, BlockInputs(make.block(images), chosen), name="z", posterior=rounds)
    assert (last["z_passes"] == 16).all()
    np.testing.assert_array_equal(values["z_redshift_q500"], last["z_redshift_q500"])


def test_what_the_bundle_says(files):
    _, metadata = convert_script(*files)
    assert (metadata.name, metadata.architecture, metadata.licence) == ("theirs", "script", "MIT")
    assert metadata.parameters[0].location == 0.5
    assert metadata.origin["weights"] == "theirs.pt"
    assert metadata.origin["preprocessing"]["std"] == [1.0, 2.0, 0.5]
    assert load_bundle(files[2]).metadata == metadata
    assert len(metadata.origin["weights_sha256"]) == 64


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dropout_rate = 0.3", "dropot_rate = 0.3", "dropot_rate: unknown key; did you mean dropout_rate"),
        ('name = "theirs"', "", r"name"),
        ("scale = 0.2", "scale = 0.0", "parameter redshift: scale must be above 0"),
        ('intensity_stretch = "arsinh"', 'intensity_stretch = "log"', "intensity_stretch"),
        (
            'intensity_stretch = "arsinh"',
            'stretch = "arsinh"',
            r"\[preprocessing\] stretch: renamed; write intensity_stretch",
        ),
        (
            'intensity_stretch = "arsinh"',
            'intensity_stretch = "sdss"',
            "intensity_stretch sdss makes colors of 3 bands, found 1",
        ),
        ("std = [1.0, 2.0, 0.5]", "std = [1.0, 2.0]", "std has 2 numbers, expected 1 or one per channel"),
        ("std = [1.0, 2.0, 0.5]", "std = [0.0]", "std must be above 0"),
        ('bands = ["g"]', 'bands = ["g", "r"]', "channels = 3, but there are 2 bands"),
        (
            "[preprocessing]",
            "[[preprocessing]]\n[[preprocessing]]",
            "preprocessing: 2 sections for 1 grids; state one for all, or one for each",
        ),
        (
            "zero_point_mag = 27.0",
            "zero_point_mag = 27.0\n[[input.more_grids]]\nbands = []\nsize_px = 8\npixel_scale_arcsec = 1.0\n"
            'unit = "nJy"\nzero_point_mag = 31.4',
            "more_grids must each have a size, a pixel scale above 0 and bands",
        ),
        ("[head]", "[head", "is no TOML"),
        ('kind = "gaussian"', 'kind = "mixture"', "components must be 1 or more for a mixture"),
    ],
)
def test_descriptions_that_are_wrong_are_told(files, old, new, message):
    rewritten(files[1], old, new)
    with pytest.raises(ConfigError, match=message) as caught:
        read_description(files[1])
    assert "theirs.toml" in str(caught.value)
    assert "galbatch.json" not in str(caught.value)


def test_files_that_are_no_scripts_are_told(files, tmp_path, source):
    with pytest.raises(BundleError, match="there is no such TorchScript file"):
        convert_script(str(tmp_path / "none.pt"), *files[1:])
    torch.save(source.state_dict(), tmp_path / "state.pt")
    with pytest.raises(BundleError, match=r"is no TorchScript file: .*must be scripted first"):
        convert_script(str(tmp_path / "state.pt"), *files[1:])
    with pytest.raises(ConfigError, match="there is no such description"):
        convert_script(files[0], str(tmp_path / "none.toml"), files[2])


class WithNumbers(nn.Module):
    def forward(self, x, numbers):
        return x.mean(dim=(1, 2, 3)), numbers


class Named(nn.Module):
    def forward(self, x):
        return {"mean": x.mean(dim=(1, 2, 3))}


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Theirs(n_out=5), r"sample gives \(16, 5\), expected \(row, output\) = \(16, 2\)"),
        (
            Theirs(dropout=nn.Identity),
            "different keys give the same outputs, but its metadata says dropout_rate 0.3",
        ),
        (
            WithNumbers(),
            r"its forward takes \(Tensor, Tensor\), its description says forward\(images: Tensor\)",
        ),
        (Named(), r"its forward gives Dict\[str, Tensor\], expected a tensor, or a tuple of tensors"),
        (nn.Sequential(nn.Conv2d(5, 2, 3)), r"fails on images \(2, 1, 48, 48\)"),
    ],
)
def test_networks_unlike_their_description_are_told(files, network, message):
    torch.jit.script(network.eval()).save(files[0])
    with pytest.raises(BundleError, match=message):
        convert_script(*files)


@pytest.mark.parametrize("dropout", [nn.Dropout2d, nn.AlphaDropout])
def test_all_kinds_of_dropout_modules_draw(files, dropout):
    class Planes(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(3, 8, 5, stride=4)
            self.drop = dropout(0.3)
            self.head = nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.drop(self.convolution(x)).mean(dim=(2, 3)))

    torch.jit.script(Planes().eval()).save(files[0])
    convert_script(*files)
    assert load_bundle(files[2]).metadata.dropout_rate == 0.3


def test_the_documented_description_is_one(tmp_path):
    prose = (Path(__file__).parents[4] / "docs" / "reference" / "convert.md").read_text(encoding="utf-8")
    block = prose.split("```toml\n# theirs.toml\n")[1].split("```")[0]
    (tmp_path / "theirs.toml").write_text(block, encoding="utf-8")
    described = read_description(str(tmp_path / "theirs.toml"))
    assert described.head.kind == "gaussian"
    assert [parameter.name for parameter in described.parameters] == ["redshift"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("scale = 0.2", "scale = nan", "theirs: its metadata hold numbers that are not finite"),
        ("channels = 3", "channels = -3", "channels = -3, expected 0 or more"),
        ('"identity"', '"logit"\nlimits = [-1.0, 2.0]', r"limits of a logit must lie in \[0, 1\]"),
    ],
)
def test_numbers_that_cannot_be_are_told(files, old, new, message):
    rewritten(files[1], old, new)
    with pytest.raises(ConfigError, match=message):
        read_description(files[1])


def test_a_folder_as_description_is_told(tmp_path):
    with pytest.raises(ConfigError, match="the description cannot be read: Is a directory"):
        read_description(str(tmp_path))


def test_the_network_of_several_grids_in_the_docs_is_described_rightly(tmp_path):
    page = Path(__file__).parents[4] / "docs" / "howto" / "own_network.md"
    block = page.read_text(encoding="utf-8").split("```toml\n# late_fusion.toml\n")[1].split("```")[0]
    (tmp_path / "late_fusion.toml").write_text(block, encoding="utf-8")
    described = read_description(str(tmp_path / "late_fusion.toml"))
    assert [one.size_px for one in described.input.images] == [64, 40]
    assert described.input.all_bands == ("hsc_g", "hsc_r", "hsc_i", "ls_g", "ls_r", "ls_z")
    assert [one.intensity_stretch for one in described.preprocessing_of_grids] == ["arsinh", "none"]
