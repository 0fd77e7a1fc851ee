"""A run whose tiles, object list and bundle lie where fsspec reads, here in the memory of one process."""

import fsspec
import pandas as pd
import pytest
from distributed import Client, LocalCluster

from galbatch import catalog, config, execution, models
from galbatch.errors import UsageError


@pytest.fixture(scope="module")
def in_process():
    """A worker that is a thread of this process, and so sees its memory."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as workers,
        Client(workers) as client,
    ):
        yield client


@pytest.fixture
def memory(survey):
    """URL of the simulated survey and a bundle, in memory."""
    files = fsspec.filesystem("memory")
    files.put(str(survey), "/survey", recursive=True)
    files.put(models.bundle_path("demo:gampen"), "/bundles/gampen.pt")
    yield "memory:/"
    files.rm("/survey", recursive=True)
    files.rm("/bundles", recursive=True)


def write(write_run, folder, memory, *, catalog_line=""):
    return write_run(
        folder,
        max_objects=60,
        passes=4,
        survey=f"{memory}/survey",
        objects=f"{memory}/survey/objects.parquet",
        replace=[
            ('"demo:gampen"', f'"{memory}/bundles/gampen.pt"'),
            ("[cluster]", f"{catalog_line}[cluster]"),
        ],
    )


def test_inputs_in_memory_give_what_local_ones_give(memory, write_run, in_process, tmp_path):
    local = config.read_config(write_run(tmp_path / "local", max_objects=60, passes=4))
    parsed = config.read_config(write(write_run, tmp_path / "memory", memory))
    plans = [execution.prepare(one) for one in (local, parsed)]
    for one, plan in zip((local, parsed), plans, strict=True):
        assert execution.execute(one, plan, in_process).complete
    ours, theirs = (catalog.read_catalog(one.catalog.path) for one in (parsed, local))
    # Files have other versions there, which identities are made of.
    named = [name for name in theirs.column_names if name.endswith("_identity")]
    assert named
    pd.testing.assert_frame_equal(
        ours.to_pandas().drop(columns=named), theirs.to_pandas().drop(columns=named), check_exact=True
    )
    assert all(tile.image.path.startswith("memory://") for tile in plans[1].tiles)


def test_outputs_in_memory_are_refused(memory, write_run, in_process, tmp_path):
    line = f'[catalog]\npath = "{memory}/catalog"\n'
    parsed = config.read_config(write(write_run, tmp_path, memory, catalog_line=line))
    plan = execution.prepare(parsed)
    with pytest.raises(
        UsageError, match=r"memory://catalog.*outputs lie on a disk or on s3://.*conditional writes"
    ):
        execution.execute(parsed, plan, in_process)
    assert not fsspec.filesystem("memory").exists("/catalog")
