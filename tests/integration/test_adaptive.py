"""Adaptive passes through whole runs: reproducible, resumable, audited, with the engine that began the run."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from galbatch import catalog, config, errors, execution, models, reporting
from galbatch.cli import app as cli
from galbatch.core.flags import ModelFlag
from galbatch.models.networks import is_audited

MIN_PASSES, MAX_PASSES, TOLERANCE = 8, 40, 0.5
ADAPTIVE = (
    f'passes = "adaptive"\nmin_passes = {MIN_PASSES}\nmax_passes = {MAX_PASSES}\ntolerance = {TOLERANCE}'
)
MODELS = ("gampen", "sfnet")


@pytest.fixture(scope="module")
def objects(survey):
    return pd.read_parquet(survey / "objects.parquet")


@pytest.fixture(scope="module")
def seed(objects):
    """One with which two or more of the survey's objects are audited that both networks are for."""
    ids = objects.loc[objects["z_best"] > 0.1, "object_id"].to_numpy()
    return next(seed for seed in range(1, 5000) if is_audited(ids, seed=seed).sum() >= 2)


@pytest.fixture(scope="module")
def write(write_run, seed):
    def write_adaptive(folder, **changes):
        replace = [("passes = 8", ADAPTIVE), *changes.pop("replace", [])]
        return write_run(folder, seed=seed, replace=replace, **changes)

    return write_adaptive


def execute(run_toml, client):
    parsed = config.read_config(run_toml)
    return parsed, execution.execute(parsed, execution.prepare(parsed), client)


def frame_of(run_toml):
    parsed = config.read_config(run_toml)
    return catalog.read_catalog(parsed.catalog.path).to_pandas().set_index("object_id").sort_index()


def audits_of(run_toml):
    properties = catalog.read_properties(config.read_config(run_toml).catalog.path)
    return {name: properties[f"galbatch_audit_{name}"] for name in MODELS}


def leaves_of(run_toml):
    return sorted((run_toml.parent / "catalog" / "dataset").rglob("Npix=*.parquet"))


def columns_of(run_toml):
    """Every column of every leaf, as text."""
    found = {}
    for leaf in leaves_of(run_toml):
        table = pq.read_table(leaf, partitioning=None)
        found |= {f"{leaf.name} {name}": repr(table.column(name).to_pylist()) for name in table.column_names}
    return found


@pytest.fixture(scope="module")
def finished(write, client, tmp_path_factory):
    run_toml = write(tmp_path_factory.mktemp("adaptive"), max_objects=30)
    _, result = execute(run_toml, client)
    assert result.complete
    return run_toml


def assert_equal_to_rounding(ours, theirs):
    for name in theirs.columns:
        if theirs[name].dtype.kind == "f":
            np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-4, atol=2e-4, err_msg=name)
        elif name.endswith("_passes"):
            assert ours[name].equals(theirs[name]), name


def test_objects_have_as_many_passes_as_they_need(finished, seed):
    frame = frame_of(finished)
    for name in MODELS:
        columns = (frame[f"{name}_{what}"].to_numpy() for what in ("passes", "mc_error", "flags"))
        passes, error, flags = columns
        there = passes > 0
        assert passes[there].min() >= MIN_PASSES
        assert passes.max() == MAX_PASSES
        not_converged = (flags[there] & ModelFlag.NOT_CONVERGED) != 0
        assert not_converged[error[there] > TOLERANCE].all()
        assert (passes[there][not_converged] == MAX_PASSES).all()
        audited = there & is_audited(frame.index.to_numpy(), seed=seed)
        assert audited.sum() >= 2
        assert (passes[audited] == MAX_PASSES).all()
        early = there & ~audited & (passes < MAX_PASSES)
        assert early.sum() > 20
        assert (error[early] <= TOLERANCE).all()
    assert set(frame["gampen_passes"]) >= {32, MAX_PASSES}


def test_other_partitions_and_added_objects_give_the_same_passes(
    finished, write, client, tmp_path, survey, objects
):
    far = objects.iloc[[0]].assign(object_id=7, ra_deg=objects["ra_deg"].iloc[0] + 1e-4)
    pd.concat([objects, far]).to_parquet(tmp_path / "more.parquet")
    run_toml = write(tmp_path, max_objects=70, objects=tmp_path / "more.parquet")
    _, result = execute(run_toml, client)
    assert result.n_inferred == len(objects) + 1
    assert_equal_to_rounding(frame_of(run_toml).drop(index=7), frame_of(finished))


@pytest.mark.slow
def test_killed_and_run_again_gives_the_same_catalog_and_audit(
    finished, write, client, tmp_path, shorten_locks
):
    run_toml = write(tmp_path, max_objects=30)
    process = subprocess.Popen(
        [sys.executable, "-m", "galbatch", "run", run_toml],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 200
    while process.poll() is None and not leaves_of(run_toml):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    shorten_locks(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in leaves_of(run_toml)}
    _, result = execute(run_toml, client)
    assert result.complete
    assert 0 < len(before) < len(leaves_of(run_toml))
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())
    ours, theirs = columns_of(run_toml), columns_of(finished)
    assert ours.keys() == theirs.keys()
    assert [key for key in theirs if ours[key] != theirs[key]] == []
    assert audits_of(run_toml) == audits_of(finished)


