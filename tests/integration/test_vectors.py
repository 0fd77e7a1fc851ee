"""Vectors as a network's input and as its output: fixed-size lists of the object list in, a fixed-size list column out."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from astropy.table import Table
from torch import Tensor, nn

from galbatch import api, catalog, config, errors, execution, reporting
from galbatch.core.flags import ModelFlag
from galbatch.models import (
    AuxiliaryInput,
    BundleMetadata,
    HeadInfo,
    InputInfo,
    ParameterInfo,
    save_bundle,
    script_of,
)
from galbatch.models.networks import Mlp

N, N_LATENTS, N_OUT = 60, 4, 3
TAKEN = (AuxiliaryInput("g_r", "mag"), AuxiliaryInput("latents", length=N_LATENTS))
RUN = """
[objects]
path = "objects.parquet"
[catalog]
path = "catalog"
[plan]
max_objects_per_partition = 30
[cutouts]
store = "cutouts.zarr"
[[models]]
name = "dense"
bundle = "dense.pt"
[[models]]
name = "sed"
bundle = "sed.pt"
"""


class Spectrum(nn.Module):
    """A network of somebody else's making: a spectrum from latents, with noise of its own that depends on the keys."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1 + N_LATENTS, N_OUT)

    def prefix(self, auxiliary: Tensor) -> Tensor:
        return self.linear(auxiliary)

    def sample(self, features: Tensor, keys: Tensor) -> Tensor:
        return features + ((keys % 1000).to(torch.float32) / 1000.0 - 0.5).unsqueeze(1)


def metadata(name, head, parameter, **more):
    given = InputInfo(auxiliary_inputs=TAKEN)
    return BundleMetadata(name, "1", "mlp", given, head, (parameter,), 0.0, **more)


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(3)
    return Mlp(1 + N_LATENTS, 2, hidden=(8,), dropout_rate=0.0).eval(), Spectrum().eval()


@pytest.fixture(scope="module")
def objects():
    rng = np.random.default_rng(4)
    latents = rng.normal(size=(N, N_LATENTS)).astype(np.float32)
    lists = [None if row == 7 else values.tolist() for row, values in enumerate(latents)]
    lists[8] = [None] * N_LATENTS
    table = {
        "object_id": np.arange(1000, 1000 + N),
        "ra_deg": 150.0 + rng.uniform(0, 1, N),
        "dec_deg": 2.0 + rng.uniform(0, 1, N),
        "g_r": rng.uniform(0, 1, N).astype(np.float32),
    }
    return pa.table({**table, "latents": pa.array(lists, pa.list_(pa.float32(), N_LATENTS))}), latents


@pytest.fixture(scope="module")
def folder(tmp_path_factory, networks, objects):
    folder = tmp_path_factory.mktemp("vectors")
    pq.write_table(objects[0], folder / "objects.parquet")
    (folder / "run.toml").write_text(RUN)
    mass = ParameterInfo("mass", "", "log10 of the mass", "identity", location=10.0, scale=2.0)
    save_bundle(
        str(folder / "dense.pt"), script_of(networks[0]), metadata("dense", HeadInfo("gaussian"), mass)
    )
    spectrum = ParameterInfo("flux", "nJy", "flux of a spectrum", "identity")
    head = HeadInfo("vector", length=N_OUT)
    save_bundle(str(folder / "sed.pt"), _scripted(networks[1]), metadata("sed", head, spectrum, draws=True))
    return folder


def _scripted(network):
    """Return a script that has the two methods of a bundle."""
    for name in ("prefix", "sample"):
        setattr(type(network), name, torch.jit.export(getattr(type(network), name)))
    return torch.jit.script(network)


@pytest.fixture(scope="module")
def parsed(folder, client):
    parsed = config.read_config(folder / "run.toml")
    result = execution.execute(parsed, execution.prepare(parsed), client)
    assert (result.failed, result.complete) == ({}, True)
    return parsed


