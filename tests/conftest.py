"""A small simulated survey, a cluster of two workers, S3 in memory, and the real data where it is at hand."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

# Before torch and numpy are imported: tests share two cores with their worker processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import boto3
import fsspec
import pytest
from moto.server import ThreadedMotoServer

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


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """URL of an S3 server on the loopback, in memory; it takes any credentials."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """``s3://<an empty bucket>``, with the environment (also of child processes) set for it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    bucket = f"bucket-{uuid.uuid4().hex[:8]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    yield f"s3://{bucket}"
    fsspec.get_filesystem_class("s3").clear_instance_cache()
