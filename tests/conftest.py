"""A small simulated survey, a cluster of two workers, S3 in memory, and the real data where they are available."""

import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

# Before torch and numpy are imported: tests share two cores with their worker processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings

# `ci` tries the same examples on every machine, so that a red run is one's own doing; `explore` tries others each time.
# The deadline is of one example, on a machine whose cores other tests share: it tells of endless loops, not of slow code.
settings.register_profile("ci", derandomize=True, deadline=timedelta(seconds=20), print_blob=True)
settings.register_profile("explore", derandomize=False, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

ORDER = ("unit", "property", "integration", "faults", "slurm", "gpu")


def pytest_addoption(parser):
    parser.addoption("--faults", type=int, help="number of seeded faults that tests/faults plays")
    parser.addoption("--first-fault", type=int, default=0, help="seed of the first of them")
    parser.addoption("--faults-log", help="file to which tests/faults appends a line of JSON for each fault")
    parser.addoption("--slurm", action="store_true", help="run tests/slurm, which start a SLURM site")


def pytest_collection_modifyitems(items):
    """Fast tests run first, so that what is simply wrong is seen within a minute."""
    folder = Path(__file__).parent
    items.sort(key=lambda item: ORDER.index(item.path.relative_to(folder).parts[0]))


# Real survey pixels are no part of the repository: tests that want them look here, or are skipped.
REALDATA = Path(os.environ.get("GALBATCH_REALDATA") or Path(__file__).parents[2] / "shared" / "realdata")

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
        pytest.skip(f"there are no real survey pixels in {REALDATA}: set GALBATCH_REALDATA")
    return REALDATA


@pytest.fixture(scope="session")
def survey(tmp_path_factory):
    """A simulated survey of 120 galaxies in four patches and two bands."""
    from galbatch.simulation import simulate_survey

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
def shorten_locks():
    """Make the locks in a folder, of a run that was killed, state a short period, for which others watch them."""

    def shorten(folder):
        for path in folder.glob("*_lock.json"):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"period_s": 0.2}))

    return shorten


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
    # Here, as a bare machine with a GPU runs tests/gpu without the packages of S3.
    from moto.server import ThreadedMotoServer

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
    import boto3

    bucket = f"bucket-{uuid.uuid4().hex[:8]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    yield f"s3://{bucket}"
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def _write_hats(folder, table, *, max_rows=50, order=None, **properties):
    """A HATS catalog of `table`, whose pixels hold `max_rows` at most, or are all of one `order`."""
    from galbatch.core import sky
    from galbatch.core.pixels import HealpixPixel

    ra, dec = table["ra_deg"].to_numpy(), table["dec_deg"].to_numpy()
    index = sky.healpix_29(np.nan_to_num(ra) % 360.0, np.nan_to_num(dec))
    table = table.take(np.argsort(index, kind="stable"))
    index = np.sort(index)
    pending = [(0, pixel) for pixel in range(12)]
    while pending:
        pixel = pending.pop()
        start, stop = np.searchsorted(index, HealpixPixel(*pixel).index_range)
        if start == stop:
            continue
        if pixel[0] < (0 if order is None else order) or (order is None and stop - start > max_rows):
            pending += [(pixel[0] + 1, 4 * pixel[1] + child) for child in range(4)]
            continue
        rows = table.slice(start, stop - start).append_column("_healpix_29", pa.array(index[start:stop]))
        path = folder / "dataset" / (HealpixPixel(*pixel).path + ".parquet")
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, path)
    known = {"obs_collection": "list", "hats_col_ra": "ra_deg", "hats_col_dec": "dec_deg"}
    known |= {"dataproduct_type": "object", "hats_nrows": str(len(table)), **properties}
    text = "".join(f"{key}={value}\n" for key, value in known.items())
    (folder / "hats.properties").write_text("#HATS catalog\n" + text)
    return folder


@pytest.fixture(scope="session")
def write_hats():
    return _write_hats


