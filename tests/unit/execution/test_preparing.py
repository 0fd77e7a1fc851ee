"""When the workers of a run begin to start, while headers are read, and plans that are made without loading networks."""

import shutil

import pytest

from galbatch import catalog, config, execution, ingest, models
from galbatch.catalog import pass_outputs
from galbatch.core.pixels import HealpixPixel
from galbatch.errors import BundleError, ObjectListError
from galbatch.execution.bundles import EngineChoice

PIXEL = HealpixPixel(3, 7)


class Workers:
    """Workers that note when they begin."""

    map = None

    def __init__(self, seen):
        self.seen = seen

    def begin(self):
        self.seen.append("workers")


@pytest.fixture
def seen(monkeypatch):
    """What was begun, in order: the workers and the reading of headers."""
    seen, read = [], ingest.read_surveys

    def read_surveys(*arguments, **options):
        seen.append("headers")
        return read(*arguments, **options)

    monkeypatch.setattr(ingest, "read_surveys", read_surveys)
    return seen


def test_workers_begin_before_headers_are_read(seen, write_run, tmp_path):
    parsed = config.read_config(write_run(tmp_path))
    execution.prepare(parsed, Workers(seen))
    assert seen == ["workers", "headers"]


@pytest.mark.parametrize("output", ["cutouts", "leaf", "pass outputs"])
def test_where_outputs_may_be_refused_workers_do_not_begin(seen, write_run, tmp_path, output):
    parsed = config.read_config(write_run(tmp_path))
    grid = f"{PIXEL.path}/96px_0.168arcsec/object_id/_done.json"
    path = {
        "cutouts": f"{parsed.cutouts.store}/{grid}",
        "leaf": catalog.leaf_path(parsed.catalog.path, PIXEL),
        "pass outputs": f"{pass_outputs.pass_outputs_path(parsed.catalog.path)}/{PIXEL.path}/gampen/object_id/_done.json",
    }[output]
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_bytes(b"")
    execution.prepare(parsed, Workers(seen))
    assert seen == ["headers"]


def test_an_object_list_that_is_wrong_is_told_before_workers_begin(seen, write_run, tmp_path):
    (tmp_path / "objects.csv").write_text("object_id,ra,dec\n1,150,95\n")
    parsed = config.read_config(write_run(tmp_path, objects=tmp_path / "objects.csv"))
    with pytest.raises(ObjectListError):
        execution.prepare(parsed, Workers(seen))
    assert seen == []


def test_a_plan_without_networks_becomes_the_plan_with_them(write_run, tmp_path):
    parsed = config.read_config(write_run(tmp_path))
    whole, early = execution.prepare(parsed), execution.prepare(parsed, loads=False)
    assert [model.engine for model in early.models] == ["", ""]
    assert not early.has_engines
    # Cutouts do not depend on engines, leaves do.
    for one, other in zip(whole.partitions, early.partitions, strict=True):
        assert one.ingest.digest == other.ingest.digest
        assert one.leaf.digest != other.leaf.digest
    completed = EngineChoice(parsed, early, print).plan(lambda: None)
    assert completed.has_engines
    assert completed.models == whole.models
    assert completed.partitions == whole.partitions


@pytest.mark.parametrize(
    ("asked", "engines"),
    [
        ("auto", ["rebuilt-bfloat16", "rebuilt-float32"]),
        ("torchscript", ["torchscript-float32", "torchscript-float32"]),
    ],
)
def test_engines_that_leaves_tell_are_taken_if_they_are_asked_for(
    write_run, tmp_path, monkeypatch, asked, engines
):
    parsed = config.read_config(write_run(tmp_path))
    parsed = parsed.model_copy(update={"posterior": parsed.posterior.model_copy(update={"engine": asked})})
    told = {"gampen": "rebuilt-bfloat16", "sfnet": "rebuilt-float32"}
    monkeypatch.setattr("galbatch.execution.leaf.recorded_engines", lambda path: told)
    plan = execution.prepare(parsed, loads=False)
    assert [model.engine for model in plan.models] == engines


def test_a_bundle_that_is_replaced_before_it_is_loaded_is_refused(write_run, tmp_path, monkeypatch):
    monkeypatch.setattr("galbatch.models.bundle.files._loaded", {})
    bundle = tmp_path / "net.pt"
    shutil.copy(models.bundle_path("demo:gampen"), bundle)
    parsed = config.read_config(
        write_run(tmp_path, replace=[('bundle = "demo:gampen"', f'bundle = "{bundle}"')])
    )
    plan = execution.prepare(parsed, loads=False)
    shutil.copy(models.bundle_path("demo:sfnet"), bundle)
    with pytest.raises(BundleError, match=r"run.toml: \[\[models\]\] gampen: .*the file has changed"):
        EngineChoice(parsed, plan, print).plan(lambda: None)
