"""Two networks of other people's making go the whole way: converted, run on a simulated survey, and their catalog holds what they say.

The first is like ConvNeXt, with a density of 400 bins from nine bands of three surveys, each on its own grid, and two E(B-V); the
second an ensemble of small CNNs with weights, whose Gaussian mixtures follow from an image and two colors.
"""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn

from galbatch import catalog, config, execution, models
from galbatch.core.flags import ModelFlag
from galbatch.core.types import Grid
from galbatch.ingest import CutoutReader, read_done
from galbatch.simulation import simulate_survey

N_BINS = 400
GRIDS = (Grid(24, 0.168), Grid(16, 0.25), Grid(12, 0.4))
EDGES = np.linspace(0.0, 2.0, N_BINS + 1)

CONVNEXT_TOML = f"""
name = "late-fusion"
[input]
bands = ["a_g", "a_r", "a_i"]
size_px = 24
pixel_scale_arcsec = 0.168
unit = "nJy"
zero_point_mag = 31.4
auxiliary_inputs = [{{name = "ebv_sfd", unit = "mag"}}, {{name = "ebv_planck", unit = "mag"}}]
[[input.more_grids]]
bands = ["b_g", "b_r", "b_i"]
size_px = 16
pixel_scale_arcsec = 0.25
unit = "nmgy"
zero_point_mag = 22.5
[[input.more_grids]]
bands = ["c_g", "c_r", "c_i"]
size_px = 12
pixel_scale_arcsec = 0.4
unit = "nJy"
zero_point_mag = 31.4
[[preprocessing]]
intensity_stretch = "arsinh"
[[preprocessing]]
mean = [0.5]
std = [2.0]
[[preprocessing]]
intensity_stretch = "arsinh"
[head]
kind = "binned"
edges = [[{", ".join(f"{edge:.4f}" for edge in EDGES)}]]
[[parameters]]
name = "redshift"
unit = ""
description = "photometric redshift"
transform = "identity"
"""

ENSEMBLE_TOML = """
name = "mixtures"
members = 3
member_weights = [3, 2, 1]
[input]
bands = ["a_g", "a_r", "a_i"]
size_px = 24
pixel_scale_arcsec = 0.168
unit = "nJy"
zero_point_mag = 31.4
auxiliary_inputs = [{name = "g_r", unit = "mag"}, {name = "r_i", unit = "mag"}]
[head]
kind = "mixture"
components = 2
[[parameters]]
name = "redshift"
unit = ""
description = "photometric redshift"
transform = "identity"
"""

RUN_TOML = """
[[survey]]
name = "a"
layout = "hsc"
tiles = "{survey}/deepCoadd-results/**/calexp-*.fits"
bands = ["g", "r", "i"]
[[survey]]
name = "b"
layout = "hsc"
tiles = "{survey}/deepCoadd-results/**/calexp-*.fits"
bands = ["g", "r", "i"]
[[survey]]
name = "c"
layout = "hsc"
tiles = "{survey}/deepCoadd-results/**/calexp-*.fits"
bands = ["g", "r", "i"]
[objects]
path = "objects.parquet"
keep = ["ebv_sfd"]
[plan]
max_objects_per_partition = 12
[[models]]
name = "fusion"
bundle = "fusion.pt"
where = "ebv_sfd > 0.01"
embedding = true
[[models]]
name = "cnn"
bundle = "cnn.pt"
[posterior]
passes = 4
[cluster]
workers = 2
dashboard_address = "127.0.0.1:0"
"""


class Block(nn.Module):
    """A block of ConvNeXt: depthwise convolution, LayerNorm over channels, an inverted bottleneck, and a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.narrow(nn.functional.gelu(self.widen(y)))
        return x + y.permute(0, 3, 1, 2)


class Fusion(nn.Module):
    """One branch for each survey, joined late with the numbers."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        branches = [nn.Sequential(nn.Conv2d(3, width, 4, stride=4), Block(width)) for _ in range(3)]
        self.branches = nn.ModuleList(branches)
        self.head = nn.Linear(3 * width + 2, N_BINS)

    @torch.jit.export
    def last_features(self, images: list[Tensor], auxiliary: Tensor) -> Tensor:
        parts: list[Tensor] = []
        for i, branch in enumerate(self.branches):
            parts.append(branch(images[i]).mean(dim=[2, 3]))
        parts.append(auxiliary)
        return torch.cat(parts, dim=1)

    def forward(self, images: list[Tensor], auxiliary: Tensor) -> Tensor:
        return self.head(self.last_features(images, auxiliary))


class SmallCnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 5, stride=3)
        self.weights, self.numbers = nn.Linear(6, 2), nn.Linear(6, 4)

    def forward(self, images: Tensor, auxiliary: Tensor) -> tuple[Tensor, Tensor]:
        seen = torch.cat([self.convolution(torch.arcsinh(images)).relu().mean(dim=[2, 3]), auxiliary], dim=1)
        return self.weights(seen), self.numbers(seen)


class Members(nn.Module):
    """Three networks of one kind; each gives logits of two weights, two means and two ln sigma."""

    def __init__(self) -> None:
        super().__init__()
        self.members = nn.ModuleList([SmallCnn() for _ in range(3)])

    def forward(self, images: Tensor, auxiliary: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        for member in self.members:
            weights, numbers = member(images, auxiliary)
            found.append(torch.cat([weights, numbers], dim=1))
        return found


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(12)
    return Fusion().eval(), Members().eval()


@pytest.fixture(scope="module")
def ran(networks, tmp_path_factory, client):
    """The run's config, after the run."""
    folder = tmp_path_factory.mktemp("foreign")
    simulate_survey(
        str(folder / "survey"), n_objects=24, patches=1, bands=("g", "r", "i"), seed=8, processes=1
    )
    objects = pq.read_table(folder / "survey" / "objects.parquet")
    random = np.random.default_rng(0)
    for name, scale in (("ebv_sfd", 0.1), ("ebv_planck", 0.1), ("g_r", 0.5), ("r_i", 0.4)):
        values = random.uniform(0, scale, len(objects))
        objects = objects.append_column(name, pa.array(values, mask=np.arange(len(values)) == 3))
    pq.write_table(objects, folder / "objects.parquet")
    for name, network, description in zip(
        ("fusion", "cnn"), networks, (CONVNEXT_TOML, ENSEMBLE_TOML), strict=True
    ):
        torch.jit.script(network).save(str(folder / f"{name}_theirs.pt"))
        (folder / f"{name}.toml").write_text(description)
        models.convert_script(
            str(folder / f"{name}_theirs.pt"), str(folder / f"{name}.toml"), str(folder / f"{name}.pt")
        )
    (folder / "run.toml").write_text(RUN_TOML.format(survey=folder / "survey"))
    parsed = config.read_config(folder / "run.toml")
    plan = execution.prepare(parsed)
    result = execution.execute(parsed, plan, client)
    assert result.failed == {}
    assert catalog.verify(parsed.catalog.path) == []
    return parsed, plan


def rows_of(ran, name):
    """The catalog's rows that a network gave values, and their numbers in the object list."""
    parsed, _ = ran
    found = catalog.read_catalog(parsed.catalog.path).to_pandas().set_index("object_id")
    listed = pq.read_table(parsed.objects.path).to_pandas().set_index("object_id")
    rows = found[found[f"{name}_passes"] > 0]
    assert len(rows) >= 20
    return rows, listed.loc[rows.index]


def cutouts_of(ran, grid, bands, ids):
    """The cutouts of objects on a grid in some bands, from the store, (object, band, y, x) float32 nJy."""
    parsed, plan = ran
    images = {}
    for part in plan.partitions:
        if not read_done(parsed.cutouts.store, part.partition, grid)["n_objects"]:
            continue
        reader = CutoutReader(parsed.cutouts.store, part.partition, grid)
        block = reader.block(0, reader.n_objects).select_bands(bands)
        images |= dict(zip(block.object_id.tolist(), block.image, strict=True))
    return torch.from_numpy(np.nan_to_num(np.stack([images[one] for one in ids.tolist()])))


def test_a_density_from_three_grids_and_two_numbers_is_the_networks(ran, networks):
    rows, listed = rows_of(ran, "fusion")
    raw = [
        cutouts_of(ran, grid, [f"{name}_{band}" for band in "gri"], rows.index)
        for grid, name in zip(GRIDS, "abc", strict=True)
    ]
    # As the description says: nJy or nanomaggies (3630.78 nJy), arsinh, or less 0.5 and over 2.
    images = [torch.arcsinh(raw[0]), (raw[1] / 3630.7805 - 0.5) / 2.0, torch.arcsinh(raw[2])]
    auxiliary = torch.tensor(listed[["ebv_sfd", "ebv_planck"]].to_numpy(np.float32))
    with torch.inference_mode():
        probability = networks[0](images, auxiliary).double().softmax(dim=1).numpy()
        features = networks[0].last_features(images, auxiliary).numpy()
    below = np.cumsum(probability, axis=1)
    for level, column in ((0.15865, "q15865"), (0.5, "q500"), (0.84135, "q84135")):
        expected = [np.interp(level, [0.0, *row], EDGES) for row in below]
        np.testing.assert_allclose(rows[f"fusion_redshift_{column}"], expected, atol=2e-4)
    middle = 0.5 * (EDGES[1:] + EDGES[:-1])
    np.testing.assert_allclose(rows["fusion_redshift_mean"], probability @ middle, atol=1e-4)
    np.testing.assert_allclose(np.stack(rows["fusion_embedding"]), features, rtol=1e-3, atol=1e-3)
    assert (rows["fusion_passes"] == 1).all()


def test_weighted_mixtures_from_an_image_and_colors_are_the_networks(ran, networks):
    rows, listed = rows_of(ran, "cnn")
    images = cutouts_of(ran, GRIDS[0], ["a_g", "a_r", "a_i"], rows.index)
    colors = torch.tensor(listed[["g_r", "r_i"]].to_numpy(np.float32))
    with torch.inference_mode():
        outputs = np.stack([one.double().numpy() for one in networks[1](images, colors)], axis=1)
    share = np.exp(outputs[..., :2]) / np.exp(outputs[..., :2]).sum(axis=2, keepdims=True)
    share *= np.array([3, 2, 1])[:, None] / 6  # (object, member, component)
    center, width = outputs[..., 2:4], np.exp(outputs[..., 4:])
    for level, column in ((0.15865, "q15865"), (0.5, "q500"), (0.97725, "q97725")):
        at = rows[f"cnn_redshift_{column}"].to_numpy()[:, None, None]
        cdf = (share * norm.cdf(at, center, width)).sum(axis=(1, 2))
        np.testing.assert_allclose(cdf, level, atol=2e-5)
    np.testing.assert_allclose(
        rows["cnn_redshift_mean"], (share * center).sum(axis=(1, 2)), rtol=1e-4, atol=1e-5
    )


def test_what_is_missing_is_flagged(ran):
    parsed, plan = ran
    found = catalog.read_catalog(parsed.catalog.path).to_pandas().set_index("object_id")
    listed = pq.read_table(parsed.objects.path).to_pandas().set_index("object_id").loc[found.index]
    lacking = listed["g_r"].isna()
    assert lacking.sum() == 1
    assert found["cnn_flags"][lacking].iloc[0] & ModelFlag.MISSING_PIXELS
    selected = (listed["ebv_sfd"] > 0.01).to_numpy()
    assert 0 < (~selected).sum() < len(found)
    flags = found["fusion_flags"].to_numpy()
    assert ((flags & int(ModelFlag.NOT_SELECTED)) > 0).tolist() == (~selected).tolist()
    assert {grid.grid for grid in plan.grids} == set(GRIDS)


def test_nothing_is_done_twice(ran):
    parsed, plan = ran
    again = execution.read_progress(parsed, execution.prepare(parsed))
    assert len(plan.partitions) >= 2
    assert all(part.partition.name in again.inferred for part in plan.partitions)
