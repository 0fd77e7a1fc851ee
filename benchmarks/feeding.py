"""What do reading cutouts and writing the leaf add to inference?

The whole task `infer_partition` on a store against the same inference of the same cutouts from memory, `infer_block` on
blocks that are there already, in turn in one process, as a worker has it: one computing thread, the engine that a run
would choose. For each shipped bundle 64 passes; for SFNet, whose passes cost least, also 8. The store is on a local disk or
on S3 (moto's server, in another process); on a GPU where there is one. Run: python benchmarks/feeding.py [local] [s3] [cuda]
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as Dask's nannies start workers

import numpy as np
import pyarrow as pa
import torch
from harness import compare, report

from galbatch import ingest, models, simulation, storage
from galbatch.config import PosteriorConfig
from galbatch.core import sky
from galbatch.core.fingerprint import Fingerprint
from galbatch.core.pixels import Partition
from galbatch.core.types import BLOCK_OBJECTS, CutoutBlock, ObjectTable
from galbatch.execution import tasks
from galbatch.planning import ModelPlan

BANDS = ("g", "r")
RA_DEG, DEC_DEG = 45.0, 0.0
PIXEL = int(sky.healpix_29(np.array([RA_DEG]), np.array([DEC_DEG]))[0] >> 58)  # of HEALPix order 0


@dataclass(frozen=True)
class Case:
    """A shipped bundle, how many passes of how many blocks of objects, and how often that is timed."""

    spec: str
    passes: int
    n_blocks: int
    rounds: int
    device: str = "cpu"

    @property
    def partition(self) -> Partition:
        """Of all objects."""
        return Partition(0, PIXEL, 0, self.n_blocks * BLOCK_OBJECTS)

    @property
    def ensemble(self) -> models.Ensemble:
        """Loaded."""
        return models.load_ensemble([models.bundle_path(self.spec)])

    @property
    def plan(self) -> ModelPlan:
        """As a run would have it."""
        network = self.ensemble
        engine = models.choose_engine(network, kind="auto", precision="auto", device=self.device)
        path = models.bundle_path(self.spec)
        return ModelPlan(
            "net", None, (path,), network.sha256, network.grid, network.bands, engine=engine.name
        )


# The cheaper an object, the more of them, so that each takes seconds. Partitions have up to 78 blocks.
CASES = (Case("demo:gampen", 64, 2, 3), Case("demo:sfnet", 64, 3, 5), Case("demo:sfnet", 8, 16, 5))


def cutouts_of(grid, n_blocks: int) -> list[CutoutBlock]:
    """Blocks of simulated galaxies: those of the first again and again, under other ids."""
    truth = simulation.draw_population(BLOCK_OBJECTS, bands=BANDS, seed=9)
    images = simulation.draw_stamps(truth, bands=BANDS, size_px=grid.size_px, seed=9, processes=1)
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


def task_of(case: Case, folder: str) -> tasks.InferTask:
    """The task of a partition whose cutouts are written into the folder here."""
    plan, partition = case.plan, case.partition
    store, fingerprint = storage.join(folder, "cutouts.zarr"), Fingerprint({"made": "here"})
    ingest.create_groups(store, attributes={}, partitions=[partition], grids=[plan.grid])
    blocks = cutouts_of(plan.grid, case.n_blocks)
    made = fingerprint.as_json()
    ingest.write_partition(store, partition, plan.grid, blocks, planes=("image",), fingerprint=made)
    n = partition.n_objects
    ra_deg, dec_deg = np.full(n, RA_DEG), np.full(n, DEC_DEG)
    objects = ObjectTable(
        np.arange(n), ra_deg, dec_deg, sky.healpix_29(ra_deg, dec_deg), pa.table({"row": np.arange(n)})
    )
    return tasks.InferTask(
        partition=partition,
        objects=objects,
        object_flags=np.zeros(n, np.int32),
        grids=(tasks.GridTask(plan.grid, BANDS, np.arange(n)),),
        models=(tasks.ModelTask(plan, np.ones(n, bool)),),
        posterior=PosteriorConfig(passes=case.passes),
        store=store,
        catalog=storage.join(folder, "catalog"),
        ingest_fingerprint=fingerprint,
        fingerprint=fingerprint,
        device=case.device,
    )


def measure(case: Case, folder: str, where: str) -> None:
    """Compare for one bundle."""
    task = task_of(case, folder)
    plan, ensemble = task.models[0].network, case.ensemble
    execution = models.Execution(models.Engine.named(plan.engine), case.device)
    blocks = list(ingest.read_blocks(task.store, task.partition, plan.grid))

    def from_memory() -> None:
        for block in blocks:
            models.infer_block(
                ensemble,
                models.BlockInputs(block.select_bands(plan.bands), np.ones(len(block), bool)),
                name="net",
                posterior=task.posterior,
                execution=execution,
            )

    contenders = {"from memory": from_memory, "infer_partition": lambda: tasks.infer_partition(task)}
    there = "" if case.device == "cpu" else f" on {case.device}"
    question = f"feeding {case.spec} with {case.passes} passes{there} from {where}"
    report(question, compare(contenders, rounds=case.rounds), items=len(task.objects), unit="object")


@contextmanager
def s3_server() -> Iterator[str]:
    """``s3://<an empty bucket>`` of a server in another process."""
    import boto3

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
                break
            time.sleep(0.1)
        boto3.client("s3").create_bucket(Bucket="feeding")
        yield "s3://feeding"
    finally:
        server.terminate()


def main(wanted: list[str]) -> None:
    """All bundles, from each place asked for."""
    torch.set_num_threads(1)
    device = "cuda" if "cuda" in wanted else "cpu"
    cases = [replace(case, device=device) for case in CASES]
    if "local" in wanted:
        for case in cases:
            with tempfile.TemporaryDirectory() as folder:
                measure(case, folder, "a local disk")
    if "s3" in wanted:
        with s3_server() as bucket:
            for number, case in enumerate(cases):
                measure(case, f"{bucket}/{number}", "S3")


if __name__ == "__main__":
    main(sys.argv[1:] or ["local", "s3"])