@pytest.fixture(scope="module")
def rows(parsed):
    table = pa.Table.from_batches(pq.ParquetDataset(f"{parsed.catalog.path}/dataset").read().to_batches())
    return table.sort_by("object_id")


def fed(objects):
    table, latents = objects
    return torch.from_numpy(np.column_stack([table["g_r"].to_numpy(), latents]))


def test_numbers_and_vectors_reach_the_network_in_the_bundles_order(rows, networks, objects):
    keys = torch.zeros(N, dtype=torch.int64)
    with torch.no_grad():
        expected = 10.0 + 2.0 * networks[0](fed(objects), keys).numpy()[:, 0]
    found = rows["dense_mass_q500"].to_pandas().to_numpy()
    there = np.delete(np.arange(N), [7, 8])
    np.testing.assert_allclose(found[there], expected[there], rtol=1e-5)
    assert np.isnan(found[[7, 8]]).all()
    flags = rows["dense_flags"].to_numpy()
    assert (flags[[7, 8]] == int(ModelFlag.MISSING_PIXELS)).all()
    assert (flags[there] == 0).all()


def test_a_vector_is_the_mean_over_the_passes_and_a_missing_one_a_list_of_nulls(rows, networks, objects):
    column = rows["sed_flux_vector"]
    assert (column.type.value_type, column.type.list_size) == (pa.float32(), N_OUT)
    found = column.to_pylist()
    assert found[7] == found[8] == [None] * N_OUT
    with torch.no_grad():
        bare = networks[1].linear(fed(objects)).numpy()
    there = np.delete(np.arange(N), [7, 8])
    values = np.array([found[row] for row in there])
    # Draws are uniform within 0.5 of the value, std 0.289: the mean of 400 is off by 0.0144, and 5 times that in none of 58.
    apart = values - bare[there]
    assert np.abs(apart).max() < 0.072
    assert apart.std() == pytest.approx(1 / np.sqrt(12 * 400), rel=0.4)
    assert (rows["sed_passes"].to_numpy()[there] == 400).all()
    assert (rows["sed_flags"].to_numpy()[there] == int(ModelFlag.NO_POSTERIOR)).all()
    assert not [name for name in rows.column_names if name.startswith("sed_flux_q")]


def test_astropy_the_report_and_verify_read_it(parsed, folder):
    path = parsed.catalog.path
    assert catalog.verify(path) == []
    assert execution.verify_against(parsed, path) == []
    leaves = sorted((folder / "catalog" / "dataset").rglob("*.parquet"))
    tables = [Table.read(leaf, format="parquet.votable") for leaf in leaves if leaf.name[0] == "N"]
    assert sum(len(table) for table in tables) == N
    assert tables[0]["sed_flux_vector"].shape[1:] == (N_OUT,)
    assert str(tables[0]["sed_flux_vector"].unit) == "nJy"
    reporting.write_report(path, str(folder / "report.html"))
    assert "sed" in (folder / "report.html").read_text()
    assert len(api.open_catalog(path).table(["object_id", "sed_flux_vector"])) == N


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (pa.array([[1.0, 2.0]] * N), r"the list in row 0 has 2 numbers, expected lists of 4 numbers"),
        (pa.array([1.0] * N), r"column latents holds double, expected lists of 4 numbers"),
    ],
    ids=["other length", "numbers"],
)
def test_a_column_that_is_no_such_vector_is_refused_before_anything_starts(
    objects, folder, tmp_path, latents, message
):
    table = objects[0]
    place = table.column_names.index("latents")
    pq.write_table(table.set_column(place, "latents", latents), tmp_path / "objects.parquet")
    parsed = config.read_config(folder / "run.toml")
    changed = parsed.objects.model_copy(update={"path": str(tmp_path / "objects.parquet")})
    with pytest.raises(errors.ObjectListError, match=message):
        execution.prepare(parsed.model_copy(update={"objects": changed}))
