import numpy as np
import pytest
import torch
from scipy.special import expit, logit
from torch import nn
from torch.nn import functional

from galbatch.errors import BundleError, ObjectListError
from galbatch.models import GampenConversion, convert_gampen, load_bundle
from galbatch.models.convert import Published
from galbatch.models.convert.gampen import scaler, size_of

SIZE_PX = 96
WIDTH = 1 / 16
ADU_NJY = 57.543993733715695


class PlainGampen(nn.Module):
    """Names, order and numbering of the release: spatial transformer, then a VGG-16 with nn.Dropout before convolutions."""

    def __init__(self, size_px, *, width=1.0, in_channels=3, n_out=9, dropout_rate=4e-4):
        super().__init__()
        first, second, hidden = round(64 * width), round(96 * width), round(4096 * width)
        self.localization = nn.Sequential(
            nn.Conv2d(in_channels, first, kernel_size=11),
            nn.MaxPool2d(3, stride=2),
            nn.ReLU(),
            nn.Conv2d(first, second, kernel_size=9),
            nn.MaxPool2d(3, stride=2),
            nn.ReLU(),
        )
        n_in = self.localization(torch.zeros(1, in_channels, size_px, size_px)).numel()
        self.fc_loc = nn.Sequential(nn.Linear(n_in, 32), nn.ReLU(), nn.Linear(32, 1))
        layers, channels = [], in_channels
        for step in (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"):
            if step == "M":
                layers.append(nn.MaxPool2d(2, 2))
                continue
            if layers:
                layers.append(nn.Dropout(dropout_rate))
            layers += [nn.Conv2d(channels, round(step * width), 3, padding=1), nn.ReLU()]
            channels = round(step * width)
        self.vgg = nn.Module()
        self.vgg.features = nn.Sequential(*layers)
        self.vgg.classifier = nn.Sequential(
            nn.Linear(channels * 49, hidden),
            nn.ReLU(),
            nn.Dropout(dropout_rate),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout_rate),
            nn.Linear(hidden, n_out),
        )

    def forward(self, x):
        """Of arsinh images (object, channel, y, x)."""
        s = self.fc_loc(self.localization(x).flatten(1))
        eye = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
        grid = functional.affine_grid(s[:, :, None] * eye, x.shape, align_corners=True)
        x = functional.grid_sample(x, grid, align_corners=True)
        x = functional.adaptive_avg_pool2d(self.vgg.features(x), (7, 7))
        return self.vgg.classifier(x.flatten(1))


def published_state(network):
    """As nn.DataParallel saves it."""
    return {f"module.{name}": value for name, value in network.state_dict().items()}


def write_csv(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = zip(*columns.values(), strict=True)
    path.write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]) + "\n")


def labels(n=40, seed=1):
    """object_id, bt with pure disks and bulges, and the three targets as the release makes them."""
    rng = np.random.default_rng(seed)
    bt = rng.uniform(0.02, 0.97, n)
    bt[:3], bt[3:5] = 0.0, 1.0
    inside = bt[(bt > 0) & (bt < 1)]
    filled = np.where(bt == 0, inside.min() / 2, np.where(bt == 1, 1 - (1 - inside.max()) / 2, bt))
    return {
        "object_id": np.arange(n) + 100,
        "file_name": [f"{i}.fits" for i in range(n)],
        "bt": bt,
        "custom_logit_bt": logit(filled),
        "ln_R_e_asec": rng.normal(0.2, 0.5, n),
        "ln_total_flux_adus": rng.normal(8.0, 1.0, n),
    }


@pytest.fixture
def scaling(tmp_path):
    """A scaling folder as the release has it: the split's file holds all columns of its rows."""
    columns = labels()
    write_csv(tmp_path / "scaling" / "info.csv", **columns)
    train = {name: values[:30] for name, values in columns.items()}
    write_csv(tmp_path / "scaling" / "splits" / "balanced-dev2-train.csv", **train)
    write_csv(tmp_path / "scaling" / "splits" / "balanced-dev2-test.csv", **train)
    return tmp_path / "scaling", columns


