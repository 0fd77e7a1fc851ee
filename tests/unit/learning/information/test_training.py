"""The three networks of a comparison are trained by its command, on one split of the same galaxies.

The pixels and the catalog show the same color with noise of their own, so that what each tells of it is known beforehand.
"""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from galbatch import ingest
from galbatch.cli.app import app
from galbatch.core.pixels import Partition
from galbatch.core.types import Grid
from galbatch.errors import ConfigError, UsageError
from galbatch.learning import DataSource, prepare_information_training
from galbatch.models import read_bundle_metadata
from galbatch.objects import write_table
from tests.unit.learning.blocks import block_of

GRID, N = Grid(8, 0.168), 1200
IMAGE_NOISE, COPY_NOISE = 0.3, 0.4
SETTINGS = """
bands = ["g", "r"]
head = "gaussian"
width = 0.03125
n_top_features = 2
optimizer = "adam"
learning_rate = 0.01
schedule = "cosine"
batch = 64
epochs = 3
frozen_norm_share = 0.4
augmentation = false
zero_point_mag = 31.4
seed = 7
test_share = 0.4
[[parameters]]
name = "color"
transform = "identity"
unit = "mag"
description = "color"
[[auxiliary_inputs]]
name = "catalog_color"
[[auxiliary_inputs]]
name = "noise"
[numbers]
hidden = [16]
epochs = 30
batch = 32
learning_rate = 0.01
[both]
epochs = 2
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store of galaxies, the table of their colors and numbers, and settings of networks."""
    folder = tmp_path_factory.mktemp("information")
    rng = np.random.default_rng(2)
    color = rng.normal(size=N)
    seen = color + rng.normal(0, IMAGE_NOISE, N)
    images = np.full((N, 2, 8, 8), 100.0, np.float32)
    images[:, 1] *= np.exp(seen)[:, None, None]
    partition, ids = Partition(5, 7123, 0, N), np.arange(N)
    store = str(folder / "cutouts.zarr")
    ingest.create_groups(store, attributes={"unit": "nJy"}, partitions=[partition], grids=[GRID])
    blocks = [
        block_of(GRID, ("g", "r"), images[part], part) for part in np.array_split(ids, range(256, N, 256))
    ]
    ingest.write_partition(store, partition, GRID, blocks, planes=("image",), fingerprint={"a": 1})
    table = {
        # The last 100 have no cutout: they must not be in any network's training.
        "object_id": np.arange(N + 100),
        "color": np.append(color, np.zeros(100)),
        "catalog_color": np.append(seen + rng.normal(0, COPY_NOISE, N), np.zeros(100)),
        "noise": rng.normal(size=N + 100),
    }
    write_table(str(folder / "labels.parquet"), pa.table(table))
    (folder / "train.toml").write_text(SETTINGS)
    return folder


def command(folder, *more):
    words = ["models", "information", "--settings", str(folder / "train.toml"), "--architecture", "sfnet"]
    tables = ["--store", str(folder / "cutouts.zarr"), "--labels", str(folder / "labels.parquet")]
    return CliRunner().invoke(app, [*words, *tables, "--passes", "2", *more])


@pytest.fixture(scope="module")
def trained(folder):
    """What the command printed and wrote."""
    output, networks = folder / "information.parquet", folder / "networks"
    done = command(folder, "--networks", str(networks), "-o", str(output))
    assert done.exit_code == 0, done.output
    return done.output, pq.read_table(output).to_pandas().iloc[0], networks


