"""A run from Python, as the command makes it; what it is made of is replaced."""

from contextlib import nullcontext
from types import SimpleNamespace

from galbatch import api, config, dashboard, execution
from tests.conftest import RUN_TOML


def test_the_progress_is_read_once_and_handed_on(monkeypatch, tmp_path):
    text = RUN_TOML.format(
        survey=tmp_path, objects=tmp_path / "objects.parquet", max_objects=9, passes=4, seed=1
    )
    (tmp_path / "run.toml").write_text(text)
    reads, handed = [], []

    def read(parsed, plan):
        reads.append(plan)
        return "progress"

    def execute(held, plan, client, **options):
        handed.append(options)
        return execution.RunResult()

    plan = SimpleNamespace(notes=[])
    monkeypatch.setattr(execution, "prepare", lambda parsed, pool, loads: plan)
    monkeypatch.setattr(execution, "read_progress", read)
    monkeypatch.setattr(execution, "execute_held", execute)
    monkeypatch.setattr(dashboard, "watch", lambda client: "http://127.0.0.1:1")
    workers = nullcontext(SimpleNamespace(client=SimpleNamespace(status="closed")))
    monkeypatch.setattr("galbatch.cluster.on_demand", lambda *_, **__: workers)
    api.run(config.read_config(tmp_path / "run.toml"), progress=dashboard.Silent())
    assert reads == [plan]
    assert [one["before"] for one in handed] == ["progress"]
