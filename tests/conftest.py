"""A small simulated survey, a cluster of two workers, and the real data where it is at hand."""

import os
from pathlib import Path

# Before torch and numpy are imported: tests share two cores with their worker processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

REALDATA = Path(__file__).parents[2] / "shared" / "realdata"

RUN_TOML = """
[survey]
layout = "hsc"
tiles = "{survey}/deepCoadd-results/**/calexp-*.fits"
bands = ["g", "r"]
[objects]
path = "{objects}"
keep = ["z_best"]
[plan]
max_objects_per_partition = {max_objects}
[flags]
neighbor_radius_arcsec = 3.0
[[models]]
name = "gampen"
bundle = "demo:gampen"
[[models]]
name = "sfnet"
bundle = "demo:sfnet"
where = "z_best > 0.1"
[posterior]
passes = {passes}
seed = {seed}
[cluster]
workers = 2
dashboard_address = "127.0.0.1:0"
"""


@pytest.fixture(scope="session")
def realdata():
    """Folder of real survey pixels."""
    if not REALDATA.is_dir():
        pytest.skip("real survey pixels are not at hand (../shared/realdata)")
    return REALDATA


@pytest.fixture(scope="session")
def survey(tmp_path_factory):
    """A simulated survey of 120 galaxies in four patches and two bands."""
    from galbatch.simulate import simulate_survey

    folder = tmp_path_factory.mktemp("survey")
    simulate_survey(str(folder), n_objects=120, patches=4, bands=("g", "r"), seed=42)
    return folder


@pytest.fixture(scope="session")
def write_run(survey):
    """Write a run.toml for the simulated survey; keywords replace what stands in it."""

    def write(folder, *, max_objects=20, passes=8, seed=1, replace=(), **changes):
        folder.mkdir(parents=True, exist_ok=True)
        objects = changes.get("objects", survey / "objects.parquet")
        tiles = changes.get("survey", survey)
        text = RUN_TOML.format(
            survey=tiles, objects=objects, max_objects=max_objects, passes=passes, seed=seed
        )
        for old, new in replace:
            assert old in text, old
            text = text.replace(old, new)
        path = folder / "run.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture(scope="session")
def client():
    """A local cluster of two worker processes, shared by the tests that need none of their own."""
    from galbatch import cluster
    from galbatch.config import ClusterConfig

    with cluster.connect(ClusterConfig(workers=2, dashboard_address="127.0.0.1:0")) as connected:
        yield connected
