"""Names of others lead nowhere, and credentials are in no output."""

import io
import os
import subprocess
import sys
import urllib.request

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from galbatch import cluster, config, dashboard, ingest, storage
from galbatch.core.pixels import Partition
from galbatch.core.types import CutoutBlock, Grid
from galbatch.errors import UsageError

PLANTED = "PLANTED-a81f0c"

EVIL_IDS = [
    "../../../../etc/passwd",
    "/etc/passwd",
    "..",
    ".",
    r"C:\\windows\\system32",
    "CON",
    "a" * 5000,
    "%2e%2e%2f",
    "\u202etxt.exe",  # right-to-left override
    "\u00e9/..",
    "e\u0301/..",  # looks the same, and is another id
    "s3://bucket/x",
    "$(touch evil)",
    "; touch evil",
    "{0.__class__}",
    "<script>alert(1)</script>",
    "Norder=0/Npix=0",
    "_done.json",
]


def cli(*arguments, **variables):
    return subprocess.run(
        [sys.executable, "-m", "galbatch", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=400,
        env=os.environ | variables,
    )


def readable(name, data):
    """What a reader finds in a file: its bytes, and of Parquet also what is compressed."""
    if not name.endswith(".parquet") or not data.startswith(b"PAR1"):
        return data
    table = pq.read_table(io.BytesIO(data), partitioning=None)
    return data + str((table.schema, table.schema.metadata, table.to_pydict())).encode()


def test_bands_and_tile_ids_are_no_paths_in_the_store(tmp_path):
    evil, n, grid = "../../../evil", 2, Grid(8, 0.168)
    shape = (n, 1)
    block = CutoutBlock(
        grid=grid,
        bands=(evil,),
        object_id=np.array([evil, "/etc/passwd"]),
        ra_deg=np.full(n, 45.0),
        dec_deg=np.zeros(n),
        image=np.ones((*shape, 8, 8), np.float32),
        mask=None,
        variance=None,
        crpix=np.zeros((n, 2)),
        crval=np.zeros((n, 2)),
        cd=np.zeros((n, 2, 2)),
        tile=np.array([evil, "/"]),
        **{
            name: np.ones(shape, np.float32)
            for name in ("coverage", "sky_sigma_njy", "psf_fwhm_arcsec", "noise_correlation")
        },
        flags=np.zeros(n, np.int32),
    )
    store, partition = str(tmp_path / "a" / "b" / "cutouts.zarr"), Partition(0, 4, 0, n)
    ingest.create_groups(store, attributes={"bands": [evil]}, partitions=[partition], grids=[grid])
    ingest.write_partition(store, partition, grid, [block], planes=("image",), fingerprint={})
    group = f"{partition.path}/{grid.label}/"
    written = [
        path.relative_to(store).as_posix() for path in tmp_path.rglob("*") if path.is_file()
    ]  # raises where one is not below the store
    assert sum(name.startswith(group) for name in written) > 10
    assert all(name.endswith("zarr.json") for name in written if not name.startswith(group))


@pytest.mark.slow
def test_evil_ids_and_a_planted_secret_on_s3(s3, write_run, survey, tmp_path, monkeypatch):
    """One run whose credentials are searched in all that it writes and prints, and whose ids are paths and commands."""
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "FSSPEC_FTP_PASSWORD"):
        monkeypatch.setenv(name, PLANTED)
    listed = pq.read_table(survey / "objects.parquet").slice(0, len(EVIL_IDS))
    listed = listed.set_column(listed.column_names.index("object_id"), "object_id", pa.array(EVIL_IDS))
    pq.write_table(listed, tmp_path / "objects.parquet")
    places = f'[cutouts]\nstore = "{s3}/out/cutouts.zarr"\n[catalog]\npath = "{s3}/out/catalog"\n'
    run_toml = write_run(
        tmp_path / "run",
        max_objects=9,
        passes=4,
        objects=tmp_path / "objects.parquet",
        replace=[("[flags]", f"{places}[flags]"), ("passes = 4", "passes = 4\nkeep_pass_outputs = true")],
    )
    done = cli("run", run_toml, "--log-format", "json", "--workers", "1")
    assert done.returncode == 0, done.stderr
    report = cli("report", f"{s3}/out/catalog", "-o", tmp_path / "report.html")
    assert report.returncode == 0, report.stderr
    broken = cli("--debug", "verify", "s3://no-such-bucket/catalog")
    assert broken.returncode != 0
    files = fsspec.filesystem("s3")
    bucket = s3.removeprefix("s3://")
    written = {
        name.removeprefix(f"{bucket}/"): readable(name, files.cat_file(name)) for name in files.find(bucket)
    }
    assert all(name.startswith(("out/cutouts.zarr", "out/catalog")) and ".." not in name for name in written)
    assert sum(name.endswith("_done.json") for name in written) >= 4  # cutouts and two models' pass outputs
    assert {"out/catalog/_lock.json", "out/catalog_lock.json"}.isdisjoint(written)
    found = [value for name, data in written.items() if name.startswith("out/catalog/dataset/Norder") for value in EVIL_IDS if value.encode() in data]  # fmt: skip
    assert len(set(found)) > 10
    written["report"] = (tmp_path / "report.html").read_bytes()
    assert b"<script>alert(1)" not in written["report"]
    for one, name in ((done, "run"), (report, "report"), (broken, "broken")):
        written[f"printed by {name}"] = (one.stdout + one.stderr).encode()
    assert [name for name, data in written.items() if PLANTED.encode() in data] == []
    # Nothing was written on this machine but what the test wrote and asked for.
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "objects.parquet",
        "report.html",
        "run.toml",
    ]


