"""Networks on two grids, each for other objects: only selected pairs are cut, and everything else says so."""

import numpy as np
import pytest
import torch
import zarr

from galbatch import catalog, config, execution
from galbatch.core.flags import ModelFlag
from galbatch.models import BundleMetadata, HeadInfo, InputInfo, ParameterInfo, save_bundle, script_of
from galbatch.models.networks import Sfnet


@pytest.fixture(scope="module")
def small_bundle(tmp_path_factory):
    """An untrained network that takes 40 px in r."""
    torch.manual_seed(4)
    path = tmp_path_factory.mktemp("bundle") / "small.pt"
    metadata = BundleMetadata(
        name="small",
        version="0",
        architecture="sfnet",
        input=InputInfo(("r",), 40, 0.168, "nJy", 31.4),
        head=HeadInfo("gaussian"),
        parameters=(ParameterInfo("mag_r", "mag", "r magnitude", "identity", location=18.0),),
        dropout_rate=0.05,
    )
    save_bundle(str(path), script_of(Sfnet(1, 2, k=4, width=1 / 8, dropout_rate=0.05)), metadata)
    return path


def test_only_selected_pairs_are_cut(write_run, small_bundle, tmp_path, client):
    text = f'[[models]]\nname = "small"\nbundle = "{small_bundle}"\nwhere = "z_best > 0.2"\n[posterior]'
    run_toml = write_run(
        tmp_path,
        max_objects=20,
        passes=4,
        replace=[
            ('bundle = "demo:gampen"', 'bundle = "demo:gampen"\nwhere = "z_best < 0.15"'),
            ('where = "z_best > 0.1"', 'where = "z_best < 0.1"'),
            ("[posterior]", text),
        ],
    )
    parsed = config.read_config(run_toml)
    plan = execution.prepare(parsed)
    assert execution.execute(parsed, plan, client).failed == {}
    frame = catalog.read_catalog(parsed.catalog.path).to_pandas().set_index("object_id")
    z = frame["z_best"]
    assert len(frame) == len(plan.objects)
    selected = {"gampen": z < 0.15, "sfnet": z < 0.1, "small": z > 0.2}
    for name, expected in selected.items():
        assert 0 < expected.sum() < len(frame)
        unselected = (frame[f"{name}_flags"].to_numpy() & ModelFlag.NOT_SELECTED) != 0
        np.testing.assert_array_equal(unselected, ~expected)
        assert (frame.loc[unselected, f"{name}_passes"] == 0).all()
    assert frame.loc[~(z > 0.2), "small_mag_r_q500"].isna().all()
    assert frame.loc[z > 0.2, "small_mag_r_q500"].notna().mean() > 0.9
    cut = {"96px_0.168arcsec": set(frame.index[z < 0.15]), "40px_0.168arcsec": set(frame.index[z > 0.2])}
    for label, expected in cut.items():
        found = []
        for part in plan.partitions:
            group = zarr.open_group(f"{parsed.cutouts.store}/{part.partition.path}/{label}", mode="r")
            found += group["object_id"][:].tolist()
        assert len(found) == len(set(found))
        assert set(found) == expected
    neither = frame[(z >= 0.15) & (z <= 0.2)]
    assert len(neither) > 0
    assert plan.projection.n_cutouts == (len(cut["40px_0.168arcsec"]), len(cut["96px_0.168arcsec"]))
