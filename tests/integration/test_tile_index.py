"""The headers of many tiles: read on the workers, kept beside the store, removed by clean."""

import pytest

from galbatch import cluster, config, execution
from galbatch.config import ClusterConfig
from galbatch.ingest.tiles import index as tile_index


@pytest.fixture
def workers(client):
    """The shared cluster, counting the tasks it was given."""
    made = cluster.Workers(ClusterConfig())
    made._client = client
    submit, made.n_tasks = client.submit, 0

    def counted(*arguments, **options):
        made.n_tasks += 1
        return submit(*arguments, **options)

    client.submit = counted
    yield made
    del client.submit


def test_many_headers_are_read_on_the_workers_once(write_run, workers, tmp_path, monkeypatch):
    parsed = config.read_config(write_run(tmp_path / "run"))
    here = execution.prepare(parsed)
    assert list((tmp_path / "run").iterdir()) == [tmp_path / "run" / "run.toml"]

    monkeypatch.setattr(tile_index, "MANY_FILES", 8)
    monkeypatch.setattr(tile_index, "BATCH_FILES", 3)
    on_workers = execution.prepare(parsed, workers)
    assert workers.n_tasks == 3  # 4 patches in 2 bands
    index = tmp_path / "run" / "cutouts.zarr_tiles.parquet"
    assert index.exists()
    again = execution.prepare(parsed, workers)
    assert workers.n_tasks == 3
    for plan in (on_workers, again):
        assert repr(plan.tiles) == repr(here.tiles)
        assert [p.ingest.digest for p in plan.partitions] == [p.ingest.digest for p in here.partitions]

    assert execution.clean(parsed) == [str(index)]
    assert not index.exists()