def fail_with_the_environment(_):
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == PLANTED
    raise OSError("the bucket refuses")


PAGES = (
    "galaxies", "status", "workers", "tasks", "system", "profile", "info/main/workers.html", "info/main/exceptions.html",
    "info/main/logs.html", "json/counts.json", "metrics",
)  # fmt: skip


def test_no_page_of_the_dashboard_shows_a_planted_secret(monkeypatch):
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "FSSPEC_FTP_PASSWORD"):
        monkeypatch.setenv(name, PLANTED)
    asked = config.ClusterConfig(workers=1, dashboard_address="127.0.0.1:0")
    with cluster.connect(asked) as client:
        base = dashboard.watch(client).removesuffix("galaxies")
        failed = client.submit(fail_with_the_environment, 1)
        assert isinstance(failed.exception(timeout=600), OSError)
        shown = {}
        for page in PAGES:
            with urllib.request.urlopen(base + page, timeout=600) as answer:
                shown[page] = answer.read().decode()
        for address in client.run(lambda dask_worker: dask_worker.http_server.port).values():
            with urllib.request.urlopen(f"http://127.0.0.1:{address}/metrics", timeout=600) as answer:
                shown["metrics of the worker"] = answer.read().decode()
    assert all(len(text) > 50 for text in shown.values())
    assert "galbatch" in shown["galaxies"]
    assert [name for name, text in shown.items() if PLANTED in text] == []


@pytest.mark.parametrize(
    "url", [f"ftp://anna:{PLANTED}@127.0.0.1/x", f"https://127.0.0.1/x.fits?X-Amz-Signature={PLANTED}"]
)
def test_a_url_with_credentials_is_refused_wherever_it_comes_from(url, write_run, survey, tmp_path):
    with pytest.raises(UsageError, match="the URL holds credentials") as caught:
        storage.read_bytes(url)
    assert PLANTED not in str(caught.value)
    run_toml = write_run(tmp_path)
    run_toml.write_text(run_toml.read_text().replace(f"{survey}/objects.parquet", url))
    refused = cli("--debug", "plan", run_toml)
    assert refused.returncode == 1  # with --debug Python ends it, with its traceback
    assert "objects.path: " in refused.stderr
    assert PLANTED not in refused.stdout + refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run.toml"]
