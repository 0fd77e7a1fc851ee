"""When the workers of a run begin to start: while headers are read, unless the run may still be refused."""

import pytest

from galbatch import catalog, config, execution, ingest
from galbatch.catalog import pass_outputs
from galbatch.core.pixels import HealpixPixel
from galbatch.errors import ObjectListError

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
