"""Data for the ingest benchmarks: four HSC-sized patches of one tract, and positions well inside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy.io import fits
from astropy.wcs import WCS

from galbatch.core import sky
from galbatch.core.types import ObjectTable

__all__ = ["PATCH_PX", "make_objects", "make_tiles", "patch_header"]

PATCH_PX = 4200
STEP_PX = 4100  # neighboring patches overlap by 100 px
PATCHES = ("0,0", "1,0", "0,1", "1,1")
SCALE_DEG = 0.168 / 3600
MASK_PLANES = {
    "BAD": 0,
    "SAT": 1,
    "INTRP": 2,
    "CR": 3,
    "EDGE": 4,
    "DETECTED": 5,
    "NO_DATA": 8,
    "BRIGHT_OBJECT": 9,
}


def patch_header(patch: str) -> fits.Header:
    """The tract's WCS, shifted to the patch."""
    x, y = (int(part) for part in patch.split(","))
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = 150.0, 2.0
    header["CRPIX1"], header["CRPIX2"] = STEP_PX + 50.5 - x * STEP_PX, STEP_PX + 50.5 - y * STEP_PX
    header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = -SCALE_DEG, 0.0, 0.0, SCALE_DEG
    return header


def make_tiles(folder: str | Path, *, seed: int = 1) -> list[Path]:
    """Write calexp files of band g: noise with compact sources, a mask, a variance; kept if they are there."""
    random = np.random.default_rng(seed)
    paths = []
    for patch in PATCHES:
        path = Path(folder) / f"deepCoadd-results/HSC-G/9813/{patch}/calexp-HSC-G-9813-{patch}.fits"
        paths.append(path)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_patch(path, patch, random)
    return paths


def _write_patch(path: Path, patch: str, random: np.random.Generator) -> None:
    shape = (PATCH_PX, PATCH_PX)
    image = random.normal(0.0, 0.02, shape).astype(np.float32)
    mask = np.zeros(shape, np.int32)
    stamp = np.exp(-0.5 * (np.hypot(*np.mgrid[-15:16, -15:16]) / 2.5) ** 2)
    for y, x in random.integers(16, PATCH_PX - 16, (4000, 2)):
        box = (slice(y - 15, y + 16), slice(x - 15, x + 16))
        image[box] += np.float32(random.pareto(1.5) * 0.1) * stamp.astype(np.float32)
        mask[box] |= np.where(stamp > 0.05, 1 << MASK_PLANES["DETECTED"], 0).astype(np.int32)
    mask[random.random(shape) < 1e-4] |= 1 << MASK_PLANES["CR"]
    arrays = {"IMAGE": image, "MASK": mask, "VARIANCE": np.full(shape, 4e-4, np.float32)}
    header = patch_header(patch)
    planes = [fits.ImageHDU(plane, header=header, name=name) for name, plane in arrays.items()]
    for name, number in MASK_PLANES.items():
        planes[1].header[f"HIERARCH MP_{name}"] = number
    primary = fits.PrimaryHDU()
    primary.header["FLUXMAG0"] = 10 ** (27.0 / 2.5)
    fits.HDUList([primary, *planes]).writeto(path, overwrite=True)


def make_objects(
    n_objects: int, *, margin_px: int, seed: int = 2
) -> tuple[ObjectTable, npt.NDArray[np.int64]]:
    """Objects sorted by HEALPix index, each at least `margin_px` inside its patch, and the number of that patch."""
    random = np.random.default_rng(seed)
    patch = random.integers(0, len(PATCHES), n_objects)
    x, y = random.uniform(margin_px, PATCH_PX - 1 - margin_px, (2, n_objects))
    ra, dec = np.empty(n_objects), np.empty(n_objects)
    for number, name in enumerate(PATCHES):
        of = patch == number
        ra[of], dec[of] = WCS(patch_header(name)).all_pix2world(x[of], y[of], 0)
    index = sky.healpix_29(ra, dec)
    order = np.argsort(index)
    ids = np.arange(n_objects, dtype=np.int64) + 36_411_452_835_238_206
    table = ObjectTable(ids, ra[order], dec[order], index[order], pa.table({"z": np.zeros(n_objects)}))
    return table, patch[order]
