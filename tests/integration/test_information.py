"""What images add to numbers, by networks that the command trains, on simulated galaxies of which it is known.

Color and shape are normal numbers of width 1. The pixels show both with noise of their own, the catalog has a noisier copy of the
pixels' color, so that the informations are those of Gaussian channels. The parity is that of a bit in the image (on which side of
the galaxy its companion lies) and of one in the catalog.
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
from galbatch.objects import write_table
from tests.unit.learning.blocks import block_of

GRID, N = Grid(34, 0.168), 3000  # A GaMPEN takes 33 px or more.
IMAGE_NOISE, COPY_NOISE = 0.3, 0.4
COMMON = """
bands = ["g", "r"]
in_channels = 2
augmentation = false
zero_point_mag = 31.4
optimizer = "adam"
schedule = "cosine"
warmup_epochs = 0.5
max_gradient_norm = 1.0
batch = 32
seed = 7
test_share = 0.4
"""
# An sfnet adds the numbers in its only linear layer, which cannot tell a parity of them and the image.
SFNET = 'head = "gaussian"\nwidth = 0.03125\nn_top_features = 8\nlearning_rate = 5e-3\nepochs = 12\nfrozen_norm_share = 0.4\n'
GAMPEN = 'head = "softmax"\nwidth = 0.0625\nlearning_rate = 2e-3\nepochs = 7\n'
NUMBERS = """
[[auxiliary_inputs]]
name = "catalog_color"
[[auxiliary_inputs]]
name = "bit"
[numbers]
hidden = [16]
epochs = 15
learning_rate = 0.01
"""


def channel(noise):
    """The information of a normal number of width 1 that is seen with noise, in nats."""
    return 0.5 * np.log(1 + 1 / noise**2)


BY_IMAGE = channel(IMAGE_NOISE)  # 1.25
BY_COPY = channel(np.hypot(IMAGE_NOISE, COPY_NOISE))  # 0.80


def images_of(color, shape, is_right):
    """Galaxies (object, band, y, x) whose flux in r over that in g, and whose axes, follow from what is seen of color and shape."""
    y, x = np.mgrid[: GRID.size_px, : GRID.size_px] - GRID.size_px // 2
    color, shape, side = (values[:, None, None] for values in (color, shape, np.where(is_right, 10, -10)))
    galaxy = np.exp(-0.5 * ((x * np.exp(-0.15 * shape)) ** 2 + (y * np.exp(0.15 * shape)) ** 2) / 16)
    companion = 0.5 * np.exp(-((x - side) ** 2 + y**2) / 4.5)
    bands = [galaxy + companion, galaxy * np.exp(0.5 * color) + companion]
    return (100 * np.stack(bands, axis=1)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store of the galaxies, and the table of their labels and numbers."""
    folder = tmp_path_factory.mktemp("information")
    rng = np.random.default_rng(2)
    color, shape = rng.normal(size=(2, N))
    seen_color, seen_shape = (values + rng.normal(0, IMAGE_NOISE, N) for values in (color, shape))
    is_right, bit = rng.integers(0, 2, (2, N))
    images, ids = images_of(seen_color, seen_shape, is_right), np.arange(N)
    partition, store = Partition(5, 7123, 0, N), str(folder / "cutouts.zarr")
    ingest.create_groups(store, attributes={"unit": "nJy"}, partitions=[partition], grids=[GRID])
    parts = np.array_split(ids, range(256, N, 256))
    blocks = [block_of(GRID, ("g", "r"), images[part], part) for part in parts]
    ingest.write_partition(store, partition, GRID, blocks, planes=("image",), fingerprint={"a": 1})
    odd = is_right ^ bit
    table = {
        "object_id": ids,
        "color": color,
        "shape": shape,
        "odd": odd.astype(float),
        "even": 1.0 - odd,
        "catalog_color": seen_color + rng.normal(0, COPY_NOISE, N),
        "bit": bit.astype(float),
        "mag_i": rng.uniform(18, 24, N),
    }
    write_table(str(folder / "labels.parquet"), pa.table(table))
    return folder


def informations(folder, *parameters, architecture, settings):
    """Train the three networks of a label, and return the table's row of all objects."""
    named = "".join(
        f'[[parameters]]\nname = "{name}"\ntransform = "identity"\nunit = ""\ndescription = ""\n'
        for name in parameters
    )
    name = parameters[0]
    (folder / f"{name}.toml").write_text(COMMON + settings + named + NUMBERS)
    words = {
        "--settings": f"{name}.toml",
        "--store": "cutouts.zarr",
        "--labels": "labels.parquet",
        "--networks": f"networks_{name}",
        "-o": f"{name}.parquet",
        "--plot": f"{name}.png",
    }
    files = [word for option, file in words.items() for word in (option, str(folder / file))]
    more = ["--architecture", architecture, "--magnitude", "mag_i", "--passes", "4"]
    done = CliRunner().invoke(app, ["models", "information", *files, *more])
    assert done.exit_code == 0, done.output
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    return pq.read_table(folder / f"{name}.parquet").to_pandas().iloc[0]


def near(row, name, expected):
    """Not above by four errors and the bias of the entropy, nor below by three times what these networks fall short."""
    assert expected - 0.2 < row[name] < expected + 4 * row[f"{name}_error"] + 0.02, (name, row[name])


@pytest.mark.slow
def test_a_color_that_the_catalog_has_too_is_redundant(folder):
    row = informations(folder, "color", architecture="sfnet", settings=SFNET)
    near(row, "image", BY_IMAGE)
    near(row, "numbers", BY_COPY)
    near(row, "both", BY_IMAGE)
    near(row, "image_given_numbers", BY_IMAGE - BY_COPY)
    near(row, "numbers_given_image", 0.0)
    near(row, "redundancy_mmi", BY_COPY)


@pytest.mark.slow
def test_a_shape_is_unique_to_the_image(folder):
    row = informations(folder, "shape", architecture="sfnet", settings=SFNET)
    near(row, "image_given_numbers", BY_IMAGE)
    near(row, "unique_image_mmi", BY_IMAGE)
    near(row, "unique_image_ccs", BY_IMAGE)
    near(row, "redundancy_mmi", 0.0)
    near(row, "synergy_mmi", 0.0)
    near(row, "numbers", 0.0)


@pytest.mark.slow
def test_a_parity_of_a_bit_in_each_source_is_synergy_alone(folder):
    row = informations(folder, "odd", "even", architecture="gampen", settings=GAMPEN)
    for measure in ("mmi", "ccs"):
        near(row, f"synergy_{measure}", np.log(2))
        for part in ("redundancy", "unique_image", "unique_numbers"):
            assert row[f"{part}_{measure}"] == pytest.approx(0, abs=0.03)
