"""`galbatch plan` as a newcomer reads it, and the notes that a run repeats."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from typer.testing import CliRunner

from galbatch import config, execution
from galbatch.api import running
from galbatch.cli import app as cli
from galbatch.errors import ConfigError
from galbatch.execution import NetworkRate, Rates, rates
from galbatch.planning import InferenceMemory
from galbatch.planning import plan as plan_module


def planned(run_toml):
    result = CliRunner().invoke(cli.app, ["plan", str(run_toml)])
    if result.exception is not None:
        raise result.exception
    lines = result.stdout.splitlines()
    return {line[:26].strip(): line[26:].strip() for line in lines if line[24:26] == "  "}, lines


@pytest.fixture(scope="module")
def listed(survey):
    return pq.read_table(survey / "objects.parquet").to_pandas()


def test_it_says_what_a_run_takes(write_run, tmp_path, listed):
    table, lines = planned(write_run(tmp_path, max_objects=30))
    n_objects, n_selected = len(listed), int((listed["z_best"] > 0.1).sum())
    assert table["objects"] == f"{n_objects}, 0 rejected"
    assert table["tiles"] == "8 in 2 bands"
    assert table["cutouts 96px_0.168arcsec"] == f"{n_objects} in g r"
    assert table["network gampen"] == f"{n_objects} objects"
    assert table["network sfnet"] == f"{n_selected} objects"
    assert "S3 requests" not in table
    mib = 2**20
    written = float(table["bytes written"].removesuffix(" MiB of cutouts"))
    assert written == pytest.approx(n_objects * 2 * 96 * 96 * 4 / mib, rel=0.01)
    # A block of 256 objects, 10 bytes a pixel, and its image on the way into shards: 63 MiB.
    memory = float(table["memory to cut"].removesuffix(" MiB a worker"))
    assert memory == pytest.approx(400 + (10 + 4) * 256 * 2 * 96 * 96 / mib, abs=1)
    # 600 MiB for the process with torch; two blocks, the files and shard they are read from; for each network the features of 256 objects
    # (38 MiB of the larger one, twice while others join them), their outputs (18 MiB) and what summaries take (48 MiB).
    inferring = float(table["memory to infer"].removesuffix(" MiB a worker"))
    assert 600 + 4 * 256 * 2 * 96 * 96 * 4 / mib + 2 * 48 < inferring < 1000
    assert all(len(line) <= 80 for line in lines if not line.startswith("note"))


def test_notes_are_shown_before_a_run_too(write_run, tmp_path, survey, listed):
    outside = listed.head(3).copy()
    outside["object_id"] = np.arange(3)
    outside["ra_deg"] += 90.0
    outside.to_parquet(tmp_path / "outside.parquet")
    run_toml = write_run(tmp_path / "run", objects=tmp_path / "outside.parquet")
    expected = (
        "note: outside every tile: 3 of 3 objects; they stay in the catalog without values, with the flag "
        "OUTSIDE_FOOTPRINT"
    )
    table, lines = planned(run_toml)
    assert lines[-1] == expected
    assert table["bytes read"] == "0.00 KiB of tiles"
    for label in ("time to cut", "time to infer", "passes an object", "time of a pass"):
        assert table[label] == "not measured"
    assert table["measured on"] == "no object: none with pixels was found"
    result = CliRunner().invoke(cli.app, ["run", str(run_toml), "--workers", "1"])
    assert result.stdout.splitlines()[0] == expected
    assert result.exit_code == 0
    assert re.search(r"^3 of 3 objects in the catalog, \d+\.\d galaxies/s$", result.stdout, re.MULTILINE)
    again = CliRunner().invoke(cli.app, ["run", str(run_toml), "--workers", "1"])
    assert again.exit_code == 0
    # What was done before has no rate.
    assert again.stdout.splitlines()[-1] == "3 of 3 objects in the catalog"


def test_rates_are_those_of_objects_with_pixels(write_run, tmp_path, listed):
    """Sixty objects far from every tile are most of the list, and the middle of its partitions."""
    inside = listed[listed["z_best"] > 0.1].head(5)
    outside = listed.head(60).copy()
    outside["object_id"] = np.arange(60)
    outside["ra_deg"] += np.linspace(-100.0, 100.0, 60)
    outside.loc[
        outside["ra_deg"].between(listed["ra_deg"].min() - 1, listed["ra_deg"].max() + 1), "ra_deg"
    ] += 5
    pd.concat([inside, outside]).to_parquet(tmp_path / "both.parquet")
    parsed = config.read_config(write_run(tmp_path / "run", objects=tmp_path / "both.parquet"))
    plan = execution.prepare(parsed)
    middle = plan.partitions[len(plan.partitions) // 2]
    assert not middle.tiles
    assert middle.projection.n_cutouts == (middle.partition.n_objects,)
    measured = execution.measure_rates(parsed, plan)
    assert measured.n_measured == 5
    assert set(measured.networks) == {"gampen", "sfnet"}
    assert dict(measured.rows(plan, parsed))["measured on"] == "5 of the objects, on this machine"
    # 5 of 65 objects take time: on two workers 5 x 144 s of cutting, 5 x 2 x 720 passes of 1 s.
    networks = {name: NetworkRate(1.0, 720.0) for name in measured.networks}
    rows = dict(dataclasses.replace(measured, cutout_s=144.0, networks=networks).rows(plan, parsed))
    assert rows["time to cut"] == "6 min with 2 workers"
    assert rows["time to infer"] == "60 min with 2 workers"
    assert [model.n_covered for model in plan.models] == [5, 5]
    assert [grid.n_covered for grid in plan.grids] == [5]


def test_objects_are_chosen_from_a_list_with_counts_in_the_plan(write_run, tmp_path, listed):
    """The footprint of a run is a part of the survey's list; what is left has the fingerprints of a list of its own."""
    middle = listed["ra_deg"].median()
    other = write_run(tmp_path / "other", objects=tmp_path / "part.parquet")
    run_toml = write_run(tmp_path / "run")
    text = run_toml.read_text()
    box = f"box_deg = [{middle}, {middle + 1}, -90, 90]"
    run_toml.write_text(text.replace("[objects]", f'[objects]\nwhere = "z_best > 0.1"\nregion = {{ {box} }}'))
    in_box = listed[listed["ra_deg"] >= middle]
    chosen = in_box[in_box["z_best"] > 0.1]
    chosen.to_parquet(tmp_path / "part.parquet")
    table, _ = planned(run_toml)
    assert table["rows in the list"] == str(len(listed))
    assert table["in the region"].startswith(f"{len(in_box)}: {{box_deg")
    assert table["chosen by where"] == f"{len(chosen)}: z_best > 0.1"
    assert table["objects"] == f"{len(chosen)}, 0 rejected"
    plans = [execution.prepare(config.read_config(path)) for path in (run_toml, other)]
    a, b = ([(part.ingest, part.leaf) for part in plan.partitions] for plan in plans)
    assert a == b