def test_three_networks_are_trained_on_one_split(trained):
    _, row, networks = trained
    metadata = {
        name: read_bundle_metadata(str(networks / f"{name}.pt"))[0] for name in ("image", "numbers", "both")
    }
    parts = {
        name: [one.training[f"n_{part}"] for part in ("training", "validation", "test")]
        for name, one in metadata.items()
    }
    assert parts["image"] == parts["numbers"] == parts["both"]
    assert sum(parts["both"]) == N
    assert row["n"] == parts["both"][2]
    numbers = [one.name for one in metadata["both"].input.auxiliary_inputs]
    assert (
        numbers
        == [one.name for one in metadata["numbers"].input.auxiliary_inputs]
        == ["catalog_color", "noise"]
    )
    assert metadata["image"].input.auxiliary_inputs == ()
    assert (metadata["image"].input.bands, metadata["numbers"].input.bands) == (("g", "r"), ())
    # A network's own settings, and those of all.
    assert [metadata[name].training["epochs"] for name in metadata] == [3, 30, 2]
    assert {one.training["seed"] for one in metadata.values()} == {7}
    assert {one.training["store"] for one in metadata.values()} == {"cutouts.zarr"}


def test_what_the_numbers_tell_is_found(trained):
    _, row, _ = trained
    noise = np.hypot(IMAGE_NOISE, COPY_NOISE)
    expected = 0.5 * np.log(1 + 1 / noise**2)  # 0.80 nats
    assert row["numbers"] == pytest.approx(expected, abs=0.15)
    # A bound from a network of 2 channels that saw 12 batches an epoch; it has learned something.
    assert row["image"] > 0.3


def test_networks_that_are_there_are_taken(folder, trained, tmp_path):
    _, row, networks = trained
    given = ["--image", str(networks / "image.pt"), "--both", str(networks / "both.pt")]
    done = command(folder, *given, "--networks", str(tmp_path / "new"), "-o", str(tmp_path / "out.parquet"))
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "new").glob("*.pt")) == ["numbers.pt"]
    found = pq.read_table(tmp_path / "out.parquet").to_pandas().iloc[0]
    assert found["image"] == row["image"]
    # The same seed gives the same network, but for the masks of its passes, which follow from its file.
    assert found["numbers"] == pytest.approx(row["numbers"], abs=0.05)
    done = command(folder, *given, "--numbers", str(networks / "numbers.pt"))
    assert "so nothing is left to train" in str(done.exception)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('head = "gaussian"', "", "the network of image has a point head, whose values have no density"),
        ("test_share = 0.4", "test_share = 0.0", "test_share: is 0; the networks are compared on"),
        ("[both]\n", "[both]\nseed = 2\n", r"\[both\] seed: the same for all three networks"),
        ("[numbers]\n", "[numbers]\nhiden = [3]\n", "hiden"),
        (
            "[both]\nepochs = 2\n",
            "[[both]]\nepochs = 2\n",
            "both must be a table of the settings of one network",
        ),
    ],
    ids=["point-head", "no-test", "another-seed", "unknown", "no-table"],
)
def test_settings_that_leave_nothing_to_compare_are_refused(folder, tmp_path, old, new, message):
    assert old in SETTINGS
    path = tmp_path / "train.toml"
    path.write_text(SETTINGS.replace(old, new))
    source = DataSource(str(folder / "cutouts.zarr"), (str(folder / "labels.parquet"),))
    with pytest.raises((UsageError, ConfigError), match=message):
        prepare_information_training(path, tmp_path / "networks", source=source, architecture="sfnet")
    assert not (tmp_path / "networks").exists()


def test_numbers_and_a_network_of_images_are_needed(folder, tmp_path):
    start, _, rest = SETTINGS.partition("[[auxiliary_inputs]]")
    (tmp_path / "train.toml").write_text(start)
    source = DataSource(str(folder / "cutouts.zarr"), (str(folder / "labels.parquet"),))
    with pytest.raises((UsageError, ConfigError), match="auxiliary_inputs: missing"):
        prepare_information_training(
            tmp_path / "train.toml", tmp_path / "networks", source=source, architecture="sfnet"
        )
    with pytest.raises(UsageError, match="--architecture mlp: expected a network of images"):
        prepare_information_training(
            folder / "train.toml", tmp_path / "networks", source=source, architecture="mlp"
        )
    with pytest.raises(UsageError, match="--store and --labels"):
        prepare_information_training(folder / "train.toml", tmp_path / "networks", source=DataSource())
    assert rest
