"""The outputs of a run under their locks."""

import json

from galbatch import config, execution
from tests.conftest import RUN_TOML


def test_a_run_that_takes_over_a_dead_lock_removes_the_temporary_files_of_the_dead_run(tmp_path):
    text = RUN_TOML.format(
        survey=tmp_path, objects=tmp_path / "objects.parquet", max_objects=9, passes=4, seed=1
    )
    (tmp_path / "run.toml").write_text(text)
    parsed = config.read_config(tmp_path / "run.toml")
    name = f".zarr.json.{'0123456789abcdef' * 2}.tmp"
    left = [
        tmp_path / "cutouts.zarr" / "Norder=3" / name,
        tmp_path / "catalog_pass_outputs.zarr" / name,
        tmp_path / "catalog" / "_checksums" / name,
    ]
    for path in left:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"{")
    with execution.locked(parsed, "all"):
        pass
    # The run that ended well was nobody's successor: it need not look through all files.
    assert all(path.exists() for path in left)
    for output in ("cutouts.zarr", "catalog"):
        dead = {"owner": "dead", "beat": 7, "period_s": 0.2}
        (tmp_path / f"{output}_lock.json").write_text(json.dumps(dead))
    with execution.locked(parsed, "all"):
        assert not any(path.exists() for path in left)
