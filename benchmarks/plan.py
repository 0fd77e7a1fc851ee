"""How long does planning take, and how much memory, for 10 million objects over 5,000 patches?

The object list is a Parquet file of rows at random over a footprint like HSC's Wide layer: 5,000 patches of 4200 px in three
stripes, in five bands with image, mask and variance, on S3 (nothing is fetched: planning looks at headers only, and these are
made up here). Planned once as a list in memory and once as a HATS catalog of the same rows, each in a process of its own on
one core. Run: python benchmarks/plan.py [ROWS]
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from harness import RESULTS

from galbatch.config import RunConfig
from galbatch.core import sky
from galbatch.core.pixels import HealpixPixel
from galbatch.core.types import FileIdentity, Grid, Plane, Tile
from galbatch.objects import open_objects
from galbatch.planning import ModelPlan, make_plan

BANDS = ("g", "r", "i", "z", "y")
SPACING_DEG = 4100 * 0.168 / 3600
STRIPES = [
    (30.0, -4.0, 150, 12),
    (130.0, -1.0, 170, 12),
    (220.0, 42.0, 100, 12),
]  # ra, dec, patches along each
HATS_ROWS = 1_000_000


def main(n_rows: int = 10_000_000) -> None:
    """Make the list in both forms, plan each in a process of its own, report."""
    with tempfile.TemporaryDirectory() as folder:
        tables = make_rows(n_rows)
        pq.write_table(tables, f"{folder}/objects.parquet", row_group_size=1_000_000)
        write_hats(Path(folder) / "hats", tables)
        del tables
        spawn = multiprocessing.get_context("spawn")
        rows = []
        for name in ("objects.parquet", "hats"):
            with spawn.Pool(1) as pool:
                rows.append({"list": name, **pool.apply(plan_once, (f"{folder}/{name}",))})
                print(", ".join(f"{key} {value}" for key, value in rows[-1].items()))
    content = {
        "question": __doc__.splitlines()[0],
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "rows": n_rows,
        "measured": rows,
    }
    (RESULTS / "plan.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def plan_once(path: str) -> dict[str, float]:
    """Read and plan; seconds of CPU and of the clock, peak memory of the process."""
    tiles = make_tiles()
    config = RunConfig(
        survey={"layout": "hsc", "tiles": "s3://survey", "bands": BANDS},
        objects={"path": path, "keep": ("z_best", "mag_i")},
        models=[{"name": "gampen", "bundle": "gampen.pt"}],
    )
    model = ModelPlan("gampen", "mag_i < 24.5", ("gampen.pt",), ("0" * 64,), Grid(239, 0.168), BANDS)
    before_mib = peak_mib()
    clock, cpu = time.perf_counter(), time.process_time()
    source = open_objects(config.objects)
    read_s = time.perf_counter() - clock
    plan = make_plan(config, source, tiles, [model])
    return {
        "read_s": round(read_s, 1),
        "total_s": round(time.perf_counter() - clock, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "before_mib": before_mib,
        "peak_mib": peak_mib(),
        "objects": len(plan.objects),
        "tiles": len(plan.tiles),
        "partitions": len(plan.partitions),
        "cutouts": plan.projection.n_cutouts[0],
        "read_tib": round(plan.projection.read_bytes / 2**40, 2),
        "read_amplification": round(plan.read_amplification, 3),
        "requests": plan.projection.requests,
    }


def peak_mib() -> int:
    """Peak memory of this process; not from getrusage, whose peak begins with that of the parent."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def make_rows(n_rows: int) -> pa.Table:
    """Objects at random over the stripes, one in a hundred with a neighbor 1 arcsec away."""
    rng = np.random.default_rng(1)
    area = np.array([n_x * n_y for *_, n_x, n_y in STRIPES], float)
    stripe = rng.choice(len(STRIPES), n_rows, p=area / area.sum())
    ra0, dec0, n_x, n_y = np.array(STRIPES).T[:, stripe]
    dec = dec0 + SPACING_DEG * rng.uniform(-0.5, n_y - 0.5)
    ra = ra0 + SPACING_DEG * rng.uniform(-0.5, n_x - 0.5) / np.cos(np.radians(dec))
    pairs = np.flatnonzero(rng.uniform(size=n_rows - 1) < 0.01)
    ra[pairs + 1], dec[pairs + 1] = ra[pairs], dec[pairs] + 1 / 3600
    return pa.table(
        {
            "object_id": rng.permutation(n_rows) + 36411452835238206,
            "ra_deg": ra,
            "dec_deg": dec,
            "z_best": rng.uniform(0, 2, n_rows).astype(np.float32),
            "mag_i": rng.uniform(18, 25, n_rows).astype(np.float32),
        }
    )


def write_hats(folder: Path, table: pa.Table) -> None:
    """The rows as a HATS catalog of pixels of a million rows at most."""
    index = sky.healpix_29(table["ra_deg"].to_numpy(), table["dec_deg"].to_numpy())
    rank = np.argsort(index)
    table, index = table.take(rank), index[rank]
    pending = [(0, pixel) for pixel in range(12)]
    while pending:
        order, pixel = pending.pop()
        start, stop = np.searchsorted(index, HealpixPixel(order, pixel).index_range).tolist()
        if stop - start > HATS_ROWS:
            pending += [(order + 1, 4 * pixel + child) for child in range(4)]
        elif stop > start:
            rows = table.slice(start, stop - start).append_column("_healpix_29", pa.array(index[start:stop]))
            path = folder / "dataset" / f"{HealpixPixel(order, pixel).path}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(rows, path)
    text = f"hats_nrows={len(table)}\nhats_col_ra=ra_deg\nhats_col_dec=dec_deg\n"
    (folder / "hats.properties").write_text(text, encoding="utf-8")


def make_tiles() -> list[Tile]:
    """5,000 patches in five bands, overlapping by 100 px."""
    tiles = []
    for ra0, dec0, n_x, n_y in STRIPES:
        for y in range(n_y):
            dec = dec0 + SPACING_DEG * y
            for x in range(n_x):
                ra = ra0 + SPACING_DEG * x / np.cos(np.radians(dec))
                tiles += [make_tile(f"{ra0:.0f}/{x},{y}", band, ra, dec) for band in BANDS]
    return tiles


def make_tile(tile_id: str, band: str, ra_deg: float, dec_deg: float) -> Tile:
    """A patch of 4200 px; the corners to first order, as is enough 0.1 deg from its center."""
    half_dec = 2100 * 0.168 / 3600
    half_ra = half_dec / np.cos(np.radians(dec_deg))
    corners = tuple(
        (float(ra_deg + a * half_ra), float(dec_deg + b * half_dec))
        for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    )
    path = f"s3://survey/{band}/{tile_id}.fits"
    return Tile(
        tile_id=tile_id,
        band=band,
        image=Plane(path, 1),
        shape_px=(4200, 4200),
        wcs_header="",
        grid_key="tract",
        njy_per_unit=57.544,
        pixel_scale_arcsec=0.168,
        corners_deg=corners,
        mask=Plane(path, 2),
        weight=Plane(path, 3),
        identity=FileIdentity(211_680_000, "1"),
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
