"""Photometry as a step of a run: on by default, alone on a finished store, made again for other settings, and off."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import galbatch
from galbatch import catalog, config, execution, ingest, models, photometry
from galbatch.core.columns import photometry_columns
from galbatch.core.flags import ModelFlag
from galbatch.core.types import CutoutBlock, Grid
from galbatch.errors import FingerprintError
from galbatch.models.metadata import PhotometryFit
from galbatch.simulation import PIXEL_SCALE_ARCSEC

OFF = ("[flags]", "[photometry]\nenabled = false\n[flags]")
ONE_BAND = ("[flags]", '[photometry]\ndetect_in = "r"\n[flags]')
FLAT = ("[flags]", "[flags]\nflat_core_share = 0.0042")
"""By this threshold some objects have a flag of the photometry, by the default none of these few."""


@pytest.fixture(scope="module")
def write_small(write_run, tmp_path_factory):
    """Write a run.toml of few passes into a folder of the module."""
    folder = tmp_path_factory.mktemp("photometry")

    def write(name, replace=()):
        changes = (*replace, FLAT)
        return config.read_config(write_run(folder / name, max_objects=60, passes=2, replace=changes))

    return write


def execute(parsed, client, **changes):
    return execution.execute(parsed, execution.prepare(parsed), client, **changes)


def leaf_paths(parsed):
    """Paths of the catalog's leaves, sorted."""
    path = parsed.catalog.path
    return sorted(catalog.leaf_path(path, pixel) for pixel in catalog.list_leaves(path))


def leaves(parsed, columns=None):
    """Data columns of every leaf, by the leaf's path, as text: NaN equals NaN."""
    return [
        repr(pq.read_table(path, columns=columns, partitioning=None).to_pydict())
        for path in leaf_paths(parsed)
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


def test_the_flags_of_the_photometry_are_in_the_catalog(whole):
    table = pa.concat_tables(pq.read_table(path, partitioning=None) for path in leaf_paths(whole))
    flags = table.column("flags").to_numpy()
    values = {
        column.name: table.column(column.name).to_numpy(zero_copy_only=False)
        for column in photometry_columns(("g", "r"))
    }
    blank = np.zeros((len(table), 2, 1, 1), np.float32)
    cutouts = CutoutBlock.of_images(blank, ("g", "r"), Grid(1, PIXEL_SCALE_ARCSEC))
    expected = photometry.photometry_flags(
        values, dataclasses.replace(cutouts, flags=flags), thresholds=whole.flags
    )
    assert expected.any()
    # An object on two grids has the flags of both cutouts, and the columns of one.
    assert (flags & expected).tolist() == expected.tolist()


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


def second_opinion(limit):
    """The g flux of the network is expected to be that of the aperture, to a tenth; above `limit` tenths objects are flagged."""
    return models.DisagreementInfo(
        version=1,
        photometry_version=photometry.PHOTOMETRY_VERSION,
        centers=(0.0,) * 4,
        scales=(1.0,) * 4,
        lowest=(0.0,) * 4,
        highest=(0.0,) * 4,
        fits=(PhotometryFit("flux_njy", (0.0, 1.0, *(0.0,) * 10), (0.01, 0.0, 0.0)),),
        rates=(0.1, 0.01),
        limits=(limit / 2, limit),
        n_objects=2000,
    )


def test_a_bundle_with_a_second_opinion_has_its_column_and_flag(whole, write_small, client, tmp_path):
    bundle = models.load_bundle(models.bundle_path("demo:gampen"))
    path, limit = str(tmp_path / "gampen.pt"), 2.0
    known = dataclasses.replace(bundle.metadata, disagreement=second_opinion(limit))
    models.rewrite_bundle(models.bundle_path("demo:gampen"), path, known)
    plain = str(tmp_path / "sfnet.pt")
    metadata = models.load_bundle(models.bundle_path("demo:sfnet")).metadata
    models.rewrite_bundle(
        models.bundle_path("demo:sfnet"), plain, dataclasses.replace(metadata, disagreement=None)
    )
    changes = [
        (f'bundle = "demo:{name}"', f'bundle = "{file}"')
        for name, file in (("gampen", path), ("sfnet", plain))
    ]
    parsed = write_small("opinion", changes)
    assert execute(parsed, client).complete
    table = galbatch.open_catalog(parsed.catalog.path).to_pandas()
    aperture = np.log(table["phot_flux_njy_g"].where(table["phot_flux_njy_g"] > 0))
    expected = (np.log(table["gampen_flux_njy_q500"]) - aperture).abs() / 0.1
    has = expected.notna() & table["phot_half_light_radius_arcsec_g"].notna()
    assert has.sum() > 50
    np.testing.assert_allclose(table["gampen_disagreement"][has], expected[has], rtol=1e-3, atol=1e-3)
    assert table["gampen_disagreement"][expected.isna()].isna().all()
    flagged = (table["gampen_flags"] & int(ModelFlag.INCONSISTENT)) != 0
    assert (flagged == (table["gampen_disagreement"] > limit)).all()
    assert 0 < flagged.sum() < len(table)
    # The other network has no second opinion, and no such column.
    assert "sfnet_disagreement" not in table
    # Without photometry nothing is known, also of objects that are taken from an older catalog with their flags.
    named = (
        f'[cutouts]\nbase = "{parsed.cutouts.store}"\n[catalog]\nbase = "{parsed.catalog.path}"\n[cluster]'
    )
    off = write_small("opinion_off", [*changes, OFF, ("[cluster]", named)])
    result = execute(off, client)
    assert (result.complete, result.n_passes) == (True, 0)
    blind = galbatch.open_catalog(off.catalog.path).to_pandas()
    assert blind["gampen_disagreement"].isna().all()
    assert not ((blind["gampen_flags"] & int(ModelFlag.INCONSISTENT)) != 0).any()
