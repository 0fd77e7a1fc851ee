import dataclasses
import io
import os
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from galbatch.config import PosteriorConfig
from galbatch.core.flags import ModelFlag
from galbatch.core.types import njy_per_unit
from galbatch.errors import BundleError, UsageError
from galbatch.models import BlockInputs, SfnetConversion, convert_sfnet, infer_block, load_bundle
from galbatch.models.convert import read_published
from galbatch.models.convert.published import TORCH_CLASSES

MEAN, STD = (0.14, 0.12, 0.10), (0.16, 0.13, 0.11)
WIDTH = 1 / 8


class BasicBlock(nn.Module):
    """torchvision's."""

    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """torchvision's resnet18."""

    def __init__(self, n_out, width):
        super().__init__()
        a, b, c, d = (round(n * width) for n in (64, 128, 256, 512))
        self._norm_layer = nn.BatchNorm2d  # torchvision's holds classes among its attributes
        self.conv1 = nn.Conv2d(3, a, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(a)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(BasicBlock(a, a, 1), BasicBlock(a, a, 1))
        self.layer2 = nn.Sequential(BasicBlock(a, b, 2), BasicBlock(b, b, 1))
        self.layer3 = nn.Sequential(BasicBlock(b, c, 2), BasicBlock(c, c, 1))
        self.layer4 = nn.Sequential(BasicBlock(c, d, 2), BasicBlock(d, d, 1))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(d, n_out)


class ResNet18TopK(nn.Module):
    """SFNet's class."""

    def __init__(self, k, n_out, width):
        super().__init__()
        self.resnet = ResNet(n_out, width)
        self.k = k
        self.trunk = nn.Sequential(*list(self.resnet.children())[:-1])

    def forward(self, x):
        """Of normalized colors (object, 3, y, x)."""
        features = functional.relu(self.trunk(x).flatten(1))
        largest, index = features.topk(self.k, dim=1)
        return self.resnet.fc(torch.zeros_like(features).scatter_(1, index, largest))


def trained(network):
    """As if trained: BatchNorm's statistics are not those of a fresh network."""
    generator = torch.Generator().manual_seed(9)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    return network.eval()


@pytest.fixture(scope="module")
def source():
    torch.manual_seed(5)
    network = trained(ResNet18TopK(4, 4, WIDTH))
    nn.init.normal_(network.resnet.fc.weight)
    return network


@pytest.fixture
def authors_modules(monkeypatch):
    """The modules the authors' pickles name, while a pickle is written."""
    torchvision, model = types.ModuleType("torchvision.models.resnet"), types.ModuleType("model")
    for kind, module in ((BasicBlock, torchvision), (ResNet, torchvision), (ResNet18TopK, model)):
        monkeypatch.setattr(kind, "__module__", module.__name__)
        setattr(module, kind.__name__, kind)
    for name in ("torchvision", "torchvision.models"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, torchvision.__name__, torchvision)
    monkeypatch.setitem(sys.modules, model.__name__, model)
    return model


@pytest.fixture
def weights(tmp_path, source):
    path = tmp_path / "resnet18-topk_4-bpt_lines.pth"
    torch.save(source.state_dict(), path)
    return path


def conversion(**changes):
    return SfnetConversion(**{"mean": MEAN, "std": STD, "size_px": 48, **changes})


def colors(images):
    """The viewer's formula for its SDSS layer, pixel by pixel, on images (3, y, x) in nanomaggies per 0.396 arcsec pixel."""
    x = np.stack([1.0 * images[0], 1.5 * images[1], 2.5 * images[2]]) + 0.02
    mean = np.maximum(x, 0).mean(axis=0)
    shown = x * np.arcsinh(20 * mean) / np.sqrt(20) / np.maximum(mean, 1e-6)
    return np.clip(shown, 0, 1)


def images_of(n, seed=3):
    rng = np.random.default_rng(seed)
    brightness = rng.uniform(0.01, 0.3, (n, 3, 1, 1))
    return torch.from_numpy((brightness * rng.exponential(1.0, (n, 3, 48, 48))).astype(np.float32))


def test_outputs_are_the_sources(tmp_path, source, weights):
    sha256, metadata = convert_sfnet(str(weights), str(tmp_path / "s.pt"), conversion())
    bundle = load_bundle(str(tmp_path / "s.pt"), sha256=sha256)
    images = images_of(5) - 0.02
    per_native = (0.396 / 0.262) ** 2
    seen = np.stack([colors(image * per_native) for image in images.double().numpy()])
    assert 0.1 < seen.std() < 0.5
    normalized = (torch.from_numpy(seen) - torch.tensor(MEAN).reshape(3, 1, 1)) / torch.tensor(STD).reshape(
        3, 1, 1
    )
    with torch.inference_mode():
        expected = source(normalized.float())
        converted = bundle.sample(bundle.prefix(images), torch.arange(5))
    assert expected.std(dim=0).min() > 1e-2
    torch.testing.assert_close(converted, expected, rtol=1e-5, atol=1e-5)
    assert metadata.n_top_features == 4


def test_what_the_bundle_says(tmp_path, weights):
    _, metadata = convert_sfnet(
        str(weights), str(tmp_path / "s.pt"), conversion(normalization_from="batch of 64 of my training set")
    )
    assert [p.name for p in metadata.parameters] == ["log_N2", "log_Ha", "log_O3", "log_Hb"]
    assert (metadata.head.kind, metadata.dropout_rate, metadata.calibration) == ("point", 0.0, None)
    assert (metadata.input.bands, metadata.input.zero_point_mag) == (("i", "r", "g"), 22.5)
    assert metadata.input.pixel_scale_arcsec == 0.262
    origin = metadata.origin
    assert (origin["mean"], origin["std"]) == (list(MEAN), list(STD))
    assert origin["normalization_from"] == "batch of 64 of my training set"
    assert "without the artefacts of JPEG" in origin["intensity_stretch"]
    assert (origin["k"], origin["target"], origin["weights"]) == (4, "bpt_lines", weights.name)


def test_pickled_module_gives_the_same_bundle(tmp_path, source, weights, authors_modules):
    folder = tmp_path / "pickled"
    folder.mkdir()
    torch.save(source, folder / weights.name)
    assert not hasattr(read_published(str(weights)), "k")
    published = read_published(str(folder / weights.name), classes=frozenset({"ResNet18TopK"}))
    assert published.attributes["k"] == 4
    state = source.state_dict()
    assert published.state.keys() == state.keys()
    assert all(torch.equal(published.state[name], value) for name, value in state.items())
    convert_sfnet(str(folder / weights.name), str(tmp_path / "p.pt"), conversion())
    convert_sfnet(str(weights), str(tmp_path / "s.pt"), conversion())
    images = images_of(2)
    of_pickle, of_state = load_bundle(str(tmp_path / "p.pt")), load_bundle(str(tmp_path / "s.pt"))
    keys = torch.arange(2)
    assert torch.equal(
        of_pickle.sample(of_pickle.prefix(images), keys), of_state.sample(of_state.prefix(images), keys)
    )
    assert of_pickle.metadata.origin["converted_from"] == "SFNet, whole pickled module"


class Opens:
    """Runs a command when it is unpickled by plain pickle."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("where", ["alone", "beside tensors", "inside a module"])
def test_what_else_is_in_a_pickle_is_refused_by_name_and_not_run(tmp_path, source, authors_modules, where):
    trap = Opens(tmp_path / "ran")
    content = {"alone": trap, "beside tensors": {"resnet.fc.weight": torch.ones(4, 64), "x": trap}}.get(where)
    if content is None:
        content = trained(ResNet18TopK(4, 4, WIDTH))
        content.k = trap
    path = tmp_path / "resnet18-topk_4-bpt_lines.pth"
    torch.save(content, path)
    with pytest.raises(BundleError, match=r"its pickle asks for posix\.system, which .*nothing was run"):
        convert_sfnet(str(path), str(tmp_path / "s.pt"), conversion())
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "s.pt").exists()
    torch.load(path, weights_only=False)  # the trap is one
    assert (tmp_path / "ran").exists()


def test_builtins_and_other_classes_of_torch_are_refused(tmp_path):
    class Calls:
        def __init__(self, function):
            self.function = function

        def __reduce__(self):
            return self.function, ("1 + 1",)

    for function, name in ((eval, "eval"), (torch.hub.load_state_dict_from_url, "load_state_dict_from_url")):
        torch.save({"a": torch.ones(1), "b": Calls(function)}, tmp_path / "b.pth")
        with pytest.raises(BundleError, match=name):
            read_published(str(tmp_path / "b.pth"))
    torch.save({"a": nn.LSTM(2, 2)}, tmp_path / "b.pth")
    with pytest.raises(BundleError, match=r"asks for torch\.nn\.modules\.rnn\.LSTM"):
        read_published(str(tmp_path / "b.pth"))


def test_stand_ins_are_classes_of_torch_alone():
    assert {name.split(".")[0] for name in TORCH_CLASSES} == {"torch", "torchvision"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "is no state dict: expected tensors by name, found nothing"),
        ({"a": torch.ones(1), "epoch": 3}, r"found also epoch \(int\)"),
        ([torch.ones(1)], "expected tensors by name, found list"),
        ({"a": torch.ones(1)}, r"lacks resnet\.conv1\.weight or resnet\.fc\.weight, so it is no SFNet"),
    ],
)
def test_files_that_are_no_weights_are_told(tmp_path, content, message):
    path = tmp_path / "resnet18-topk_4-bpt_lines.pth"
    torch.save(content, path)
    with pytest.raises(BundleError, match=message):
        convert_sfnet(str(path), str(tmp_path / "s.pt"), conversion())


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", None])
def test_damaged_files_are_told(tmp_path, weights, content):
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(
        BundleError, match=r"is no file that torch\.save wrote since version 1\.6, or is damaged"
    ):
        read_published(str(weights))
    with pytest.raises(BundleError, match="there is no such file of weights"):
        read_published(str(tmp_path / "none.pth"))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.pop("resnet.layer4.1.bn2.bias"), r"lacks resnet\.layer4\.1\.bn2\.bias|is not resnet"),
        (
            lambda s: s.update({"trunk.0.weight": s["trunk.0.weight"] + 1}),
            r"trunk\.0\.weight is not resnet\.conv1",
        ),
        (
            lambda s: s.update({"head.weight": torch.ones(1)}),
            r"holds head\.weight, which the network has not",
        ),
        (lambda s: s.update({"resnet.bn1.bias": torch.ones(3)}), r"bn1\.bias is 3, expected 8|is not resnet"),
    ],
)
def test_weights_that_are_not_sfnets_are_told(tmp_path, source, edit, message):
    path = tmp_path / "resnet18-topk_4-bpt_lines.pth"
    state = dict(source.state_dict())
    edit(state)
    torch.save(state, path)
    with pytest.raises(BundleError, match=message):
        convert_sfnet(str(path), str(tmp_path / "s.pt"), conversion())


def test_state_dicts_without_trunk_and_counters_load(tmp_path, source):
    path = tmp_path / "mine.pth"
    state = {
        name: value
        for name, value in source.state_dict().items()
        if name.startswith("resnet.") and not name.endswith("num_batches_tracked")
    }
    torch.save(state, path)
    _, metadata = convert_sfnet(str(path), str(tmp_path / "s.pt"), conversion(k=4, target="bpt_lines"))
    assert metadata.n_top_features == 4


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("mine.pth", {"k": 4}, "target is not known: the name is not resnet18-topk_<k>-<target>"),
        ("mine.pth", {"target": "bpt_lines"}, "k is not known"),
        ("mine.pth", {"k": 4, "target": "sfr"}, "target sfr: expected one of bpt_lines, oh_p50, metallicity"),
        ("resnet18-topk_4-bpt_lines.pth", {"k": 8}, r"k differs: 8 \(given\), 4 \(the file's name\)"),
        ("resnet18-topk_4-oh_p50.pth", {}, "has 4 outputs, but target oh_p50 has 1: oh_p50"),
        ("resnet18-topk_65-bpt_lines.pth", {}, "k = 65, but the network has 64 features"),
        ("resnet18-topk_4-bpt_lines.pth", {"mean": (0.1, 0.2)}, "mean: expected 3 numbers"),
        ("resnet18-topk_4-bpt_lines.pth", {"std": (0.1, 0.2, 0.0)}, "std: expected numbers above 0, found 0"),
        ("resnet18-topk_4-bpt_lines.pth", {"layer": "hsc"}, "layer hsc: expected one of sdss, legacy, none"),
        ("resnet18-topk_4-bpt_lines.pth", {"layer": "none"}, "without a layer the bands"),
        ("resnet18-topk_4-bpt_lines.pth", {"zero_point_mag": 27.0}, "layer sdss takes nanomaggies"),
        ("resnet18-topk_4-bpt_lines.pth", {"bands": ("g", "r")}, "bands: expected 3"),
    ],
)
def test_contradictions_are_told(tmp_path, source, name, changes, message):
    torch.save(source.state_dict(), tmp_path / name)
    with pytest.raises((UsageError, BundleError), match=message):
        convert_sfnet(str(tmp_path / name), str(tmp_path / "s.pt"), conversion(**changes))


def test_pixels_as_they_are(tmp_path, source, weights):
    changes = {"layer": "none", "bands": ("i", "r", "g"), "zero_point_mag": 31.4}
    _, metadata = convert_sfnet(str(weights), str(tmp_path / "s.pt"), conversion(**changes))
    bundle = load_bundle(str(tmp_path / "s.pt"))
    images = torch.rand(2, 3, 48, 48)
    normalized = (images - torch.tensor(MEAN).reshape(3, 1, 1)) / torch.tensor(STD).reshape(3, 1, 1)
    with torch.inference_mode():
        converted = bundle.sample(bundle.prefix(images), torch.arange(2))
        torch.testing.assert_close(converted, source(normalized), rtol=1e-5, atol=1e-5)
    assert metadata.input.zero_point_mag == 31.4
    assert "intensity_stretch" not in metadata.origin


def test_catalog_has_values_without_widths(tmp_path, weights, make):
    convert_sfnet(str(weights), str(tmp_path / "s.pt"), conversion())
    bundle = load_bundle(str(tmp_path / "s.pt"))
    images = images_of(3).numpy() * np.float32(njy_per_unit(22.5))
    block = make.block(images, bands=("i", "r", "g"))
    block = dataclasses.replace(block, grid=bundle.grid)
    values = infer_block(
        bundle, BlockInputs(block, np.ones(3, bool)), name="s", posterior=PosteriorConfig(passes=8)
    )
    assert np.isfinite(values["s_log_Ha_q500"]).all()
    assert np.isnan(values["s_log_Ha_std"]).all()
    assert (values["s_flags"] & int(ModelFlag.NO_POSTERIOR) != 0).all()
    assert (values["s_feature_3"] >= 0).all()


def pickled(path, data):
    """An archive as torch.save writes it, with this pickle."""
    whole = io.BytesIO()
    torch.save({}, whole)
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, data if name.endswith("data.pkl") else old.read(name))
    return str(path)


MODULE = b"\x80\x02cmodel\nResNet18TopK\n)\x81q\x00"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no file that torch.save wrote"),
        (b"\x80\x02R.", "nothing was run: pop from empty list"),
        (b"\x80\x02h\x05.", "nothing was run"),
        (MODULE + b"}U\x08_modulesh\x00sb.", "is no state dict"),
        (
            MODULE + b"}X\x08\x00\x00\x00_modules}X\x01\x00\x00\x00ah\x00ssb.",
            "modules lie within modules without end",
        ),
        (MODULE + b"}X\x0b\x00\x00\x00_parameters]sb.", "is no state dict"),
        (MODULE + b"N}X\x09\x00\x00\x00__class__ccollections\nCounter\ns\x86b.", "is no state dict"),
        (b"\x80\x02cmodel\nResNet18TopK\nK\x01\x85\x81.", "nothing was run"),
        (b"\x80\x02cbuiltins\nbytearray\n\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85R.", "nothing was run"),
        (
            b"\x80\x02cos\nResNet18TopK\n)\x81.",
            "nothing was run: Trying to load unsupported GLOBAL os.ResNet18TopK",
        ),
    ],
)
def test_pickles_made_to_harm_are_told(tmp_path, data, message):
    path = pickled(tmp_path / "x.pth", data)
    with pytest.raises(BundleError, match=message):
        read_published(path, classes=frozenset({"ResNet18TopK"}))


def test_nothing_in_a_pickle_gives_a_stand_in_behavior(tmp_path):
    """Attributes named as a stand-in's own methods are data like others: torch's functions could stand there."""
    names = ("within", "held", "tensors", "__setstate__")
    state = b"".join(
        b"X" + len(name).to_bytes(4, "little") + name.encode() + b"c_codecs\nencode\ns" for name in names
    )
    path = pickled(tmp_path / "x.pth", MODULE + b"}" + state + b"b}b.")
    with pytest.raises(BundleError, match="is no state dict: expected tensors by name, found nothing"):
        read_published(path, classes=frozenset({"ResNet18TopK"}))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(10**6, 10**6),
        torch.zeros(2, device="meta"),
        torch.eye(3).to_sparse(),
        torch.zeros(2, dtype=torch.complex64),
    ],
    ids=["one number for 4 TB", "shape alone", "sparse", "complex"],
)
def test_tensors_that_are_not_stored_as_plain_numbers_are_refused(tmp_path, tensor):
    torch.save({"resnet.conv1.weight": tensor}, tmp_path / "x.pth")
    with pytest.raises(BundleError, match=r"holds no plain numbers for resnet\.conv1\.weight"):
        read_published(str(tmp_path / "x.pth"))


def test_networks_larger_than_the_papers_are_not_built(tmp_path):
    path = tmp_path / "resnet18-topk_4-bpt_lines.pth"
    state = {"resnet.conv1.weight": torch.zeros(5000, 3, 1, 1), "resnet.fc.weight": torch.zeros(4, 512)}
    torch.save(state, path)
    with pytest.raises(BundleError, match="its first convolution has 5000 channels, expected 64"):
        convert_sfnet(str(path), str(tmp_path / "s.pt"), conversion())


@pytest.mark.parametrize("name", ["trunk.0", "trunk.weight", "trunk.\u00b2.weight"])
def test_strange_names_in_the_trunk_are_told(tmp_path, source, name):
    path = tmp_path / "resnet18-topk_4-bpt_lines.pth"
    torch.save({**source.state_dict(), name: torch.ones(1)}, path)
    with pytest.raises(BundleError, match="expected trunk to be the modules of resnet again"):
        convert_sfnet(str(path), str(tmp_path / "s.pt"), conversion())


def test_normalizations_that_are_not_finite_are_told(tmp_path, weights):
    for changes in ({"mean": (float("nan"), 0.1, 0.1)}, {"std": (0.1, 0.1, float("inf"))}):
        with pytest.raises(UsageError, match="mean and std: expected finite numbers"):
            convert_sfnet(str(weights), str(tmp_path / "s.pt"), conversion(**changes))