def test_a_region_of_tracts_is_what_their_tiles_cover(write_run, tmp_path, listed):
    run_toml = write_run(tmp_path)
    text = run_toml.read_text()

    def plan(tracts):
        run_toml.write_text(text.replace("[objects]", f"[objects]\nregion = {{ tracts = {tracts} }}"))
        return execution.prepare(config.read_config(run_toml))

    tiles = execution.prepare(config.read_config(write_run(tmp_path / "all"))).tiles
    tract = tiles[0].tile_id.partition("/")[0]

    def on_tiles(tiles):
        """The ids of the objects that astropy's WCS puts on the pixels of a tile."""
        found = set()
        for tile in tiles:
            wcs = WCS(fits.Header.fromstring(tile.wcs_header))
            x, y = wcs.all_world2pix(listed["ra_deg"], listed["dec_deg"], 0)
            n_y, n_x = tile.shape_px
            inside = (x >= -0.5) & (x <= n_x - 0.5) & (y >= -0.5) & (y <= n_y - 0.5)
            found |= set(listed["object_id"][inside])
        return found

    for tracts, inside in (([int(tract)], on_tiles(tiles)), ([tiles[0].tile_id], on_tiles(tiles[:1]))):
        objects = plan(tracts).objects
        assert set(objects.take(0, len(objects)).table.object_id.tolist()) == inside
    assert 0 < len(on_tiles(tiles[:1])) < len(on_tiles(tiles))
    with pytest.raises(ConfigError, match=rf"tracts: no tile is of 77; there are tiles of {tract}"):
        plan([77])


