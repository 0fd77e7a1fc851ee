"""What images add to numbers, on galaxies of which it is known: a color, a shape, and a parity of two bits.

The networks compute the true posteriors from the pixels and the numbers, so that their log scores have the information itself.
"""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from galbatch import ingest
from galbatch.cli.app import app
from galbatch.core.pixels import Partition
from galbatch.core.types import Grid
from galbatch.errors import UsageError
from galbatch.learning import DataSource, prepare_information, read_scores
from galbatch.learning.information.measuring import _check_fits, _columns_of
from galbatch.models import AuxiliaryInput, BundleMetadata, HeadInfo, InputInfo, ParameterInfo, save_bundle
from galbatch.objects import write_table
from tests.unit.learning.blocks import block_of

GRID, N = Grid(16, 0.168), 1500
IMAGE_NOISE, COPY_NOISE = 0.3, 0.4
"""Of what the pixels show of color and shape, whose own width is 1, and of the catalog's color, a noisy copy of the pixels' one."""


def channel(noise):
    """The information of a normal number of width 1 that is seen with noise, in nats."""
    return 0.5 * np.log(1 + 1 / noise**2)


class Toy(torch.nn.Module):
    """The true posterior of one of the labels, from the pixels, from the numbers (catalog color, bit) or from both."""

    def __init__(self, label: str, source: str):
        super().__init__()
        self.label = label
        self.source = source

    def forward(self, images: torch.Tensor, auxiliary: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return self.sample(self.prefix(images, auxiliary), keys)

    def normal(self, seen: torch.Tensor, variance: float) -> torch.Tensor:
        """Mean and log d of N(0, 1) that was seen with a noise of this variance."""
        width = variance / (1.0 + variance)
        return torch.stack([seen / (1.0 + variance), torch.full_like(seen, width).log()], dim=1)

    @torch.jit.export
    def prefix(self, images: torch.Tensor, auxiliary: torch.Tensor) -> torch.Tensor:
        if self.label == "parity":
            right = (images[:, 0, 8, 12] > images[:, 0, 8, 4]).float()
            parity = (right - auxiliary[:, 1]).abs()
            logit = (2.0 * parity - 1.0) * 40.0 if self.source == "both" else torch.zeros_like(parity)
            return torch.stack([logit, -logit], dim=1)
        if self.label == "color":
            if self.source == "numbers":
                return self.normal(auxiliary[:, 0], 0.09 + 0.16)
            return self.normal((images[:, 1, 8, 8] / images[:, 0, 8, 8]).log(), 0.09)
        seen = (images[:, 0, 4, 8] / images[:, 0, 8, 8]).log()
        return self.normal(seen, 0.09 if self.source != "numbers" else 99999.5)

    @torch.jit.export
    def sample(self, features: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return features


class ImageAlone(Toy):
    """The same, called with the image alone."""

    def forward(self, images: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return self.sample(self.prefix(images), keys)

    @torch.jit.export
    def prefix(self, images: torch.Tensor) -> torch.Tensor:
        if self.label == "parity":
            return torch.zeros_like(images[:, 0, 0, :2])
        pixel = images[:, 1, 8, 8] if self.label == "color" else images[:, 0, 4, 8]
        return self.normal((pixel / images[:, 0, 8, 8]).log(), 0.09)


class Point(Toy):
    """The mean alone, without a width."""

    @torch.jit.export
    def sample(self, features: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return features[:, :1]


def parameters_of(label):
    names = ("odd", "even") if label == "parity" else (label,)
    return tuple(ParameterInfo(name, "", "", "identity") for name in names)


def write_bundle(path, label, source, *, network=None, head=None):
    numbers = (AuxiliaryInput("catalog_color"), AuxiliaryInput("bit"))
    metadata = BundleMetadata(
        name=f"{label}-{source}",
        version="1",
        architecture="toy",
        input=InputInfo(
            ("g", "r"), 16, 0.168, "nJy", 31.4, auxiliary_inputs=() if source == "image" else numbers
        ),
        head=HeadInfo(head or ("softmax" if label == "parity" else "gaussian")),
        parameters=parameters_of(label),
        dropout_rate=0.0,
    )
    network = (network or (ImageAlone if source == "image" else Toy))(label, source)
    save_bundle(str(path), torch.jit.script(network.eval()), metadata)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store of galaxies and their table; bundles of each label and source."""
    folder = tmp_path_factory.mktemp("information")
    rng = np.random.default_rng(2)
    color, shape = rng.normal(size=(2, N))
    seen_color, seen_shape = color + rng.normal(0, IMAGE_NOISE, N), shape + rng.normal(0, IMAGE_NOISE, N)
    right, bit = rng.integers(0, 2, (2, N))
    images = np.full((N, 2, 16, 16), 1.0, np.float32)
    images[:, 0, 8, 8] = 1000.0
    images[:, 1, 8, 8] = 1000.0 * np.exp(seen_color)
    images[:, 0, 4, 8] = 1000.0 * np.exp(seen_shape)
    images[np.arange(N), 0, 8, np.where(right, 12, 4)] = 500.0
    partition, ids = Partition(5, 7123, 0, N), np.arange(N)
    store = str(folder / "cutouts.zarr")
    ingest.create_groups(store, attributes={"unit": "nJy"}, partitions=[partition], grids=[GRID])
    blocks = [
        block_of(GRID, ("g", "r"), images[part], part) for part in np.array_split(ids, range(256, N, 256))
    ]
    ingest.write_partition(store, partition, GRID, blocks, planes=("image",), fingerprint={"a": 1})
    odd = right ^ bit
    table = {
        "object_id": ids,
        "color": color,
        "shape": shape,
        "odd": odd.astype(float),
        "even": 1.0 - odd,
        "catalog_color": seen_color + rng.normal(0, COPY_NOISE, N),
        "bit": bit.astype(float),
        "mag_i": rng.uniform(18, 24, N),
        "size": rng.uniform(0.3, 3, N),
    }
    write_table(str(folder / "labels.parquet"), pa.table(table))
    for label in ("color", "shape", "parity"):
        for source in ("image", "numbers", "both"):
            write_bundle(folder / f"{label}-{source}.pt", label, source)
    return folder


def measured(folder, output, label, *more):
    """The rows of the table that the command writes."""
    done = CliRunner().invoke(
        app,
        [
            *("models", "information", "--store", str(folder / "cutouts.zarr")),
            *("--labels", str(folder / "labels.parquet"), "-o", str(output), *more),
            *(
                word
                for source in ("image", "numbers", "both")
                for word in (f"--{source}", str(folder / f"{label}-{source}.pt"))
            ),
        ],
    )
    assert done.exit_code == 0, done.output
    return pq.read_table(output).to_pandas()


def near(row, name, expected):
    """Within four bootstrap errors, and the bias of the entropy's neighbors."""
    assert row[name] == pytest.approx(expected, abs=4 * row[f"{name}_error"] + 0.02), name


def test_a_color_is_redundant_as_the_image_has_it_too(folder, tmp_path):
    plot = tmp_path / "color.png"
    bins = ("--magnitude", "mag_i", "--size", "size", "--plot", str(plot))
    table = measured(folder, tmp_path / "color.parquet", "color", *bins)
    row = table.iloc[0]
    assert row["n"] == N
    near(row, "image", channel(IMAGE_NOISE))
    near(row, "numbers", channel(np.hypot(IMAGE_NOISE, COPY_NOISE)))
    assert row["numbers_given_image"] == pytest.approx(0, abs=1e-6)
    near(row, "redundancy_mmi", channel(np.hypot(IMAGE_NOISE, COPY_NOISE)))
    assert row["unique_numbers_mmi"] == pytest.approx(0, abs=1e-6)
    assert row["synergy_mmi"] == pytest.approx(0, abs=1e-6)
    assert table["bins"].tolist() == ["", *["magnitude"] * 4, *["size_arcsec"] * 4]
    assert table["n"].tolist()[1:5] == [375] * 4
    # Here neither magnitude nor size changes anything.
    for _, of_bin in table.iloc[1:].iterrows():
        assert of_bin["image_given_numbers"] == pytest.approx(row["image_given_numbers"], abs=0.2)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_shape_is_unique_to_the_image(folder, tmp_path):
    row = measured(folder, tmp_path / "shape.parquet", "shape").iloc[0]
    near(row, "image_given_numbers", channel(IMAGE_NOISE))
    near(row, "unique_image_mmi", channel(IMAGE_NOISE))
    near(row, "numbers", 0.0)
    assert row["numbers_given_image"] == pytest.approx(0, abs=1e-6)
    assert row["redundancy_mmi"] == pytest.approx(0, abs=0.05)
    assert row["redundancy_ccs"] == pytest.approx(0, abs=0.15)


def test_a_parity_of_a_bit_in_each_source_is_synergy_alone(folder, tmp_path):
    row = measured(folder, tmp_path / "parity.parquet", "parity").iloc[0]
    for measure in ("mmi", "ccs"):
        assert row[f"synergy_{measure}"] == pytest.approx(np.log(2), abs=0.01)
        for part in ("redundancy", "unique_image", "unique_numbers"):
            assert row[f"{part}_{measure}"] == pytest.approx(0, abs=0.01)


def test_log_scores_of_a_table_do_as_well(tmp_path):
    rng = np.random.default_rng(1)
    parity = rng.integers(0, 2, 800)
    half = np.full(800, np.log(0.5))
    table = {
        "image": half,
        "numbers": half,
        "both": np.zeros(800),
        "label": parity,
        "mag": rng.uniform(size=800),
    }
    write_table(str(tmp_path / "scores.parquet"), pa.table(table))
    words = ["models", "information", "--scores", str(tmp_path / "scores.parquet"), "--magnitude", "mag"]
    done = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "out.parquet")])
    assert done.exit_code == 0, done.output
    found = pq.read_table(tmp_path / "out.parquet").to_pandas()
    np.testing.assert_allclose(found["synergy_mmi"], np.log(2), atol=0.02)
    table["both"] = np.where(parity == 1, 0.0, -np.inf)
    write_table(str(tmp_path / "scores.parquet"), pa.table(table))
    done = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "out.parquet")])
    assert done.exit_code != 0
    assert "have a log score that is not finite" in str(done.exception)


