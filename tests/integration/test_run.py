"""The whole way on a small simulated survey: rows in = rows out, resume, refuse, fail in part."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from galbatch import catalog, cluster, config, errors, execution, ingest, models
from galbatch.catalog import checksum_path
from galbatch.core.flags import ModelFlag, PixelFlag
from galbatch.core.texts import alike_but_for_case
from galbatch.planning import planner as plan_module


def execute(run_toml, client, **changes):
    parsed = config.read_config(run_toml)
    return parsed, execution.execute(parsed, execution.prepare(parsed), client, **changes)


def frame_of(run_toml):
    parsed = config.read_config(run_toml)
    return catalog.read_catalog(parsed.catalog.path).to_pandas().set_index("object_id").sort_index()


def data_bytes(folder):
    """The data columns of every leaf, as bytes by path."""
    leaves = sorted((folder / "catalog" / "dataset").rglob("Npix=*.parquet"))
    return {
        str(leaf.relative_to(folder)): [
            column.combine_chunks().to_pylist().__repr__() for column in pq.read_table(leaf).columns
        ]
        for leaf in leaves
    }


def cli(*arguments, **options):
    command = [sys.executable, "-m", "galbatch", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=250, **options)


@pytest.fixture(scope="module")
def finished(write_run, client, tmp_path_factory):
    """One finished run that the reading tests share."""
    run_toml = write_run(tmp_path_factory.mktemp("finished"))
    parsed, result = execute(run_toml, client)
    assert result.failed == {}
    assert result.complete
    return run_toml.parent, parsed


class TestTheCatalog:
    def test_every_object_is_there_once(self, finished, survey):
        folder, _ = finished
        objects = pd.read_parquet(survey / "objects.parquet")
        frame = frame_of(folder / "run.toml")
        assert frame.index.is_unique
        assert set(frame.index) == set(objects["object_id"])
        joined = frame.join(objects.set_index("object_id").add_suffix("_in"))
        np.testing.assert_array_equal(joined["ra_deg"], joined["ra_deg_in"])
        np.testing.assert_array_equal(joined["z_best"], joined["z_best_in"])

    def test_it_verifies(self, finished):
        folder, parsed = finished
        assert catalog.verify(parsed.catalog.path) == []
        assert execution.verify_against(config.read_config(folder / "run.toml"), parsed.catalog.path) == []
        assert catalog.read_properties(parsed.catalog.path)["galbatch_complete"] == "true"

    def test_pandas_reads_it_with_columns_and_filters(self, finished):
        folder, _ = finished
        dataset = folder / "catalog" / "dataset"
        frame = pd.read_parquet(
            dataset, columns=["object_id", "gampen_bt_q500"], filters=[("gampen_bt_q500", ">", 0.5)]
        )
        everything = pd.read_parquet(dataset)
        assert len(frame) == (everything["gampen_bt_q500"] > 0.5).sum()
        assert 0 < len(frame) < len(everything)

    def test_lsdb_opens_it_and_finds_a_cone(self, finished):
        import lsdb

        folder, parsed = finished
        frame = frame_of(folder / "run.toml")
        center = frame.iloc[0]
        opened = lsdb.open_catalog(parsed.catalog.path)
        found = opened.cone_search(center["ra_deg"], center["dec_deg"], radius_arcsec=60).compute()
        ours = catalog.cone(
            parsed.catalog.path, ra_deg=center["ra_deg"], dec_deg=center["dec_deg"], radius_arcsec=60
        )
        assert set(found["object_id"]) == set(ours.column("object_id").to_pylist())
        assert center.name in set(found["object_id"])
        assert len(opened.compute()) == len(frame)

    def test_xarray_opens_the_store(self, finished):
        import xarray

        _, parsed = finished
        part = execution.prepare(parsed).partitions[0].partition
        path = f"{parsed.cutouts.store}/{part.path}/96px_0.168arcsec"
        with xarray.open_zarr(path, consolidated=False) as dataset:
            assert dataset["image"].dims == ("object", "band", "y", "x")
            assert dataset["image"].shape == (part.n_objects, 2, 96, 96)
            assert dataset["image"].attrs["units"] == "nJy"
            assert np.isfinite(dataset["image"].to_numpy()).mean() > 0.8

    def test_quantiles_are_monotone_and_no_value_has_a_reason(self, finished):
        folder, _ = finished
        frame = frame_of(folder / "run.toml")
        for parameter in ("gampen_bt", "gampen_re_arcsec", "gampen_flux_njy", "sfnet_mag_r"):
            values = frame[
                [f"{parameter}_q{q}" for q in ("02275", "15865", "500", "84135", "97725")]
            ].to_numpy()
            there = np.isfinite(values).all(axis=1)
            assert (np.diff(values[there], axis=1) >= 0).all()
            name = parameter.split("_")[0]
            assert (frame[f"{name}_flags"].to_numpy()[~there] != 0).all()
            assert there.sum() > 60

    def test_where_selects(self, finished):
        folder, _ = finished
        frame = frame_of(folder / "run.toml")
        unselected = (frame["sfnet_flags"].to_numpy() & ModelFlag.NOT_SELECTED) != 0
        np.testing.assert_array_equal(unselected, ~(frame["z_best"] > 0.1))
        assert frame.loc[unselected, "sfnet_mag_r_q500"].isna().all()
        assert (frame.loc[unselected, "sfnet_passes"] == 0).all()

    def test_each_row_lies_in_its_partition(self, finished):
        _, parsed = finished
        for part in execution.prepare(parsed).partitions:
            p = part.partition
            leaf = pq.read_table(f"{parsed.catalog.path}/dataset/{p.path}.parquet", partitioning=None)
            index = leaf.column("_healpix_29").to_numpy()
            assert (index >> (2 * (29 - p.healpix_order)) == p.healpix_pixel).all()
            assert (np.diff(index) >= 0).all()


class TestStoppingAndStarting:
    def test_a_second_run_does_nothing(self, finished, client):
        folder, _ = finished
        before = {path: path.stat().st_mtime_ns for path in (folder / "catalog" / "dataset").rglob("Npix=*")}
        _, result = execute(folder / "run.toml", client)
        assert result.n_passes == 0
        assert before == {
            path: path.stat().st_mtime_ns for path in (folder / "catalog" / "dataset").rglob("Npix=*")
        }

    @pytest.mark.parametrize("after_leaves", [pytest.param(0, marks=pytest.mark.slow), 2])
    def test_killed_and_run_again_gives_the_same_bytes(
        self, finished, write_run, client, tmp_path, shorten_locks, after_leaves
    ):
        run_toml = write_run(tmp_path)
        process = subprocess.Popen(
            [sys.executable, "-m", "galbatch", "run", run_toml],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 600
        marks = "catalog/dataset/**/Npix=*.parquet" if after_leaves else "cutouts.zarr/**/_done.json"
        while process.poll() is None and len(list(tmp_path.glob(marks))) <= after_leaves:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shorten_locks(tmp_path)
        leaves = {path: path.stat().st_mtime_ns for path in (tmp_path / "catalog").rglob("Npix=*.parquet")}
        _, result = execute(run_toml, client)
        assert result.complete
        assert all(path.stat().st_mtime_ns == written for path, written in leaves.items())
        assert data_bytes(tmp_path) == data_bytes(finished[0])

    def test_other_partitions_and_one_worker_give_the_same_numbers(self, finished, write_run, tmp_path):
        run_toml = write_run(tmp_path, max_objects=50, replace=[("workers = 2", "workers = 1")])
        done = cli("run", run_toml)
        assert done.returncode == 0, done.stderr
        ours, theirs = frame_of(run_toml), frame_of(finished[0] / "run.toml")
        assert list(ours.columns) == list(theirs.columns)
        for name in theirs.columns:
            if theirs[name].dtype.kind == "f" and not name.endswith("_mc_error"):
                np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-4, atol=2e-4, err_msg=name)
        for name in ("flags", "gampen_passes", "object_id"):
            if name in theirs.columns:
                assert ours[name].equals(theirs[name]), name

    def test_stages_apart_equal_all_at_once(self, finished, write_run, client, tmp_path):
        run_toml = write_run(tmp_path)
        _, result = execute(run_toml, client, stage="ingest")
        assert result.n_inferred == 0
        assert not (tmp_path / "catalog" / "dataset").exists()
        execute(run_toml, client, stage="infer")
        assert data_bytes(tmp_path) == data_bytes(finished[0])

    def test_a_killed_worker_costs_nothing_but_time(self, write_run, tmp_path, finished):
        import threading

        run_toml = write_run(tmp_path)
        parsed = config.read_config(run_toml)
        with cluster.connect(parsed.cluster) as own:
            pids = list(own.run(os.getpid).values())

            def kill_one():
                while not list(tmp_path.glob("cutouts.zarr/**/_done.json")):
                    time.sleep(0.02)
                os.kill(pids[0], signal.SIGKILL)

            killer = threading.Thread(target=kill_one)
            killer.start()
            result = execution.execute(parsed, execution.prepare(parsed), own)
            killer.join()
        assert result.failed == {}
        assert data_bytes(tmp_path) == data_bytes(finished[0])

    def test_cutouts_go_when_they_are_not_kept(self, finished, write_run, client, tmp_path):
        run_toml = write_run(tmp_path, replace=[("[flags]", "[cutouts]\nkeep = false\n[flags]")])
        execute(run_toml, client)
        assert not list(tmp_path.glob("cutouts.zarr/**/c/*"))
        assert data_bytes(tmp_path) == data_bytes(finished[0])
        _, again = execute(run_toml, client)
        assert again.n_passes == 0


class TestRefusals:
    @pytest.fixture
    def copied(self, finished, tmp_path):
        shutil.copytree(finished[0], tmp_path / "run")
        return tmp_path / "run" / "run.toml"

    def refusal(self, run_toml):
        parsed = config.read_config(run_toml)
        with pytest.raises(errors.UsageError) as caught:
            execution.read_progress(parsed, execution.prepare(parsed))
        return str(caught.value)

    def test_other_posterior_settings(self, copied):
        copied.write_text(copied.read_text().replace("seed = 1", "seed = 2"))
        message = self.refusal(copied)
        assert "posterior seed 1; this run uses 2" in message
        assert "galbatch clean" in message

    def test_other_flag_thresholds_ask_for_new_cutouts(self, copied):
        copied.write_text(copied.read_text().replace("arcsec = 3.0", "arcsec = 4.0"))
        assert "neighbor_radius_arcsec 3.0; this run uses 4.0" in self.refusal(copied)

    def test_another_bundle(self, copied, tmp_path):
        other = tmp_path / "other.pt"
        bundle = models.load_bundle(models.bundle_path("demo:gampen"))
        models.save_bundle(str(other), bundle.script, dataclasses.replace(bundle.metadata, version="2"))
        copied.write_text(copied.read_text().replace('"demo:gampen"', f'"{other}"'))
        message = self.refusal(copied)
        assert f"bundle gampen {bundle.sha256[:12]}..; this run uses" in message

    def test_another_division(self, copied):
        copied.write_text(copied.read_text().replace("partition = 20", "partition = 50"))
        assert "another division of the sky" in self.refusal(copied)

    def test_paths_workers_and_versions_of_the_package_do_not_matter(self, copied, tmp_path, monkeypatch):
        shutil.copy(models.bundle_path("demo:gampen"), tmp_path / "same_bundle.pt")
        text = copied.read_text().replace('"demo:gampen"', f'"{tmp_path}/same_bundle.pt"')
        copied.write_text(text.replace("workers = 2", "workers = 1"))
        for module in ("executing", "finishing", "leaf"):
            monkeypatch.setattr(f"galbatch.execution.{module}.__version__", "99")
        parsed = config.read_config(copied)
        assert execution.read_progress(parsed, execution.prepare(parsed)).left == []

    @pytest.mark.parametrize("name", ["INGEST_VERSION", "INFER_VERSION"])
    def test_a_raised_version_of_the_numbers_does(self, copied, monkeypatch, name):
        version = getattr(plan_module, name)
        monkeypatch.setattr(plan_module, name, 99)
        assert f"written with {name} {version}; this run uses 99" in self.refusal(copied)

    def test_a_tile_that_changed_does(self, write_run, survey, client, tmp_path):
        shutil.copytree(survey / "deepCoadd-results", tmp_path / "survey" / "deepCoadd-results")
        run_toml = write_run(tmp_path, survey=tmp_path / "survey")
        execute(run_toml, client, stage="ingest")
        os.utime(sorted((tmp_path / "survey").rglob("calexp-*.fits"))[0])
        assert "written with tiles " in self.refusal(run_toml)

    def test_new_quantiles_do_not_ask_for_new_cutouts(self, copied, client):
        def cutouts():
            return {
                p: p.stat().st_mtime_ns for p in (copied.parent / "cutouts.zarr").rglob("*") if p.is_file()
            }

        before = {path: written for path, written in cutouts().items() if path.parent.name != "cutouts.zarr"}
        text = copied.read_text().replace("[posterior]", "[posterior]\nquantiles = [0.1, 0.5, 0.9]")
        copied.write_text(text + '[catalog]\npath = "catalog_2"\n')
        _, result = execute(copied, client)
        assert result.complete
        assert before.items() <= cutouts().items()
        assert "gampen_bt_q900" in frame_of(copied).columns

    def test_a_leaf_without_its_fingerprint_is_refused(self, copied):
        leaf = sorted((copied.parent / "catalog" / "dataset").rglob("Npix=*.parquet"))[0]
        table = pq.read_table(leaf, partitioning=None)
        pq.write_table(table.replace_schema_metadata({}), leaf)
        Path(checksum_path(str(leaf))).unlink()  # with it the leaf counts as damaged, and would be made again
        assert "(nothing)" in self.refusal(copied)

    def test_added_objects_leave_other_partitions_alone(self, copied, survey, tmp_path, client):
        objects = pd.read_parquet(survey / "objects.parquet")
        far = objects.iloc[[0]].assign(object_id=7, ra_deg=200.0, dec_deg=-45.0)
        pd.concat([objects, far]).to_parquet(tmp_path / "more.parquet")
        copied.write_text(
            copied.read_text().replace(str(survey / "objects.parquet"), str(tmp_path / "more.parquet"))
        )
        _, result = execute(copied, client)
        assert result.n_inferred == len(objects) + 1
        row = frame_of(copied).loc[7]
        assert int(row["flags"]) & PixelFlag.OUTSIDE_FOOTPRINT
        assert int(row["gampen_flags"]) & ModelFlag.MISSING_PIXELS
        assert np.isnan(row["gampen_bt_q500"])

    def test_a_held_lock(self, copied, client):
        from galbatch import storage

        parsed = config.read_config(copied)
        lock = storage.Lock(execution.lock_of(parsed.catalog.path), beat_s=0.1)
        with lock, pytest.raises(errors.LockedError):
            execution.execute(parsed, execution.prepare(parsed), client)

    def test_clean_removes_only_what_is_its_own(self, copied):
        mine = copied.parent / "catalog" / "my_notes.txt"
        mine.write_text("keep me")
        evidence = Path(catalog.evidence_path(str(copied.parent / "catalog")))
        evidence.write_text("{}")
        refused = cli("clean", copied, input="n\n")
        assert refused.returncode == 1
        assert (copied.parent / "cutouts.zarr").exists()
        assert cli("clean", copied, "--yes").returncode == 0
        assert not (copied.parent / "cutouts.zarr").exists()
        assert not evidence.exists()
        assert [path.name for path in (copied.parent / "catalog").iterdir()] == ["my_notes.txt"]


class TestBadInput:
    def usage_error(self, run_toml):
        done = cli("run", run_toml)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert not (run_toml.parent / "catalog" / "dataset").exists()
        return done.stderr

    def test_no_tile_matches(self, write_run, tmp_path):
        run_toml = write_run(tmp_path, replace=[("calexp-*.fits", "nothing-*.fits")])
        assert "nothing-*.fits" in self.usage_error(run_toml)

    def test_object_list_without_the_column(self, write_run, tmp_path):
        run_toml = write_run(tmp_path, replace=[("[plan]", 'id = "objid"\n[plan]')])
        message = self.usage_error(run_toml)
        assert "objid" in message
        assert "object_id" in message

    def test_unknown_key(self, write_run, tmp_path):
        run_toml = write_run(tmp_path, replace=[("passes =", "passess =")])
        assert "run.toml: [posterior] passess: unknown key; did you mean passes?" in self.usage_error(
            run_toml
        )

    def test_corrupt_bundle(self, write_run, tmp_path):
        (tmp_path / "broken.pt").write_bytes(b"no bundle")
        run_toml = write_run(tmp_path, replace=[('"demo:gampen"', '"broken.pt"')])
        assert "broken.pt" in self.usage_error(run_toml)

    def test_band_that_no_tile_has(self, write_run, tmp_path):
        run_toml = write_run(tmp_path, replace=[('["g", "r"]', '["g", "r", "i"]')])
        assert "band i" in self.usage_error(run_toml)

    def test_output_folder_that_cannot_be(self, write_run, tmp_path):
        (tmp_path / "file").write_text("in the way")
        run_toml = write_run(tmp_path, replace=[("[cluster]", '[catalog]\npath = "file/catalog"\n[cluster]')])
        assert "file" in self.usage_error(run_toml)

    @pytest.mark.parametrize("invalid", ["refuse", "drop"])
    def test_bad_ids_and_positions(self, write_run, tmp_path, survey, client, invalid):
        objects = pd.read_parquet(survey / "objects.parquet")
        objects.loc[3, "ra_deg"] = np.nan
        objects.loc[5, "object_id"] = objects.loc[6, "object_id"]
        objects.to_parquet(tmp_path / "bad.parquet")
        run_toml = write_run(
            tmp_path, objects=tmp_path / "bad.parquet", replace=[("[plan]", f'invalid = "{invalid}"\n[plan]')]
        )
        if invalid == "refuse":
            message = self.usage_error(run_toml)
            assert str(objects.loc[6, "object_id"]) in message
            return
        _, result = execute(run_toml, client)
        assert result.n_inferred == len(objects) - 2
        rejected = pd.read_parquet(tmp_path / "catalog" / "rejected.parquet")
        assert sorted(rejected["reason"]) == ["duplicate id", "position is not finite"]

    def test_a_tile_that_breaks_fails_its_partitions_only(self, write_run, survey, tmp_path, client):
        shutil.copytree(survey / "deepCoadd-results", tmp_path / "survey" / "deepCoadd-results")
        run_toml = write_run(tmp_path, survey=tmp_path / "survey")
        parsed = config.read_config(run_toml)
        plan = execution.prepare(parsed)
        victim = sorted((tmp_path / "survey").rglob("calexp-HSC-R-*.fits"))[0]
        content = victim.read_bytes()
        victim.write_bytes(content[: len(content) // 3])
        result = execution.execute(parsed, plan, client)
        assert 0 < len(result.failed) < len(plan.partitions)
        assert all(victim.name in reason for reason in result.failed.values())
        assert catalog.read_properties(parsed.catalog.path)["galbatch_complete"] == "false"
        assert set(json.loads((tmp_path / "catalog" / "_failed.json").read_text())) == set(result.failed)
        truncated = cli("run", run_toml)
        assert truncated.returncode == 2
        assert "truncated" in truncated.stderr
        victim.write_bytes(content)
        os.utime(victim, ns=(plan_mtime(plan, victim), plan_mtime(plan, victim)))
        repaired = execution.execute(parsed, execution.prepare(parsed), client)
        assert repaired.complete
        assert not (tmp_path / "catalog" / "_failed.json").exists()

    def test_band_missing_for_some_objects(self, write_run, survey, tmp_path, client):
        shutil.copytree(survey / "deepCoadd-results", tmp_path / "survey" / "deepCoadd-results")
        sorted((tmp_path / "survey").rglob("calexp-HSC-R-*.fits"))[0].unlink()
        run_toml = write_run(tmp_path, survey=tmp_path / "survey")
        _, result = execute(run_toml, client)
        assert result.failed == {}
        frame = frame_of(run_toml)
        missing = (frame["flags"].to_numpy() & PixelFlag.MISSING_BAND) != 0
        assert 10 < missing.sum() < len(frame)
        inside = missing & ((frame["flags"].to_numpy() & PixelFlag.OUTSIDE_FOOTPRINT) == 0)
        assert frame.loc[missing, "sfnet_mag_r_q500"].isna().all()
        assert frame.loc[inside, "gampen_bt_q500"].notna().sum() > 0.8 * inside.sum()


def plan_mtime(plan, path):
    (version,) = {tile.identity.version for tile in plan.tiles if tile.image.path == str(path)}
    return int(version)


def test_no_two_files_of_a_run_have_names_that_differ_only_in_case(finished):
    folder, _ = finished
    names = [str(path.relative_to(folder)) for path in folder.rglob("*")]
    assert len(names) > 50
    assert alike_but_for_case(names) == []


def test_status_and_exit_codes(finished):
    folder, _ = finished
    done = cli("status", folder / "run.toml")
    assert done.returncode == 0, done.stderr
    assert "left" in done.stdout
    n_objects = len(pd.read_parquet(config.read_config(folder / "run.toml").objects.path))
    assert str(n_objects) in done.stdout


def test_the_store_knows_its_groups(finished):
    _, parsed = finished
    names = {pixel for pixel, _ in ingest.list_done(parsed.cutouts.store)}
    assert names == {part.partition.pixel for part in execution.prepare(parsed).partitions}
