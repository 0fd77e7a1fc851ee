"""Files of surveys, where they are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from galbatch.core.types import njy_per_unit
from galbatch.errors import TileError
from galbatch.ingest.pixels import Box, TileReader


class TestRealFiles:
    def test_bands_on_the_axis_of_cosmos_cubes(self, realdata, read_tiles, objects, cut):
        path = realdata / "hsc_cosmos_cubes" / "hsc_ra=150.24071_dec=2.06514.fits"
        axis = {band: number for number, band in enumerate("grizy")}
        tiles = read_tiles(
            path, layout="generic", bands=("g", "i", "y"), generic={"axis": axis}, zero_point_mag=27.0
        )
        cube = fits.getdata(path)
        position = WCS(tiles[0].wcs_header, naxis=2).all_pix2world(27, 27, 0)
        block = cut(objects(*position), tiles, size=21, bands=("g", "i", "y"))
        expected = cube[[0, 2, 4], 17:38, 17:38] * njy_per_unit(27.0)
        np.testing.assert_allclose(block.image[0], expected, rtol=1e-6)

    def test_decam_image_mask_and_weight_in_three_compressed_files(self, realdata, read_tiles):
        folder = realdata / "decam_compressed" / "testcase8"
        generic = {
            "pattern": r"_oo[idw]_(?P<band>[a-z]+)_.*\.(?P<tile>N\d)\.fits",
            "mask_replace": ("_ooi_", "_ood_"),
            "weight_replace": ("_ooi_", "_oow_"),
            "weight_kind": "inverse_variance",
            "mask_planes": "nonzero",
        }
        (tile,) = read_tiles(
            str(folder / "images/**/*.fits"),
            layout="generic",
            bands=("r",),
            generic=generic,
            zero_point_mag={"r": 25.0},
            psf_fwhm_card="G-SEEING",
        )
        assert (tile.tile_id, tile.psf_fwhm_arcsec) == ("N6", 1.937)
        assert tile.njy_per_unit == pytest.approx(10**2.56, rel=1e-9)
        assert tile.identity.size_bytes == sum(
            Path(p.path).stat().st_size for p in (tile.image, tile.mask, tile.weight)
        )
        with TileReader() as reader:
            pixels = reader.read(tile, Box(0, 375, 0, 280))
        mask = fits.getdata(tile.mask.path)
        np.testing.assert_array_equal(pixels.mask != 0, mask != 0)
        weight = fits.getdata(tile.weight.path)
        np.testing.assert_array_equal(np.isnan(pixels.image), ~(weight > 0))

    def test_hsc_stamps_with_their_catalog(self, realdata, read_tiles):
        folder = realdata / "hsc_pdr2_stamps"
        stamps = {"catalog": str(folder / "star_cat_correct.csv"), "file": "star_filename"}
        named = stamps | {"ra": "ira", "dec": "idec"}
        tiles = read_tiles(folder, layout="stamps", bands=("i",), stamps=named)
        assert len(tiles) == 10
        assert {(tile.release, tile.background) for tile in tiles} == {("pdr2", "global sky")}
        with pytest.raises(TileError, match="do not belong together"):
            read_tiles(folder, layout="stamps", bands=("i",), stamps=stamps | {"ra": "idec", "dec": "ira"})

    def test_decals_is_dr9(self, realdata, read_tiles):
        assert read_tiles(realdata / "decals_dr9", layout="legacysurvey")[0].release == "dr9"