@pytest.fixture(scope="module")
def source():
    torch.manual_seed(5)
    network = PlainGampen(SIZE_PX, width=WIDTH).eval()
    nn.init.normal_(network.fc_loc[2].weight, std=0.2)
    nn.init.constant_(network.fc_loc[2].bias, 0.8)
    for layer in network.vgg.features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return network


@pytest.fixture
def weights(tmp_path, source):
    path = tmp_path / "i_050_075_model.pt"
    torch.save(published_state(source), path)
    return path


def conversion(folder, **changes):
    return GampenConversion(
        **{"scaling": str(folder), "slug": "balanced-dev2", "dropout_rate": 2e-4, "band": "i", **changes}
    )


def test_outputs_are_the_sources(tmp_path, source, weights, scaling):
    # Both without dropout: the source in eval mode, the bundle with a rate of 0.
    sha256, metadata = convert_gampen(
        str(weights), str(tmp_path / "i.pt"), conversion(scaling[0], dropout_rate=0.0)
    )
    bundle = load_bundle(str(tmp_path / "i.pt"), sha256=sha256)
    assert bundle.metadata == metadata
    images = torch.randn(4, 1, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(2)) * 3
    with torch.inference_mode():
        converted = bundle.sample(bundle.prefix(images), torch.arange(4))
        expected = source(torch.arcsinh(images).repeat(1, 3, 1, 1))
        crops = bundle.script.crop(images)
    assert expected.std(dim=0).min() > 1e-3  # the objects' outputs differ
    assert 0.01 < crops.std() < 10
    torch.testing.assert_close(converted, expected, rtol=1e-5, atol=1e-5)


def test_what_the_bundle_says(tmp_path, weights, scaling):
    _, metadata = convert_gampen(str(weights), str(tmp_path / "i.pt"), conversion(scaling[0]))
    assert load_bundle(str(tmp_path / "i.pt")).metadata == metadata
    assert (metadata.input.size_px, metadata.input.pixel_scale_arcsec) == (96, 0.168)
    assert (metadata.input.bands, metadata.input.zero_point_mag) == (("i",), 27.0)
    assert (metadata.input.release, metadata.input.background) == ("pdr2", "global sky")
    assert metadata.dropout_rate == 2e-4
    assert metadata.head.kind == "gaussian"
    assert metadata.calibration is None
    assert metadata.origin["weights"] == "i_050_075_model.pt"
    assert metadata.origin["slug"] == "balanced-dev2"
    assert metadata.origin["in_channels"] == 3
    assert metadata.origin["scaler_rows"] == 30
    assert [len(metadata.origin[key]) for key in ("weights_sha256", "scaler_sha256", "info_sha256")] == [
        64
    ] * 3
    bt, re_arcsec, flux_njy = metadata.parameters
    assert [(label.text, label.at_least, label.at_most) for label in bt.labels] == [
        ("highly bulge-dominated", 0.85, None),
        ("highly disk-dominated", None, 0.1),
    ]
    assert re_arcsec.labels[0].at_most == 1.0
    assert flux_njy.magnitude == "mag"


def test_scaler_is_that_of_the_training_split(scaling):
    folder, columns = scaling
    (bt, re_arcsec, flux_njy), found = scaler(conversion(folder))
    for parameter, name, shift in (
        (bt, "custom_logit_bt", 0.0),
        (re_arcsec, "ln_R_e_asec", 0.0),
        (flux_njy, "ln_total_flux_adus", np.log(ADU_NJY)),
    ):
        train = np.asarray(columns[name])[:30]
        assert parameter.location == pytest.approx(train.mean() + shift, rel=1e-12)
        assert parameter.scale == pytest.approx(np.sqrt(((train - train.mean()) ** 2).mean()), rel=1e-12)
    assert flux_njy.training_range == pytest.approx(
        (
            np.exp(columns["ln_total_flux_adus"][:30].min()) * ADU_NJY,
            np.exp(columns["ln_total_flux_adus"][:30].max()) * ADU_NJY,
        )
    )
    assert re_arcsec.training_range == pytest.approx(
        (np.exp(columns["ln_R_e_asec"][:30].min()), np.exp(columns["ln_R_e_asec"][:30].max()))
    )
    assert bt.training_range == (0.0, 1.0)
    assert found["scaler_from"] == "balanced-dev2-train.csv"


