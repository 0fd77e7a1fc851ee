"""The end of `galbatch run`: its exit code and what it prints then."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from galbatch import api, catalog
from galbatch.cli.app import app
from galbatch.execution import RunResult


@pytest.mark.parametrize("finished", [False, True])
def test_a_run_with_failures_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: bool
) -> None:
    """Also where the first catalog could not be finished, which has no properties to read then."""
    run_toml = tmp_path / "run.toml"
    run_toml.write_text(
        f"""[survey]
layout = "hsc"
tiles = "{tmp_path}/*.fits"
bands = ["g"]
[objects]
path = "{tmp_path}/objects.parquet"
[cutouts]
store = "{tmp_path}/cutouts.zarr"
[[models]]
name = "net"
bundle = "{tmp_path}/net.pt"
[catalog]
path = "{tmp_path}/catalog"
"""
    )
    # Where nothing was finished there is nothing to read: the true one would raise.
    if finished:
        monkeypatch.setattr(catalog, "doubts", lambda _: ["net: Monte Carlo errors are 1.41 times"])
    result = RunResult(n_objects=40, n_inferred=40, failed={"Norder=1/Npix=2": "damaged"}, finished=finished)
    monkeypatch.setattr(api, "run", lambda *_, **__: result)
    done = CliRunner().invoke(app, ["run", str(run_toml)])
    assert done.exit_code == 1, done.output
    assert "failed: Norder=1/Npix=2: damaged" in done.output
    assert ("net: Monte Carlo errors are 1.41 times" in done.output) == finished