@dataclass(frozen=True)
class SlowlyResampled:
    """(y, x) float64 image and variance, uint16 mask, and what `CutoutBlock.noise_correlation` should be."""

    image: np.ndarray
    mask: np.ndarray
    variance: np.ndarray
    noise_correlation: float


def _kernel(distance, width_factor):
    """A low-pass filter of cutoff 0.46 under a Kaiser window (beta 6) of 3 px to each side, as resample.py states it."""
    within = np.clip(1 - (distance / width_factor / 3) ** 2, 0, None)
    kernel = np.sinc(0.92 * distance / width_factor) * (np.i0(6 * np.sqrt(within)) - 1)
    return kernel / kernel.sum()


def _slow_resample(image, mask, variance, source, target, size):
    """Transform every pixel with astropy, loop over all cutout pixels, count what each tile pixel gives to any of them."""

    def to_tile(u, v):
        return source.all_world2pix(*target.all_pix2world(u, v, 0), 0, tolerance=1e-8)

    half = (size - 1) / 2
    x, y = to_tile(np.array([half, half + 1, half]), np.array([half, half, half + 1]))
    ratio = np.sqrt(abs((x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])))
    width_factor = max(1.0, round(ratio, 2))
    reach = math.ceil(3 * width_factor)
    margin = math.ceil(3 * reach / ratio)  # two kernels, turned by 45 deg: 2.83
    v, u = np.mgrid[-margin : size + margin, -margin : size + margin]
    x, y = to_tile(u.ravel(), v.ravel())
    (x_left, y_left), (x_right, y_right) = (to_tile(u.ravel() + d, v.ravel()) for d in (-0.5, 0.5))
    (x_low, y_low), (x_high, y_high) = (to_tile(u.ravel(), v.ravel() + d) for d in (-0.5, 0.5))
    area = np.abs((x_right - x_left) * (y_high - y_low) - (x_high - x_low) * (y_right - y_left))
    given = np.zeros((image.shape[0] + 400, image.shape[1] + 400))  # the tile, 200 px wider on each side
    found = []
    for column, row, px, py, a in zip(u.ravel(), v.ravel(), x, y, area, strict=True):
        # Positions count in steps of 1/16384 px.
        px, py = round(px * 16384) / 16384, round(py * 16384) / 16384
        x0, y0 = math.floor(px) - reach + 1, math.floor(py) - reach + 1
        along = np.arange(2 * reach)
        weights = a * np.outer(_kernel(y0 + along - py, width_factor), _kernel(x0 + along - px, width_factor))
        given[y0 + 200 : y0 + 200 + 2 * reach, x0 + 200 : x0 + 200 + 2 * reach] += weights
        if 0 <= column < size and 0 <= row < size:
            found.append((row, column, y0, x0, weights, a))
    shape = (size, size)
    result = np.full(shape, np.nan), np.zeros(shape, np.uint16), np.full(shape, np.nan)
    covered, own = 0.0, 0.0
    for row, column, y0, x0, weights, a in found:
        y1, x1 = y0 + 2 * reach, x0 + 2 * reach
        if y0 < 0 or x0 < 0 or y1 > image.shape[0] or x1 > image.shape[1]:
            continue
        covered, own = covered + a, own + (weights**2).sum()
        shared = weights / given[y0 + 200 : y1 + 200, x0 + 200 : x1 + 200]
        result[0][row, column] = (shared * image[y0:y1, x0:x1]).sum()
        result[2][row, column] = (shared**2 * variance[y0:y1, x0:x1]).sum()
        if np.isfinite(result[0][row, column]):
            result[1][row, column] = np.bitwise_or.reduce(mask[y0:y1, x0:x1], axis=None)
        else:
            result[2][row, column] = np.nan
    return SlowlyResampled(*result, noise_correlation=np.sqrt(covered / own) if own else np.nan)


@pytest.fixture(scope="session")
def slow_resample():
    """The slow, plain reference of resampling: image, mask, variance on the tile, two WCS, size -> SlowlyResampled."""
    return _slow_resample


BLOCK_BANDS = ("g", "r")
MADE_UP_RA_DEG, MADE_UP_DEC_DEG = 45.0, 0.0


