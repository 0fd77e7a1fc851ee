"""How fast is the cut, against astropy's Cutout2D one object at a time?

Both read the same memory-mapped FITS tile (image, mask, variance) and make 96 px float32 image cutouts in nJy. galbatch also
decides flags, coverage, sky scatter and a WCS for each; Cutout2D gives image and WCS alone. Run: python benchmarks/cut.py
"""

from __future__ import annotations

import tempfile
import warnings

import numpy as np
import pyarrow.parquet as pq
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS, FITSFixedWarning
from harness import compare, report

from galbatch import ingest, simulation
from galbatch.config import FlagsConfig, ObjectsConfig, SurveyConfig
from galbatch.core.types import BLOCK_OBJECTS, CutoutSpec, Grid, njy_per_unit
from galbatch.objects import read_objects

GRID = Grid(96, 0.168)
N_OBJECTS = 400


def main() -> None:
    """Simulate one patch, cut its objects in both ways, report."""
    warnings.simplefilter("ignore", FITSFixedWarning)
    with tempfile.TemporaryDirectory() as folder:
        survey = simulation.simulate_survey(folder, n_objects=N_OBJECTS, patches=1, bands=("g",), seed=3)
        objects, *_ = read_objects(ObjectsConfig(path=survey.objects))
        tiles = ingest.read_tiles(SurveyConfig(layout="hsc", tiles=survey.tiles, bands=("g",)))
        path = tiles[0].image.path
        n_listed = pq.read_metadata(survey.objects).num_rows

        def galbatch_cut() -> None:
            for start in range(0, len(objects), BLOCK_OBJECTS):
                block = objects.take(slice(start, start + BLOCK_OBJECTS))
                known = np.zeros(len(block), np.int32)
                ingest.cut_block(
                    block, tiles, spec=CutoutSpec(GRID, ("g",)), flags=FlagsConfig(), object_flags=known
                )

        def cutout2d() -> None:
            with fits.open(path, memmap=True) as hdus:
                wcs, image = WCS(hdus[1].header), hdus[1].data
                for ra, dec in zip(objects.ra_deg, objects.dec_deg, strict=True):
                    position = SkyCoord(ra * units.deg, dec * units.deg)
                    if not wcs.footprint_contains(position):
                        continue
                    cutout = Cutout2D(
                        image, position, GRID.size_px, wcs=wcs, mode="partial", fill_value=np.nan
                    )
                    np.asarray(cutout.data, np.float32) * np.float32(njy_per_unit(27.0))

        measured = compare(
            {"Cutout2D and SkyCoord, one by one": cutout2d, "galbatch cut_block": galbatch_cut}
        )
        report("cut against Cutout2D", measured, items=n_listed, unit="object")


if __name__ == "__main__":
    main()