def test_split_without_labels_is_joined_with_info(scaling):
    folder, columns = scaling
    expected, _ = scaler(conversion(folder))
    order = np.random.default_rng(0).permutation(30)
    write_csv(folder / "splits" / "ids-train.csv", object_id=columns["object_id"][:30][order])
    joined, _ = scaler(conversion(folder, slug="ids"))
    for one, other in zip(joined, expected, strict=True):
        assert one.location == pytest.approx(other.location, rel=1e-12)
        assert one.scale == pytest.approx(other.scale, rel=1e-12)
    write_csv(folder / "splits" / "more-train.csv", object_id=[100, 7])
    with pytest.raises(
        BundleError, match=r"info.csv: lacks 1 of 2 objects of more-train.csv, such as object_id 7"
    ):
        scaler(conversion(folder, slug="more"))


def test_limits_of_bt_are_half_way_from_the_values_inside(scaling):
    folder, columns = scaling
    (bt, _, _), found = scaler(conversion(folder))
    inside = columns["bt"][5:]
    expected = (inside.min() / 2, 1 - (1 - inside.max()) / 2)
    assert bt.limits == pytest.approx(expected, rel=1e-12)
    assert found["bt_limits_from"] == "bt of info.csv"
    del columns["bt"]
    write_csv(folder / "info.csv", **columns)
    (bt, _, _), found = scaler(conversion(folder))
    assert bt.limits == pytest.approx(expected, rel=1e-9)
    assert found["bt_limits_from"] == "extremes of custom_logit_bt"
    assert bt.training_range == (0.0, 1.0)


def test_without_pure_disks_and_bulges_nothing_is_clamped(scaling):
    folder, columns = scaling
    inside = {name: values[5:] for name, values in columns.items()}
    write_csv(folder / "info.csv", **inside)
    write_csv(folder / "splits" / "balanced-dev2-train.csv", **inside)
    (bt, _, _), _ = scaler(conversion(folder))
    assert bt.limits == (1e-12, 1 - 1e-12)
    assert bt.training_range == pytest.approx((expit(inside["custom_logit_bt"].min()), inside["bt"].max()))
    del inside["bt"]
    write_csv(folder / "info.csv", **inside)
    assert scaler(conversion(folder))[0][0].limits == (1e-12, 1 - 1e-12)


@pytest.mark.parametrize("size_px", [239, 143, 96])
def test_sizes_follow_from_the_weights(size_px):
    with torch.device("meta"):
        source = PlainGampen(size_px)
    assert size_of(Published("g.pt", source.state_dict(), {}), None) == size_px


def test_one_channel(tmp_path, scaling):
    torch.manual_seed(6)
    source = PlainGampen(SIZE_PX, width=1 / 32, in_channels=1).eval()
    torch.save({"state_dict": published_state(source), "epoch": 40}, tmp_path / "one.pt")
    _, metadata = convert_gampen(
        str(tmp_path / "one.pt"), str(tmp_path / "b.pt"), conversion(scaling[0], dropout_rate=0.0)
    )
    assert metadata.origin["in_channels"] == 1
    images = torch.randn(2, 1, SIZE_PX, SIZE_PX)
    bundle = load_bundle(str(tmp_path / "b.pt"))
    with torch.inference_mode():
        converted = bundle.sample(bundle.prefix(images), torch.arange(2))
        torch.testing.assert_close(converted, source(torch.arcsinh(images)), rtol=1e-5, atol=1e-5)


def test_other_sizes_must_be_stated(tmp_path, scaling):
    path = tmp_path / "other.pt"
    torch.save(published_state(PlainGampen(64, width=1 / 32)), path)
    with pytest.raises(
        BundleError, match=r"192 numbers: that fits cutouts of 61 to 64 px, none of the released sizes"
    ):
        convert_gampen(str(path), str(tmp_path / "b.pt"), conversion(scaling[0]))
    with pytest.raises(BundleError, match="that fits cutouts of 61 to 64 px, not of 96"):
        convert_gampen(str(path), str(tmp_path / "b.pt"), conversion(scaling[0], size_px=96))
    _, metadata = convert_gampen(str(path), str(tmp_path / "b.pt"), conversion(scaling[0], size_px=64))
    assert metadata.input.size_px == 64