def _noise_block(grid, number):
    """The cutouts of a block: noise in two bands."""
    from galbatch.core.types import BLOCK_OBJECTS, CutoutBlock

    n, shape = BLOCK_OBJECTS, (BLOCK_OBJECTS, len(BLOCK_BANDS))
    image = np.random.default_rng(number).normal(0, 5, (*shape, grid.size_px, grid.size_px))
    return CutoutBlock(
        grid=grid,
        bands=BLOCK_BANDS,
        object_id=np.arange(number * n, (number + 1) * n),
        ra_deg=np.full(n, MADE_UP_RA_DEG),
        dec_deg=np.full(n, MADE_UP_DEC_DEG),
        image=image.astype(np.float32),
        mask=None,
        variance=None,
        crpix=np.zeros((n, 2)),
        crval=np.zeros((n, 2)),
        cd=np.zeros((n, 2, 2)),
        tile=np.full(n, "9813/4,4"),
        coverage=np.ones(shape, np.float32),
        sky_sigma_njy=np.ones(shape, np.float32),
        psf_fwhm_arcsec=np.ones(shape, np.float32),
        noise_correlation=np.ones(shape, np.float32),
        flags=np.zeros(n, np.int32),
    )


def _noise_task(folder, path, *, n_blocks, n_selected, posterior, engine="torchscript-float32", device="cpu"):
    """The task that infers a partition of noise, its cutouts written: the first `n_selected` objects of every block."""
    from galbatch import ingest, models
    from galbatch.core import sky
    from galbatch.core.fingerprint import Fingerprint
    from galbatch.core.pixels import Partition
    from galbatch.core.types import BLOCK_OBJECTS, ObjectTable
    from galbatch.execution import GridTask, InferTask, ModelTask
    from galbatch.planning import ModelPlan

    ensemble, made = models.load_ensemble([path]), Fingerprint({"made": "here"})
    network = ModelPlan("net", None, (path,), ensemble.sha256, ensemble.grid, ensemble.bands, engine=engine)
    n = n_blocks * BLOCK_OBJECTS
    ra_deg, dec_deg = np.full(n, MADE_UP_RA_DEG), np.full(n, MADE_UP_DEC_DEG)
    index = sky.healpix_29(ra_deg, dec_deg)
    partition = Partition(0, int(index[0] >> 58), 0, n)
    store = str(folder / "cutouts.zarr")
    ingest.create_groups(store, attributes={}, partitions=[partition], grids=[ensemble.grid])
    blocks = (_noise_block(ensemble.grid, number) for number in range(n_blocks))
    ingest.write_partition(
        store, partition, ensemble.grid, blocks, planes=("image",), fingerprint=made.as_json()
    )
    return InferTask(
        partition=partition,
        objects=ObjectTable(np.arange(n), ra_deg, dec_deg, index, pa.table({"row": np.arange(n)})),
        object_flags=np.zeros(n, np.int32),
        grids=(GridTask(ensemble.grid, BLOCK_BANDS, np.arange(n)),),
        models=(ModelTask(network, np.arange(n) % BLOCK_OBJECTS < n_selected),),
        posterior=posterior,
        store=store,
        catalog=str(folder / "catalog"),
        ingest_fingerprint=made,
        fingerprint=made,
        device=device,
    )


@pytest.fixture(scope="session")
def noise_task():
    return _noise_task


WAIT_MS = 600_000
"""A ceiling for slow machines, of a browser's start."""


# By module: while a browser of playwright is open, this thread has an event loop that other tests would stumble over.
@pytest.fixture(scope="module")
def browser():
    """Chromium without a window."""
    reason = "playwright is not installed: pip install galbatch[dev]"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip(
            "there is no Chromium here: install the system's package chromium to test pages in a browser"
        )
    with playwright.sync_playwright() as started:
        # Containers run tests as root, where Chromium has no sandbox; the page is galbatch's own.
        yield started.chromium.launch(executable_path=found, args=["--no-sandbox"], timeout=WAIT_MS)
