"""What do reading cutouts and writing the leaf add to inference?

The whole task `infer_partition` on a store against the same inference of the same cutouts from memory, `infer_block` on
blocks that are there already, in turn in one process, as a worker has it: one computing thread. For each shipped bundle,
64 passes; for SFNet, whose passes cost least, also 8. On a local disk, from S3 (moto's server, in another process), and on
a CUDA GPU where there is one. Run: python benchmarks/feeding.py [local] [s3] [cuda]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as Dask's nannies start workers

import numpy as np
import pyarrow as pa
import torch
from harness import compare, report

from galbatch import ingest, models, simulate, sky, storage, tasks
from galbatch.config import PosteriorConfig
from galbatch.fingerprint import Fingerprint
from galbatch.plan import ModelPlan
from galbatch.types import BLOCK_OBJECTS, CutoutBlock, ObjectTable, Partition

N_BLOCKS = 2
BANDS = ("g", "r")
RA_DEG, DEC_DEG = 45.0, 0.0
PARTITION = Partition(
    0, int(sky.healpix_29(np.array([RA_DEG]), np.array([DEC_DEG]))[0] >> 58), 0, N_BLOCKS * BLOCK_OBJECTS
)
CASES = (("demo:gampen", 64), ("demo:sfnet", 64), ("demo:sfnet", 8))


@dataclass(frozen=True)
class Network:
    """A shipped bundle and how many passes it is asked for."""

    spec: str
    passes: int

    @property
    def plan(self) -> ModelPlan:
        """As a run would have it."""
        path = models.bundle_path(self.spec)
        bundle = models.load_bundle(path)
        return ModelPlan("net", None, (path,), (bundle.sha256,), bundle.grid, bundle.bands)


def cutouts_of(grid, n_blocks: int) -> list[CutoutBlock]:
    """Blocks of simulated galaxies: those of the first again and again, under other ids."""
    truth = simulate.draw_population(BLOCK_OBJECTS, bands=BANDS, seed=9)
    images = simulate.draw_stamps(truth, bands=BANDS, size_px=grid.size_px, seed=9, processes=1)
    n = BLOCK_OBJECTS
    per_band = np.ones((n, len(BANDS)), np.float32)
    return [
        CutoutBlock(
            grid=grid,
            bands=BANDS,
            object_id=np.arange(number * n, (number + 1) * n),
            ra_deg=np.full(n, RA_DEG),
            dec_deg=np.full(n, DEC_DEG),
            image=images,
            mask=None,
            variance=None,
            crpix=np.full((n, 2), 48.0),
            crval=np.zeros((n, 2)),
            cd=np.zeros((n, 2, 2)),
            tile=np.full(n, "9813/4,4"),
            coverage=per_band,
            sky_sigma_njy=per_band,
            psf_fwhm_arcsec=per_band,
            noise_correlation=per_band,
            flags=np.zeros(n, np.int32),
        )
        for number in range(n_blocks)
    ]


def task_of(network: Network, folder: str) -> tasks.InferTask:
    """The task of a partition whose cutouts are written into the folder here."""
    plan = network.plan
    store, fingerprint = storage.join(folder, "cutouts.zarr"), Fingerprint({"made": "here"})
    n = PARTITION.n_objects
    if ingest.read_done(store, PARTITION, plan.grid) is None:
        ingest.create_groups(store, attributes={}, partitions=[PARTITION], grids=[plan.grid])
        ingest.write_partition(
            store, PARTITION, plan.grid, cutouts_of(plan.grid, N_BLOCKS), planes=("image",),
            fingerprint=fingerprint.as_json(),
        )  # fmt: skip
    ra_deg, dec_deg = np.full(n, RA_DEG), np.full(n, DEC_DEG)
    objects = ObjectTable(
        np.arange(n), ra_deg, dec_deg, sky.healpix_29(ra_deg, dec_deg), pa.table({"row": np.arange(n)})
    )
    return tasks.InferTask(
        partition=PARTITION,
        objects=objects,
        object_flags=np.zeros(n, np.int32),
        grids=(tasks.GridTask(plan.grid, BANDS, np.arange(n)),),
        models=(tasks.ModelTask(plan, np.ones(n, bool)),),
        posterior=PosteriorConfig(passes=network.passes),
        store=store,
        catalog=storage.join(folder, "catalog"),
        ingest_fingerprint=fingerprint,
        fingerprint=fingerprint,
    )


def measure(network: Network, folder: str, where: str) -> None:
    """Compare for one bundle."""
    task = task_of(network, folder)
    plan, ensemble = network.plan, tasks.load_network(network.plan)
    blocks = list(ingest.read_blocks(task.store, PARTITION, plan.grid))

    def from_memory() -> None:
        for block in blocks:
            models.infer_block(
                ensemble, block.select_bands(plan.bands), name="net", posterior=task.posterior,
                selected=np.ones(len(block), bool),
            )  # fmt: skip

    contenders = {"from memory": from_memory, "infer_partition": lambda: tasks.infer_partition(task)}
    question = f"{network.spec} with {network.passes} passes from {where}"
    report(question, compare(contenders, rounds=5), items=len(task.objects), unit="object")


@contextmanager
def s3_server() -> Iterator[str]:
    """``s3://<an empty bucket>`` of a server in another process."""
    import boto3

    os.environ |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ["AWS_ENDPOINT_URL"] = "http://127.0.0.1:5987"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", "5987"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(4.0)
        boto3.client("s3").create_bucket(Bucket="feeding")
        yield "s3://feeding"
    finally:
        server.terminate()


def main(wanted: list[str]) -> None:
    """All bundles, from each place asked for."""
    torch.set_num_threads(1)
    for spec, passes in CASES:
        network = Network(spec, passes)
        if "local" in wanted:
            with tempfile.TemporaryDirectory() as folder:
                measure(network, folder, "a local disk")
        if "s3" in wanted:
            with s3_server() as bucket:
                measure(network, bucket, "S3")


if __name__ == "__main__":
    main(sys.argv[1:] or ["local", "s3"])