def change(path, edit):
    state = torch.load(path, weights_only=True)
    edit(state)
    torch.save(state, path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.pop("module.vgg.features.3.weight"), "lacks vgg.features.3.weight"),
        (lambda s: s.pop("module.localization.0.weight"), "lacks localization.0.weight, so it is no GaMPEN"),
        (
            lambda s: s.update({"module.vgg.features.2.weight": torch.ones(1)}),
            "holds vgg.features.2.weight, which",
        ),
        (
            lambda s: s.update({"module.vgg.features.3.bias": torch.ones(5)}),
            "vgg.features.3.bias is 5, expected 4",
        ),
        (
            lambda s: s["module.vgg.features.3.bias"].fill_(float("nan")),
            "numbers that are not finite in vgg.features.3.bias",
        ),
        (
            lambda s: s.update({"module.vgg.classifier.6.weight": torch.ones(4, 256)}),
            "has 4 outputs, expected 9",
        ),
        (
            lambda s: s.update({"module.fc_loc.0.weight": torch.ones(32, 77)}),
            "takes 77 numbers, which are 6 square maps for no cutout size",
        ),
    ],
)
def test_weights_that_are_not_gampens_are_told(tmp_path, weights, scaling, edit, message):
    change(weights, edit)
    with pytest.raises(BundleError, match=message):
        convert_gampen(str(weights), str(tmp_path / "b.pt"), conversion(scaling[0]))
    assert not (tmp_path / "b.pt").exists()


def test_wrong_slug_lists_those_there(tmp_path, weights, scaling):
    with pytest.raises(
        BundleError, match=r"balanced-dev-train.csv: there is no such split; there are balanced-dev2"
    ):
        convert_gampen(str(weights), str(tmp_path / "b.pt"), conversion(scaling[0], slug="balanced-dev"))


def test_scaling_tables_without_labels_are_told(scaling):
    folder, columns = scaling
    write_csv(folder / "splits" / "bad-train.csv", object_id=[1, 2])
    write_csv(folder / "info.csv", object_id=[1, 2], bt=[0.1, 0.2])
    with pytest.raises(ObjectListError, match=r"info.csv.*custom_logit_bt"):
        scaler(conversion(folder, slug="bad"))
    write_csv(folder / "splits" / "bad-train.csv", number=[1, 2])
    with pytest.raises(
        BundleError, match=r"shares neither object_id nor file_name with info.csv; it holds number"
    ):
        scaler(conversion(folder, slug="bad"))
    (folder / "info.csv").unlink()
    with pytest.raises(BundleError, match=r"there is no .*info.csv to join it with"):
        scaler(conversion(folder, slug="bad"))
    columns["ln_R_e_asec"] = ["nan", *columns["ln_R_e_asec"][1:]]
    write_csv(folder / "splits" / "bad-train.csv", **columns)
    with pytest.raises(BundleError, match="1 of 40 rows have a label that is not finite"):
        scaler(conversion(folder, slug="bad"))


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("localization.0.weight", torch.ones(3), "expected 4 axes"),
        ("vgg.classifier.6.weight", torch.tensor(1.0), "expected 2 axes"),
        ("fc_loc.0.weight", torch.ones(32), "expected 2 axes"),
        (
            "localization.0.weight",
            torch.ones(900, 3, 1, 1),
            "its first convolution has 900 channels, expected 64",
        ),
    ],
)
def test_tensors_of_other_shapes_are_told(tmp_path, source, scaling, name, tensor, message):
    path = tmp_path / "i.pt"
    torch.save({**published_state(source), f"module.{name}": tensor}, path)
    with pytest.raises(BundleError, match=message):
        convert_gampen(str(path), str(tmp_path / "b.pt"), conversion(scaling[0]))


def test_labels_that_are_times_are_told(scaling):
    folder, columns = scaling
    times = [f"2020-01-{day:02d}" for day in range(1, 31)]
    train = {name: values[:30] for name, values in columns.items()} | {"ln_R_e_asec": times}
    write_csv(folder / "splits" / "balanced-dev2-train.csv", **train)
    with pytest.raises(BundleError, match="column ln_R_e_asec holds no numbers"):
        scaler(conversion(folder))