class TestAudit:
    def test_it_adds_up_over_the_leaves(self, finished, seed):
        frame = frame_of(finished)
        for name, text in audits_of(finished).items():
            audited = (frame[f"{name}_passes"] > 0) & is_audited(frame.index.to_numpy(), seed=seed)
            assert text.startswith(f"{audited.sum()} objects, ")

    def test_it_is_shown(self, finished, tmp_path):
        path = config.read_config(finished).catalog.path
        verified = CliRunner().invoke(cli.app, ["verify", path])
        lines = verified.stdout.splitlines()
        assert lines[0] == f"{path}: good"
        page = tmp_path / "report.html"
        reporting.write_report(path, str(page))
        for line, (name, text) in zip(lines[1:], audits_of(finished).items(), strict=True):
            assert line == f"audit of {name}: {text}"
            short = text.partition("; at ")[0]
            assert f"<td>audit of {name}</td><td><code>{short}</code></td>" in page.read_text()

    def test_none_is_said_so_and_fixed_passes_say_nothing(self, write_run, client, tmp_path, objects):
        free = objects[~is_audited(objects["object_id"].to_numpy(), seed=3)].head(4)
        free.to_parquet(tmp_path / "few.parquet")
        few = {"objects": tmp_path / "few.parquet", "seed": 3}
        adaptive = write_run(tmp_path / "adaptive", replace=[("passes = 8", ADAPTIVE)], **few)
        execute(adaptive, client)
        assert set(audits_of(adaptive).values()) == {"no object was audited"}
        fixed, _ = execute(write_run(tmp_path / "fixed", **few), client)
        assert not [key for key in catalog.read_properties(fixed.catalog.path) if "audit" in key]


class TestEngine:
    @pytest.fixture
    def another(self, monkeypatch):
        """A machine on which another engine is best; what is asked for by name is what it gives."""

        def choose(_network, *, kind, precision, device):
            assert device == "cpu"
            kind = "rebuilt" if kind == "auto" else kind
            return models.Engine(kind, "bfloat16" if precision == "auto" else precision)

        monkeypatch.setattr(models, "choose_engine", choose)

    def test_a_resumed_run_keeps_the_one_that_began_it(self, finished, another):
        began = {
            key.removeprefix("galbatch_engine_"): engine
            for key, engine in catalog.read_properties(config.read_config(finished).catalog.path).items()
            if key.startswith("galbatch_engine_")
        }
        assert set(began) == set(MODELS)
        assert "rebuilt-bfloat16" not in began.values()
        parsed = config.read_config(finished)
        plan = execution.prepare(parsed)
        assert {model.name: model.engine for model in plan.models} == began
        assert execution.read_progress(parsed, plan).left == []
        assert execution.verify_against(parsed, parsed.catalog.path) == []

    def test_a_new_run_takes_what_is_best(self, write, tmp_path, another):
        plan = execution.prepare(config.read_config(write(tmp_path)))
        assert {model.engine for model in plan.models} == {"rebuilt-bfloat16"}

    def test_another_that_is_asked_for_is_refused(self, finished, another):
        parsed = config.read_config(finished)
        asked = parsed.posterior.model_copy(update={"precision": "float16"})
        changed = parsed.model_copy(update={"posterior": asked})
        plan = execution.prepare(changed)
        assert {model.engine for model in plan.models} == {"rebuilt-float16"}
        with pytest.raises(
            errors.FingerprintError, match=r"engine of gampen .*this run uses rebuilt-float16"
        ):
            execution.read_progress(changed, plan)


def test_the_plan_projects_the_passes(finished):
    from galbatch import execution

    parsed = config.read_config(finished)
    plan = execution.prepare(parsed)
    measured = execution.measure_rates(parsed, plan)
    assert set(measured.networks) == set(MODELS)
    for rate in measured.networks.values():
        assert MIN_PASSES <= rate.passes <= MAX_PASSES
        assert rate.pass_s > 0
    rows = dict(measured.rows(plan, parsed))
    gampen, sfnet = (measured.networks[name].passes for name in MODELS)
    assert rows["passes an object"] == f"gampen {gampen:.0f}, sfnet {sfnet:.0f}: mean of 8 objects, adaptive"
    # The time is that of all objects on tiles, two workers.
    slow = {
        name: dataclasses.replace(rate, pass_s=1.0, passes=360.0) for name, rate in measured.networks.items()
    }
    n_covered = sum(model.n_covered for model in plan.models)
    shown = dict(dataclasses.replace(measured, networks=slow).rows(plan, parsed))["time to infer"]
    assert shown == f"{360 * n_covered / 2 / 3600:.1f} h with 2 workers"


def test_audited_objects_which_get_all_passes_are_not_measured(finished, monkeypatch):
    """One of eight would be projected as a hundred passes more for each object of the run."""
    from galbatch import execution, models
    from galbatch.execution import rates

    parsed = config.read_config(finished)
    plan, selected, infer = execution.prepare(parsed), [], models.infer_block

    def noted(network, inputs, **options):
        selected.append(set(inputs.object_id[inputs.selected].tolist()))
        return infer(network, inputs, **options)

    monkeypatch.setattr(models, "infer_block", noted)
    execution.measure_rates(parsed, plan)
    audited = set(list(selected[-1])[:2])
    assert audited
    selected.clear()
    monkeypatch.setattr(rates, "is_audited", lambda ids, seed: np.isin(ids, list(audited)))
    execution.measure_rates(parsed, plan)
    assert all(selected)
    assert not any(audited & some for some in selected)
    selected.clear()
    monkeypatch.setattr(rates, "is_audited", lambda ids, seed: np.ones(len(ids), bool))
    execution.measure_rates(parsed, plan)
    assert all(selected)  # where there are no others
