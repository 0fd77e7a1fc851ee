"""How long does resampling take an object, against reproject one plane stack a band, and with each method of [cutouts] resampling?

Image, variance and mask of tiles with 0.262 arcsec pixels come onto cutouts of 0.168 arcsec, from memory. Against reproject_interp:
it interpolates (bicubic) the planes and one more for each mask bit; galbatch also propagates the variance and keeps fluxes to
1e-4. Then the methods: all of them make variance and mask with galbatch's kernel. Run: python benchmarks/resample.py
"""

from __future__ import annotations

from functools import partial
from typing import get_args

import numpy as np
from astropy.io import fits
from harness import compare, report
from reproject import reproject_interp

from galbatch.core.flags import MaskBit
from galbatch.core.types import Plane, Resampling, Tile
from galbatch.ingest import headers as lattice
from galbatch.ingest.cut.resample import resample
from galbatch.ingest.pixels import Box, Pixels

TILE_PX = 1000
N_OBJECTS = 10


class InMemory:
    """What a TileReader gives, without files."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        shape = (TILE_PX, TILE_PX)
        self.image = rng.normal(size=shape).astype(np.float32)
        self.mask = np.where(rng.random(shape) < 0.02, MaskBit.DETECTED, 0).astype(np.uint16)
        self.variance = np.ones(shape, np.float32)

    def read(self, tile: Tile, box: Box) -> Pixels:
        """Copies of the windows."""
        return Pixels(*(plane[box.slices].copy() for plane in (self.image, self.mask, self.variance)))


def tile_of(band: str) -> Tile:
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = 150.0, 2.0
    header["CRPIX1"], header["CRPIX2"] = TILE_PX / 2, TILE_PX / 2
    header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = -0.262 / 3600, 0.0, 0.0, 0.262 / 3600
    text, shape = header.tostring(), (TILE_PX, TILE_PX)
    corners = lattice.corners_deg(lattice.parse_wcs(text), shape)
    key = lattice.lattice_key(text)
    return Tile("t", band, Plane("", 0), shape, text, key, 1.0, 0.262, corners)


def with_reproject(reader: InMemory, tile: Tile, target: lattice.TanWCS, size_px: int) -> None:
    """The window's planes in one call: they share the map between the pixels."""
    wcs = lattice.parse_wcs(tile.wcs_header)
    x, y = wcs.to_pixels(*target.crval)
    half = int(size_px * 0.168 / 0.262 / 2) + 7
    box = Box(int(y) - half, int(y) + half, int(x) - half, int(x) + half)
    found = reader.read(tile, box)
    planes = np.stack(
        [found.image, found.variance, np.isnan(found.image), np.isnan(found.variance), found.mask != 0]
    )
    shape = (len(planes), size_px, size_px)
    options = {"order": "bicubic", "shape_out": shape, "return_footprint": False, "roundtrip_coords": False}
    reproject_interp((planes.astype(float), wcs.wcs.slice(box.slices)), target.astropy(), **options)


def main() -> None:
    """Both ways at two sizes and for one and three bands."""
    reader = InMemory()
    for size_px in (96, 239):
        rng = np.random.default_rng(2)
        places = 150.0 + rng.uniform(-0.005, 0.005, N_OBJECTS), 2.0 + rng.uniform(-0.005, 0.005, N_OBJECTS)
        targets = [
            lattice.tan_wcs(ra, dec, scale_arcsec=0.168, center_px=size_px // 2)
            for ra, dec in zip(*places, strict=True)
        ]
        for n_bands in (1, 3):
            tiles = [tile_of(band) for band in "gri"[:n_bands]]

            def one_by_one(targets=targets, tiles=tiles, size_px=size_px) -> None:
                for target in targets:
                    for tile in tiles:
                        with_reproject(reader, tile, target, size_px)

            def by(method, targets=targets, tiles=tiles, size_px=size_px) -> None:
                for target in targets:
                    for tile in tiles:
                        resample(reader, tile, target=target, size_px=size_px, resampling=method)

            contenders = {
                "reproject_interp, bicubic": one_by_one,
                "galbatch resample": partial(by, "low_pass"),
            }
            measured = compare(contenders, rounds=5)
            place = f"at {size_px} px in {n_bands} band{'s' * (n_bands > 1)}"
            report(f"resampling {place}", measured, items=N_OBJECTS, unit="object")
            methods = {method: partial(by, method) for method in get_args(Resampling)}
            report(
                f"methods of resampling {place}", compare(methods, rounds=5), items=N_OBJECTS, unit="object"
            )


if __name__ == "__main__":
    main()
