"""What do the rules of "no data" cost a cut?

Cutouts with image, mask and variance from a memory-mapped patch of noise, as `ingest.cut_block` makes them, with the rules of
`ingest/pixels/no_data.py` and with a stand-in that finds data everywhere. One patch is whole; in the other a tenth of the
cutouts touch a gap between detectors, which is padded with zeros. Run: python benchmarks/no_data.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
from astropy.io import fits
from astropy.wcs import WCS
from harness import compare, report

from galbatch import ingest
from galbatch.config import FlagsConfig, SurveyConfig
from galbatch.core import sky
from galbatch.core.types import CutoutSpec, Grid, ObjectTable, Tile

TILE_PX = 2000
N_OBJECTS = 200

NO_RULES = {
    "in_image": lambda *_, **__: None,
    "maybe_constant": lambda *_: False,
    "in_weight": lambda *_: None,
}


def written_tile(folder: Path, *, gap_px: int) -> Tile:
    """A patch of noise whose first columns are zeros."""
    rng = np.random.default_rng(1)
    image = rng.normal(size=(TILE_PX, TILE_PX)).astype(np.float32)
    image[:, :gap_px] = 0.0
    mask = np.where(rng.random(image.shape) < 0.02, 1 << 5, 0).astype(np.int32)
    header = fits.Header(
        {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0, "BUNIT": "nJy"}
    )
    header["CRPIX1"] = header["CRPIX2"] = TILE_PX / 2
    header["CD1_1"], header["CD2_2"] = -0.168 / 3600, 0.168 / 3600
    hdus = [fits.PrimaryHDU(image, header), fits.ImageHDU(mask), fits.ImageHDU(np.ones_like(image))]
    hdus[1].header["MP_DETECTED"] = 5
    path = folder / f"gap{gap_px}_g.fits"
    fits.HDUList(hdus).writeto(path)
    survey = SurveyConfig(layout="generic", tiles=str(path), bands=("g",), generic={"mask": 1, "weight": 2})
    return ingest.read_tiles(survey)[0]


def placed_objects(tile: Tile, size_px: int, gap_px: int) -> ObjectTable:
    """Objects whose cutouts lie within the tile, a tenth of them at its gap."""
    rng = np.random.default_rng(2)
    x, y = rng.uniform(gap_px + size_px, TILE_PX - size_px, (2, N_OBJECTS))
    x[: N_OBJECTS // 10] = gap_px + size_px // 3
    if not gap_px:
        x += size_px
        x = np.clip(x, size_px, TILE_PX - size_px)
    ra, dec = WCS(fits.Header.fromstring(tile.wcs_header)).all_pix2world(x, y, 0)
    return ObjectTable(np.arange(N_OBJECTS), ra, dec, sky.healpix_29(ra, dec), pa.table({}))


def main() -> None:
    """Cut with the rules and without, from both patches at two sizes."""
    with tempfile.TemporaryDirectory() as folder:
        for gap_px in (0, 200):
            tile = written_tile(Path(folder), gap_px=gap_px)
            for size_px in (96, 239):
                objects, spec = (
                    placed_objects(tile, size_px, gap_px),
                    CutoutSpec(Grid(size_px, 0.168), ("g",)),
                )

                def with_rules(objects=objects, spec=spec, tile=tile) -> None:
                    known = np.zeros(len(objects), np.int32)
                    ingest.cut_block(objects, [tile], spec=spec, flags=FlagsConfig(), object_flags=known)

                def without_rules(run=with_rules) -> None:
                    with mock.patch.multiple("galbatch.ingest.pixels.no_data", **NO_RULES):
                        run()

                contenders = {"without the rules": without_rules, "with the rules": with_rules}
                where = f"{size_px} px from a patch with {'a gap' if gap_px else 'no gap'}"
                report(
                    f"rules of no data at {where}",
                    compare(contenders, rounds=15),
                    items=N_OBJECTS,
                    unit="object",
                )


if __name__ == "__main__":
    main()
