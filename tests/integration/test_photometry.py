"""Photometry as a step of a run: on by default, alone on a finished store, made again for other settings, and off."""

import pyarrow.parquet as pq
import pytest

from galbatch import catalog, config, execution, ingest
from galbatch.core.columns import photometry_columns
from galbatch.errors import FingerprintError

OFF = ("[flags]", "[photometry]\nenabled = false\n[flags]")
ONE_BAND = ("[flags]", '[photometry]\ndetect_in = "r"\n[flags]')


@pytest.fixture(scope="module")
def write_small(write_run, tmp_path_factory):
    """Write a run.toml of few passes into a folder of the module."""
    folder = tmp_path_factory.mktemp("photometry")

    def write(name, replace=()):
        return config.read_config(write_run(folder / name, max_objects=60, passes=2, replace=replace))

    return write


def execute(parsed, client, **changes):
    return execution.execute(parsed, execution.prepare(parsed), client, **changes)


def leaves(parsed, columns=None):
    """Data columns of every leaf, by the leaf's path, as text: NaN equals NaN."""
    paths = [
        catalog.leaf_path(parsed.catalog.path, pixel) for pixel in catalog.list_leaves(parsed.catalog.path)
    ]
    return [
        repr(pq.read_table(path, columns=columns, partitioning=None).to_pydict()) for path in sorted(paths)
    ]


def measured(parsed):
    """Whether each group of the store has its photometry."""
    store = parsed.cutouts.store
    return [ingest.read_photometry_done(store, *key) is not None for key in ingest.list_done(store)]


@pytest.fixture(scope="module")
def whole(write_small, client):
    """A run of all stages at once."""
    parsed = write_small("whole")
    assert execute(parsed, client).complete
    return parsed


def test_a_run_has_photometry_of_every_object_with_pixels(whole):
    assert all(measured(whole))
    names = [column.name for column in photometry_columns(("g", "r"))]
    for pixel in catalog.list_leaves(whole.catalog.path):
        table = pq.read_table(catalog.leaf_path(whole.catalog.path, pixel), partitioning=None)
        assert set(names) <= set(table.column_names)
        covered = table.column("coverage_r").fill_null(0).to_numpy() == 1
        assert table.column("phot_flux_njy_r").is_valid().to_numpy()[covered].all()
        assert (
            not table.column("phot_flux_njy_r")
            .is_valid()
            .to_numpy()[table.column("coverage_r").fill_null(0).to_numpy() == 0]
            .any()
        )


def test_stages_one_by_one_give_the_same(whole, write_small, client):
    parsed = write_small("stages")
    execute(parsed, client, stage="ingest")
    assert not any(measured(parsed))
    result = execute(parsed, client, stage="photometry")
    assert not result.failed
    assert all(measured(parsed))
    assert not catalog.list_leaves(parsed.catalog.path)
    assert execute(parsed, client, stage="infer").complete
    assert leaves(parsed) == leaves(whole)


def test_inference_of_a_store_without_photometry_measures_it_first(whole, write_small, client):
    parsed = write_small("unmeasured")
    execute(parsed, client, stage="ingest")
    assert execute(parsed, client, stage="infer").complete
    assert leaves(parsed) == leaves(whole)


def test_without_cutouts_the_stage_says_what_to_run(write_small, client):
    parsed = write_small("uncut")
    failed = execute(parsed, client, stage="photometry").failed
    assert failed
    assert all(reason.startswith("photometry: ") and "--stage ingest" in reason for reason in failed.values())


def test_off_leaves_the_columns_out(whole, write_small, client):
    parsed = write_small("off", [OFF])
    assert execute(parsed, client).complete
    assert not any(measured(parsed))
    here, there = (catalog.read_schema(one.catalog.path).names for one in (parsed, whole))
    assert [name for name in there if name not in here] == [c.name for c in photometry_columns(("g", "r"))]
    assert leaves(parsed, ["object_id", "gampen_bt_q500"]) == leaves(whole, ["object_id", "gampen_bt_q500"])


def test_other_settings_are_refused_by_the_catalog_and_made_again_in_the_store(whole, write_small, client):
    other = write_small("whole", [ONE_BAND])
    with pytest.raises(FingerprintError, match="photometry detect_in stack; this run uses r"):
        execute(other, client)
    elsewhere = other.model_copy(
        update={"catalog": other.catalog.model_copy(update={"path": other.catalog.path + "_r"})}
    )
    result = execute(elsewhere, client, stage="infer")
    assert result.complete
    assert result.n_cut == 0
    assert leaves(elsewhere, ["phot_radius_arcsec"]) != leaves(whole, ["phot_radius_arcsec"])
