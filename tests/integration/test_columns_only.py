"""Networks on columns alone in a run: without a survey, and beside a network on images."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from galbatch import catalog, config, errors, execution, ingest
from galbatch.core.flags import ModelFlag, PixelFlag
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

SURVEY = (
    '[survey]\nlayout = "hsc"\ntiles = "{tiles}/deepCoadd-results/**/calexp-*.fits"\nbands = ["g", "r"]\n'
)
DENSE = '[[models]]\nname = "dense"\nbundle = "{bundle}"\n[posterior]'
GAMPEN = '[[models]]\nname = "gampen"\nbundle = "demo:gampen"\n'
SFNET = '[[models]]\nname = "sfnet"\nbundle = "demo:sfnet"\nwhere = "z_best > 0.1"\n'


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(8)
    return Mlp(1, 2, hidden=(8, 8), dropout_rate=0.0).eval()


@pytest.fixture(scope="module")
def bundle(network, tmp_path_factory):
    """A network without dropout on z_best."""
    path = tmp_path_factory.mktemp("dense") / "dense.pt"
    metadata = BundleMetadata(
        name="dense",
        version="1",
        architecture="mlp",
        input=InputInfo(auxiliary_inputs=(AuxiliaryInput("z_best"),)),
        head=HeadInfo("gaussian"),
        parameters=(ParameterInfo("mass", "", "log10 of the mass", "identity", location=10.0, scale=2.0),),
        dropout_rate=0.0,
    )
    save_bundle(str(path), script_of(network), metadata)
    return path


@pytest.fixture(scope="module")
def columns_toml(write_run, survey, bundle, tmp_path_factory):
    """A run without a survey."""
    replace = [(SURVEY.format(tiles=survey), ""), (GAMPEN, ""), (SFNET, "")]
    replace += [("[posterior]", DENSE.format(bundle=bundle))]
    return write_run(tmp_path_factory.mktemp("columns"), max_objects=30, replace=replace)


def frame_of(parsed):
    return catalog.read_catalog(parsed.catalog.path).to_pandas().set_index("object_id").sort_index()


def expected_median(network, z):
    """What the bare network gives."""
    columns = torch.from_numpy(np.asarray(z, np.float32)[:, None])
    with torch.no_grad():
        outputs = network(columns, torch.zeros(len(columns), dtype=torch.int64)).numpy()
    return 10.0 + 2.0 * outputs[:, 0]


class TestWithoutASurvey:
    def test_every_object_has_the_networks_values_and_no_store_is_made(self, columns_toml, network, client):
        parsed = config.read_config(columns_toml)
        plan = execution.prepare(parsed)
        assert (plan.grids, plan.tiles) == ((), ())
        # The sky is divided by the number of objects alone.
        assert len(plan.partitions) > 3
        assert max(part.partition.n_objects for part in plan.partitions) <= 30
        result = execution.execute(parsed, plan, client)
        assert (result.failed, result.complete, result.n_cut) == ({}, True, 0)
        frame = frame_of(parsed)
        assert len(frame) == len(plan.objects)
        np.testing.assert_allclose(
            frame["dense_mass_q500"], expected_median(network, frame["z_best"]), rtol=1e-5
        )
        assert (frame["dense_flags"] == 0).all()
        # Only what the object list says, and nothing about pixels that nobody looked at.
        list_flags = int(PixelFlag.NEIGHBOR | PixelFlag.DUPLICATE_POSITION)
        assert (frame["flags"] & ~list_flags == 0).all()
        assert not {"tile_id", "n_tiles"} & set(frame.columns)
        made = sorted(
            path.name for path in columns_toml.parent.iterdir() if not path.name.startswith("catalog")
        )
        assert made == ["run.toml"]
        assert execution.verify_against(parsed, parsed.catalog.path) == []
        assert catalog.verify(parsed.catalog.path) == []

    def test_it_is_projected_and_all_done(self, columns_toml):
        parsed = config.read_config(columns_toml)
        plan = execution.prepare(parsed)
        rates = execution.measure_rates(parsed, plan)
        assert rates.networks["dense"].passes == 1.0
        labels = [label for label, _ in rates.rows(plan, parsed)]
        assert labels == ["time to infer", "passes an object", "time of a pass", "measured on"]
        assert execution.measure_memory(parsed, plan).host_bytes > 0
        state = execution.read_progress(parsed, plan)
        assert state.left == []

    def test_a_store_of_another_run_at_its_path_is_no_matter(self, columns_toml, tmp_path, client):
        parsed = config.read_config(columns_toml)
        other = tmp_path / "cutouts.zarr" / "Norder=3" / "Dir=0" / "Npix=7" / "96px_0.168arcsec" / "object_id"
        other.mkdir(parents=True)
        (other / "_done.json").write_text("{}")
        cutouts = parsed.cutouts.model_copy(update={"store": str(tmp_path / "cutouts.zarr")})
        state = execution.read_progress(
            parsed.model_copy(update={"cutouts": cutouts}), execution.prepare(parsed)
        )
        assert state.damaged == ()
        assert len(state.ingested) == len(state.plan.partitions)

    def test_there_is_nothing_to_ingest(self, columns_toml, client):
        parsed = config.read_config(columns_toml)
        with pytest.raises(errors.ConfigError, match="--stage ingest: nothing is to be cut"):
            execution.execute(parsed, execution.prepare(parsed), client, stage="ingest")

    def test_values_are_taken_from_a_base(self, columns_toml, client, tmp_path):
        parsed = config.read_config(columns_toml)
        grown = parsed.catalog.model_copy(update={"path": str(tmp_path / "new"), "base": parsed.catalog.path})
        again = parsed.model_copy(update={"catalog": grown})
        plan = execution.prepare(again)
        result = execution.execute(again, plan, client)
        assert (result.n_values_taken, result.n_passes, result.failed) == (len(plan.objects), 0, {})

    def test_a_missing_column_gives_no_values_and_a_flag(self, survey, write_run, bundle, tmp_path, client):
        table = pq.read_table(survey / "objects.parquet").to_pandas()
        table.loc[3, "z_best"] = np.nan
        table.to_parquet(tmp_path / "objects.parquet")
        replace = [(SURVEY.format(tiles=survey), ""), (GAMPEN, ""), (SFNET, "")]
        replace += [("[posterior]", DENSE.format(bundle=bundle))]
        run_toml = write_run(tmp_path, max_objects=500, objects=tmp_path / "objects.parquet", replace=replace)
        parsed = config.read_config(run_toml)
        assert execution.execute(parsed, execution.prepare(parsed), client).failed == {}
        frame = frame_of(parsed)
        lacking = frame.index == table.loc[3, "object_id"]
        assert lacking.sum() == 1
        assert frame.loc[lacking, "dense_mass_q500"].isna().all()
        assert (frame.loc[lacking, "dense_flags"] == int(ModelFlag.MISSING_PIXELS)).all()
        assert frame.loc[~lacking, "dense_mass_q500"].notna().all()

    def test_a_network_on_images_needs_a_survey(self, survey, write_run, tmp_path):
        run_toml = write_run(tmp_path, replace=[(SURVEY.format(tiles=survey), "")])
        with pytest.raises(
            errors.ConfigError, match=r"gampen: takes images in g, and there is no \[survey\]"
        ):
            execution.prepare(config.read_config(run_toml))


def test_beside_images_it_gives_values_outside_every_tile(
    survey, write_run, bundle, network, tmp_path, client
):
    replace = [(SFNET, ""), ("[posterior]", DENSE.format(bundle=bundle))]
    table = pq.read_table(survey / "objects.parquet").to_pandas()
    # Some objects lie far beyond the survey.
    table.loc[[5, 17, 60], "dec_deg"] += 3.0
    table.to_parquet(tmp_path / "objects.parquet")
    run_toml = write_run(
        tmp_path, max_objects=60, passes=2, objects=tmp_path / "objects.parquet", replace=replace
    )
    parsed = config.read_config(run_toml)
    plan = execution.prepare(parsed)
    assert {model.name: model.n_covered for model in plan.models}["dense"] == len(plan.objects)
    assert execution.execute(parsed, plan, client).failed == {}
    frame = frame_of(parsed)
    outside = (frame["flags"] & int(PixelFlag.OUTSIDE_FOOTPRINT)) != 0
    assert set(table.loc[[5, 17, 60], "object_id"]) <= set(frame.index[outside])
    assert frame.loc[outside, "gampen_bt_q500"].isna().all()
    np.testing.assert_allclose(frame["dense_mass_q500"], expected_median(network, frame["z_best"]), rtol=1e-5)
    assert (frame["dense_flags"] == 0).all()
    assert len(ingest.list_done(parsed.cutouts.store)) == len(plan.partitions)
