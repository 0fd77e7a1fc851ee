"""A store before a network: [cutouts] says what is cut, and networks that come later take their bands of it."""

import dataclasses
import sys

import numpy as np
import pytest
import zarr

from galbatch import api, catalog, config, errors, execution, ingest
from galbatch.cli import main

STATED = '[cutouts]\nsize_px = 96\npixel_scale_arcsec = 0.168\nbands = ["r", "g"]\n'
GRID = "96px_0.168arcsec"
OBJECTS = 126  # 120 galaxies, some listed twice, and some outside the tiles

MODELS = [
    ('[[models]]\nname = "gampen"\nbundle = "demo:gampen"\n', ""),
    ('[[models]]\nname = "sfnet"\nbundle = "demo:sfnet"\nwhere = "z_best > 0.1"\n', ""),
]


@pytest.fixture
def said(monkeypatch, capsys):
    """Run a command, and return what it printed, on either stream."""

    def run(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["galbatch", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert ended.value.code == code, printed.out + printed.err
        return printed.out + printed.err

    return run


def execute(run_toml, client, **changes):
    parsed = config.read_config(run_toml)
    return execution.execute(parsed, execution.prepare(parsed), client, **changes)


@pytest.fixture(scope="module")
def store_toml(write_run, client, tmp_path_factory):
    """The run.toml of a store without networks, which was cut."""
    run_toml = write_run(
        tmp_path_factory.mktemp("store"),
        max_objects=60,
        passes=2,
        replace=[*MODELS, ("[plan]", f"{STATED}[plan]")],
    )
    result = execute(run_toml, client, stage="ingest")
    assert result.failed == {}
    assert result.n_cut == OBJECTS
    return run_toml


def with_models(store_toml, folder, *, models=("gampen", "sfnet"), stated=STATED):
    """A run.toml in another folder with networks, which reads the store."""
    text = store_toml.read_text().replace(STATED, stated)
    sections = {name: old for name, (old, _) in zip(("gampen", "sfnet"), MODELS, strict=True)}
    text = text.replace("[posterior]", "".join(sections[name] for name in models) + "[posterior]")
    store = f'store = "{store_toml.parent / "cutouts.zarr"}"\n'
    text = text.replace("[cutouts]\n", f"[cutouts]\n{store}") if stated else f"[cutouts]\n{store}{text}"
    path = folder / "run.toml"
    path.write_text(text)
    return path


class TestWithoutANetwork:
    def test_every_object_is_cut_in_the_stated_bands(self, store_toml):
        parsed = config.read_config(store_toml)
        plan = execution.prepare(parsed)
        assert plan.models == ()
        assert [(grid.grid.label, grid.bands, grid.n_cutouts) for grid in plan.grids] == [
            (GRID, ("r", "g"), OBJECTS)
        ]
        ids = [
            name
            for pixel, grid in ingest.list_done(parsed.cutouts.store)
            for name in ingest.read_object_ids(parsed.cutouts.store, pixel, grid).tolist()
        ]
        assert len(ids) == len(set(ids)) == OBJECTS
        part = plan.partitions[0].partition
        group = zarr.open_group(f"{parsed.cutouts.store}/{part.path}/{GRID}", mode="r")
        assert group["band"][:].tolist() == ["r", "g"]
        assert group["image"].shape == (part.n_objects, 2, 96, 96)

    def test_plan_and_status_speak_of_cutouts_alone(self, store_toml, said):
        planned = said("plan", store_toml)
        assert f"{OBJECTS} in r g" in planned
        assert "infer" not in planned
        status = said("status", store_toml)
        assert "catalog" not in status
        assert [line.split()[-1] for line in status.splitlines() if line.startswith(("all", "cutouts"))] == [
            str(OBJECTS),
            str(OBJECTS),
        ]
        assert "continue" not in status

    @pytest.mark.parametrize("stage", ["infer", "all"])
    def test_other_stages_say_what_to_do(self, store_toml, said, stage):
        text = said("run", store_toml, "--stage", stage, code=2)
        assert f"no [[models]], so --stage {stage} has nothing to infer" in text
        assert "--stage ingest" in text

    def test_retry_and_ingest_find_all_done(self, store_toml, client):
        result = execute(store_toml, client, stage="ingest", only_failed=True)
        assert (result.n_cut, result.failed) == (0, {})
        assert execute(store_toml, client, stage="ingest").n_cut == 0

    def test_the_store_verifies_by_itself(self, store_toml, said):
        store = store_toml.parent / "cutouts.zarr"
        assert said("verify", "--store", store, "--against", store_toml) == f"{store}: good\n"
        assert said("verify", code=2).startswith("galbatch: verify: name a catalog")
        absent = store_toml.parent / "absent.zarr"
        assert "no finished cutouts there" in said("verify", "--store", absent, code=1)

    def test_a_damaged_store_is_told_and_cut_again(self, write_run, client, said, tmp_path):
        run_toml = write_run(tmp_path, max_objects=200, replace=[*MODELS, ("[plan]", f"{STATED}[plan]")])
        assert execute(run_toml, client, stage="ingest").n_cut == OBJECTS
        chunk = max(
            (tmp_path / "cutouts.zarr").rglob("image/c/*/*/*/*"), key=lambda path: path.stat().st_size
        )
        chunk.write_bytes(chunk.read_bytes()[:-7])
        assert chunk.name in said("verify", "--store", tmp_path / "cutouts.zarr", code=1)
        assert "damaged" in said("status", run_toml)
        assert execute(run_toml, client, stage="ingest", only_failed=True).n_cut == OBJECTS
        assert api.verify(store=tmp_path / "cutouts.zarr", against=run_toml).problems == ()


class TestNetworksThatComeLater:
    def test_they_use_the_store_and_give_the_same_values(self, store_toml, write_run, client, tmp_path):
        run_toml = with_models(store_toml, tmp_path)
        result = execute(run_toml, client)
        # Nothing was cut again: gampen takes g and sfnet g and r of a store in r and g.
        assert (result.n_cut, result.failed, result.complete) == (0, {}, True)
        plain = write_run(tmp_path / "plain", max_objects=60, passes=2)
        execute(plain, client)
        ours, theirs = (
            catalog.read_catalog(config.read_config(path).catalog.path)
            .to_pandas()
            .set_index("object_id")
            .sort_index()
            for path in (run_toml, plain)
        )
        names = [
            name
            for name in theirs.columns
            if name.startswith(("gampen_", "sfnet_")) and "identity" not in name
        ]
        assert len(names) > 60
        for name in names:
            if name.endswith("_disagreement"):
                # The photometry that the network is compared with adds up the bands in the order of the store.
                np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-3, err_msg=name)
            else:
                np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)

    def test_without_the_stated_grid_the_refusal_names_both(self, store_toml, tmp_path):
        run_toml = with_models(store_toml, tmp_path, models=["gampen"], stated="")
        parsed = config.read_config(run_toml)
        with pytest.raises(errors.FingerprintError) as refused:
            execution.read_progress(parsed, execution.prepare(parsed))
        assert f"holds cutouts of {GRID} r+g; this run needs {GRID} g (network gampen takes {GRID} g)" in str(
            refused.value
        )
        assert "let [cutouts] state" in str(refused.value)

    def test_a_grid_more_is_refused_before_anything_is_replaced(self, store_toml, tmp_path):
        more = STATED + "[[cutouts.grids]]\nsize_px = 40\npixel_scale_arcsec = 0.168\n"
        parsed = config.read_config(with_models(store_toml, tmp_path, stated=more))
        with pytest.raises(
            errors.FingerprintError, match=f"{GRID} r.g; this run needs 40px_0.168arcsec g.r, {GRID} r.g"
        ):
            execution.read_progress(parsed, execution.prepare(parsed))

    def test_the_store_as_base_of_one_with_another_grid_saves_the_cutting(self, store_toml, client, tmp_path):
        more = STATED + "[[cutouts.grids]]\nsize_px = 40\npixel_scale_arcsec = 0.168\n"
        text = with_models(store_toml, tmp_path, stated=more).read_text()
        (tmp_path / "run.toml").write_text(text.replace("store = ", 'store = "own.zarr"\nbase = '))
        result = execute(tmp_path / "run.toml", client, stage="ingest")
        assert (result.n_cut, result.n_cutouts_taken, result.failed) == (OBJECTS, OBJECTS, {})


def test_several_grids_are_cut_and_shared(write_run, client, tmp_path):
    stated = STATED + '[[cutouts.grids]]\nsize_px = 21\npixel_scale_arcsec = 0.5\nbands = ["g"]\n'
    run_toml = write_run(tmp_path, max_objects=200, replace=[("[plan]", f"{stated}[plan]")])
    parsed = config.read_config(run_toml)
    plan = execution.prepare(parsed)
    # The networks' grid is the stated one, in its bands; where of a network leaves no object out of it.
    assert [(grid.grid.label, grid.bands, grid.models) for grid in plan.grids] == [
        ("21px_0.5arcsec", ("g",), ()),
        (GRID, ("r", "g"), (0, 1)),
    ]
    assert dataclasses.asdict(plan.projection)["n_cutouts"] == (OBJECTS, OBJECTS)
    assert execution.execute(parsed, plan, client).failed == {}
    assert len(ingest.list_done(parsed.cutouts.store)) == 2 * len(plan.partitions)
