"""A catalog that grows: what is unchanged is taken from the base, and equals a run from nothing byte for byte."""

import os
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from galbatch import catalog, config, execution, ingest
from galbatch.core.types import Grid
from galbatch.errors import ConfigError

SFNET = '[[models]]\nname = "sfnet"\nbundle = "demo:sfnet"\nwhere = "z_best > 0.1"\n'
GAMPEN = 'name = "gampen"\nbundle = "demo:gampen"'
ADAPTIVE = ("passes = 8", 'passes = "adaptive"\nmin_passes = 8\nmax_passes = 16\nkeep_pass_outputs = true')


def with_base(folder):
    """Replacements in run.toml that name the outputs in `folder` as the base."""
    return ("[cluster]", f'[cutouts]\nbase = "{folder}/cutouts.zarr"\n[catalog]\nbase = "{folder}/catalog"\n[cluster]')


@pytest.fixture(scope="module")
def run(write_run, client):
    """Run a run.toml, of which keywords replace parts, and return its config, result and plan."""

    def run(folder, **changes):
        parsed = config.read_config(write_run(folder, **changes))
        plan = execution.prepare(parsed)
        result = execution.execute(parsed, plan, client)
        assert result.complete
        return parsed, result, plan

    return run


@pytest.fixture(scope="module")
def first_objects(survey, tmp_path_factory):
    """The first 70 of the survey's 120 objects."""
    path = tmp_path_factory.mktemp("lists") / "first.parquet"
    pq.write_table(pq.read_table(survey / "objects.parquet").slice(0, 70), path)
    return path


@pytest.fixture(scope="module")
def older(run, tmp_path_factory, first_objects):
    """A run of the first objects with one network: the base of the others."""
    folder = tmp_path_factory.mktemp("older")
    run(folder, objects=first_objects, replace=[(SFNET, "")])
    return folder


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """A run of all objects with both networks, from nothing."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder)


def cutouts(store):
    """Every array of the cutouts of a store, (object, ..) sorted by id, by grid and name."""
    found = {}
    for pixel, grid in ingest.list_done(store):
        for block in ingest.read_blocks(store, pixel, grid):
            for name in ("object_id", "image", "crpix", "flags", "tile", "n_tiles", "band_key", "sky_sigma_njy"):
                found.setdefault((grid, name), []).append(getattr(block, name))
    result = {key: np.concatenate(values) for key, values in found.items()}
    order = {grid: np.argsort(values) for (grid, name), values in result.items() if name == "object_id"}
    return {key: values[order[key[0]]] for key, values in result.items()}


def assert_equal_outputs(here, expected):
    found, wanted = (catalog.read_catalog(str(folder / "catalog")) for folder in (here, expected))
    assert found.equals(wanted)
    found, wanted = (cutouts(str(folder / "cutouts.zarr")) for folder in (here, expected))
    assert found.keys() == wanted.keys()
    for key, values in wanted.items():
        assert found[key].tobytes() == values.tobytes(), key


def unchanged(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_more_objects_and_another_network_and_another_division(run, older, whole, tmp_path):
    before = unchanged(older)
    _, result, plan = run(tmp_path, max_objects=31, replace=[with_base(older)])
    expected, (_, from_nothing, other) = whole
    assert {p.partition.pixel for p in plan.partitions} != {p.partition.pixel for p in other.partitions}
    assert_equal_outputs(tmp_path, expected)
    table = catalog.read_catalog(str(tmp_path / "catalog"))
    selected = int((table["z_best"].to_numpy() > 0.1).sum())
    # Cutouts of the older grid are there for 70 objects; values of gampen as well, those of sfnet are new.
    assert result.n_cutouts_taken == 70
    assert result.n_cut == from_nothing.n_cut - 70 == 120 + selected - 70
    assert result.n_values_taken == 70
    passes = table["gampen_passes"].to_numpy()
    older_ids = catalog.read_catalog(str(older / "catalog"), columns=["object_id"])["object_id"].to_numpy()
    known = np.isin(table["object_id"].to_numpy(), older_ids)
    assert result.n_passes == from_nothing.n_passes - passes[known].sum() < from_nothing.n_passes
    assert unchanged(older) == before
