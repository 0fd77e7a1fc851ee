"""GalaxiesML's HDF5 files."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import h5py
import numpy as np
import pytest
from astropy.wcs import WCS

from galbatch.core.types import njy_per_unit
from galbatch.errors import TileError
from galbatch.ingest import headers as lattice
from tests.unit.ingest.layouts.contract import PIXELS, LayoutContract


class TestGalaxiesMl(LayoutContract):
    layout = "galaxiesml"
    njy = njy_per_unit(27.0)
    options: ClassVar[dict[str, Any]] = {"galaxiesml": {"bands": ("g", "r"), "variance": "variance"}}

    def write(self, folder, wcs, write_calexp, name="5x64x64_training.hdf5", **kind):
        ra, dec = (np.nan, np.nan)
        if wcs:
            ra, dec = WCS(wcs).all_pix2world(35, 30, 0)  # 60 x 70 px: the central pixel
        with h5py.File(folder / name, "w") as file:
            file.attrs["zero_point_mag"] = 27.0
            file.create_dataset("image", data=PIXELS[None], **kind)
            file.create_dataset("variance", data=np.full_like(PIXELS[None], 0.25), **kind)
            for key, value in (("ra", ra), ("dec", dec), ("specz_redshift", 0.3)):
                file[key] = np.array([value], float)
            file["object_id"] = np.array([36411452835238206])

    def files(self, folder):
        return sorted(folder.rglob("*.hdf5"))

    def forget_zero_point(self, folder):
        with h5py.File(self.files(folder)[0], "a") as file:
            del file.attrs["zero_point_mag"]
        return {}

    def compress(self, folder):
        self.write(folder, self.wcs, None, compression="gzip", chunks=(1, 1, 60, 70))

    @pytest.fixture
    def survey(self, tmp_path, tan):
        folder = tmp_path / "survey"
        folder.mkdir()
        self.wcs = tan(crpix=(35, 30))
        self.write(folder, self.wcs, None)
        return folder

    test_the_same_gzipped = None  # HDF5 files are not packed as a whole

    def test_truncated_file_is_named_with_both_sizes(self, survey, read):
        path = self.files(survey)[0]
        size = path.stat().st_size
        os.truncate(path, size // 2)
        with pytest.raises(TileError, match=rf"truncated.* eof = {size // 2}, .* stored_eof = {size}"):
            read(survey)

    def test_file_cut_in_its_last_plane(self, survey, read):
        path = self.files(survey)[0]
        os.truncate(path, path.stat().st_size - 10)
        with pytest.raises(TileError, match="truncated"):
            read(survey)

    def test_garbage_is_a_tile_error(self, survey, read):
        self.files(survey)[0].write_bytes(b"<html>503 Service Unavailable</html>")
        with pytest.raises(TileError, match="no HDF5 file"):
            read(survey)

    @pytest.mark.parametrize(("name", "value"), [("ra", np.nan), ("dec", 91.0)])
    def test_a_wcs_that_cannot_be_used(self, survey, read, name, value):
        with h5py.File(self.files(survey)[0], "a") as file:
            file[name][0] = value
        with pytest.raises(TileError, match=r"1 rows have no position in ra, dec \(rows 0\)"):
            read(survey)

    def test_tile_id_is_file_and_object(self, survey, read):
        assert read(survey)[0].tile_id == "5x64x64_training/36411452835238206"

    def test_other_names_are_shown(self, survey, read):
        with pytest.raises(
            TileError,
            match=r"no dataset 'images'; there are dec \(1,\), image \(1, 2, 60, 70\), .*\[survey.galaxiesml\] image = ",
        ):
            read(survey, galaxiesml={"image": "images"})
        with pytest.raises(TileError, match=r"no dataset 'RA'.*\[survey.galaxiesml\] ra = "):
            read(survey, galaxiesml={"bands": ("g", "r"), "ra": "RA"})

    def test_another_number_of_bands(self, survey, read):
        with pytest.raises(TileError, match=r"image has shape \(1, 2, 60, 70\); .* with 5 bands is needed"):
            read(survey, galaxiesml={})

    def test_a_dataset_for_each_band(self, survey, read, objects, cut):
        with h5py.File(self.files(survey)[0], "a") as file:
            for number, band in enumerate("gr"):
                file[f"image_{band}"] = PIXELS[None, number]
        mapped = {"bands": ("g", "r"), "image": "image_{band}", "variance": "variance"}
        tiles = read(survey, bands=("g", "r"), galaxiesml=mapped)
        assert [(tile.image.hdu, tile.image.index) for tile in tiles] == [
            ("image_g", (0,)),
            ("image_r", (0,)),
        ]
        self.assert_pixels(self.cut_both(tiles, objects, cut))

    def test_release_of_the_file(self, survey, read):
        with h5py.File(self.files(survey)[0], "a") as file:
            file.attrs.update({"release": "pdr2", "background": "global sky"})
        assert (read(survey)[0].release, read(survey)[0].background) == ("pdr2", "global sky")

    @pytest.mark.parametrize(
        ("size", "center_px", "expected"), [(64, None, 32), (127, None, 63), (64, 31.5, 31.5)]
    )
    def test_many_rows_have_the_wcs_that_astropy_makes(self, tmp_path, read_tiles, size, center_px, expected):
        dec = np.array([2.0, -89.99, 90.0, 45.0, 0.0])
        ra = np.array([150.0, 10.0, 0.0, 359.9999, 1e-9])
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["image"] = np.zeros((5, 5, size, size), np.float32)
            file["ra"], file["dec"], file["object_id"] = ra, dec, np.array([b"a", b"b", b"c", b"d", b"d"])
        tiles = read_tiles(
            tmp_path,
            layout="galaxiesml",
            bands=("y",),
            zero_point_mag=27.0,
            galaxiesml={"center_px": center_px},
        )
        assert [tile.tile_id for tile in tiles] == ["a/a#0", "a/b#1", "a/c#2", "a/d#3", "a/d#4"]
        for row, tile in enumerate(tiles):
            wcs = lattice.parse_wcs(tile.wcs_header)
            x, y = wcs.all_world2pix(ra[row], dec[row], 0)
            assert (float(x), float(y)) == pytest.approx((expected, expected), abs=1e-6)
            assert tile.grid_key == lattice.lattice_key(tile.wcs_header)
            assert tile.image.index == (row, 4)
            corners = np.array(lattice.corners_deg(wcs, (size, size)))
            off = (np.array(tile.corners_deg) - corners + [180.0, 0.0]) % [360.0, 360.0] - [180.0, 0.0]
            off[:, 1] = (off[:, 1] + 180) % 360 - 180
            assert np.abs(off * [np.cos(np.deg2rad(dec[row])), 1.0]).max() < 1e-9