def test_networks_that_do_not_fit_are_refused(folder):
    source = DataSource(str(folder / "cutouts.zarr"), (str(folder / "labels.parquet"),))

    def paths(image="color-image", numbers="color-numbers", both="color-both"):
        return {
            "image": str(folder / f"{image}.pt"),
            "numbers": str(folder / f"{numbers}.pt"),
            "both": str(folder / f"{both}.pt"),
        }

    with pytest.raises(UsageError, match="--image: color-both takes the numbers catalog_color, bit as well"):
        prepare_information(paths(image="color-both"), source)
    with pytest.raises(UsageError, match="--numbers: shape-numbers has other parameters than color-both"):
        prepare_information(paths(numbers="shape-numbers"), source)
    with pytest.raises(UsageError, match="networks of classes and of values cannot be compared"):
        prepare_information(paths(image="parity-image"), source)
    with pytest.raises(UsageError, match="--store and --labels"):
        prepare_information(paths(), DataSource())
    write_bundle(folder / "color-point.pt", "color", "both", network=Point, head="point")
    with pytest.raises(UsageError, match="--both: color-both gives single values, which have no density"):
        prepare_information(paths(both="color-point"), source)


def test_vectors_are_found_among_the_numbers_of_both_networks():
    latents, color, bit = AuxiliaryInput("latents", length=3), AuxiliaryInput("color"), AuxiliaryInput("bit")
    both = InputInfo(auxiliary_inputs=(color, latents, bit))
    assert _columns_of(InputInfo(auxiliary_inputs=(bit, latents)), both) == [4, 1, 2, 3]
    assert _columns_of(InputInfo(), both) == []
    metadata = BundleMetadata("own", "1", "toy", both, HeadInfo("gaussian"), parameters_of("color"), 0.0)
    shorter = InputInfo(auxiliary_inputs=(AuxiliaryInput("latents", length=2),))
    with pytest.raises(UsageError, match=r"takes latents \(2 numbers\), which own does not"):
        _check_fits("numbers", dataclasses.replace(metadata, input=shorter), metadata)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (pa.array([None, 1, 1]), "1 of 3 rows have no label"),
        (pa.array(["a", None, None]), "2 of 3 rows have no label"),
        (pa.array([np.nan, 0.5, 0.2]), "1 of 3 rows have no label"),
        (pa.array([], pa.int64()), "0 of 0 rows have no label"),
    ],
    ids=["integer", "text", "number", "no-rows"],
)
def test_scores_of_objects_without_labels_are_refused(tmp_path, labels, message):
    scores = {name: np.zeros(len(labels)) for name in ("image", "numbers", "both")}
    pq.write_table(pa.table({**scores, "label": labels}), tmp_path / "scores.parquet")
    with pytest.raises(UsageError, match=message):
        read_scores(str(tmp_path / "scores.parquet"))