def test_networks_that_could_not_be_measured_are_named(write_run, tmp_path):
    parsed = config.read_config(write_run(tmp_path))
    plan = execution.prepare(parsed)
    measured = Rates(5, 0.01, {"gampen": NetworkRate(0.001, 8.0)})
    text = dict(measured.rows(plan, parsed))["time to infer"]
    assert text.endswith("with 2 workers; sfnet: not measured")


def test_what_a_stopping_calibration_would_save_is_told(write_run, tmp_path, monkeypatch):
    """Errors of a fifth and of the whole tolerance at 200 passes ask for 8, so 32, and for 200."""
    parsed = config.read_config(write_run(tmp_path))
    plan = execution.prepare(parsed)
    posterior = parsed.posterior.model_copy(update={"passes": "adaptive"})
    network = rates.load_network(plan.models[0])
    measured = rates._Measured("gampen", network, None, None, None, None)
    given = posterior, np.array([200, 200]), np.array([0.2, 1.0], np.float32) * posterior.tolerance
    assert measured._calibrated_passes(*given) is None
    monkeypatch.setattr("galbatch.models.stopping_digests", lambda *_: ())
    assert measured._calibrated_passes(*given) == pytest.approx((32 + 200) / 2)
    found = Rates(5, 0.01, {"gampen": NetworkRate(0.001, 200.0, 116.0)})
    text = dict(found.rows(plan, parsed))["passes an object"]
    assert text == (
        "gampen 200; about 116 for gampen with a stopping calibration (galbatch models calibrate --stopping-only)"
    )


def test_requests_are_shown_for_tiles_on_s3(write_run, tmp_path, monkeypatch):
    parsed = config.read_config(write_run(tmp_path))
    plan = execution.prepare(parsed)
    monkeypatch.setattr(plan_module.Plan, "is_remote", True)
    on_gpu = InferenceMemory(host_bytes=3 * 2**30, device_bytes=2**30)
    rows = dict(running.plan_rows(plan, on_gpu, parsed))
    assert "S3 requests" in rows
    assert rows["memory to infer"] == "3.00 GiB a worker, and 1.00 GiB on its GPU"


def test_release_and_background_are_recorded(write_run, tmp_path, client):
    import zarr

    from galbatch import catalog

    run_toml = write_run(
        tmp_path,
        max_objects=200,
        passes=2,
        replace=[("[objects]", 'release = "pdr9"\nbackground = "local sky"\n[objects]')],
    )
    parsed = config.read_config(run_toml)
    plan = execution.prepare(parsed)
    assert plan.notes[-1].startswith("[[models]] sfnet was trained on background 'none: simulated")
    execution.execute(parsed, plan, client)
    root = zarr.open_group(parsed.cutouts.store, mode="r").attrs
    assert (root["release"], root["background"]) == (["pdr9"], ["local sky"])
    properties = catalog.read_properties(parsed.catalog.path)
    assert (properties["galbatch_release"], properties["galbatch_background"]) == ("pdr9", "local sky")


def test_one_of_a_kind_is_in_the_singular(write_run, tmp_path, listed):
    listed.head(1).to_parquet(tmp_path / "one.parquet")
    # Both networks are fed with g: the survey has one band.
    run_toml = write_run(
        tmp_path / "run",
        objects=tmp_path / "one.parquet",
        replace=[('bands = ["g", "r"]', 'bands = ["g"]'), ('where = "z_best > 0.1"', 'bands = ["g", "g"]')],
    )
    table, _ = planned(run_toml)
    assert table["tiles"] == "4 in 1 band"
    assert table["network gampen"] == "1 object"
    assert table["partitions"] == "1, of 1 object"


def test_kept_columns_named_as_results_are_refused_before_anything_is_cut(write_run, tmp_path, survey):
    taken = pq.read_table(survey / "objects.parquet")
    taken = taken.append_column("gampen_bt_q500", taken["z_best"])
    pq.write_table(taken, tmp_path / "again.parquet")
    run_toml = write_run(tmp_path / "run", objects=tmp_path / "again.parquet")
    run_toml.write_text(run_toml.read_text().replace("keep = [", 'keep = ["gampen_bt_q500", '))
    with pytest.raises(ConfigError, match="catalog columns gampen_bt_q500: the name is taken"):
        execution.prepare(config.read_config(run_toml))
