"""GalaxiesML's HDF5 files."""

from __future__ import annotations

import gzip
import os
from typing import Any, ClassVar

import h5py
import numpy as np
import pytest
from astropy.wcs import WCS

from galbatch.config import RunConfig, parse_strictly
from galbatch.core.flags import MaskBit
from galbatch.core.types import njy_per_unit
from galbatch.errors import ConfigError, TileError
from galbatch.ingest import headers as lattice
from tests.unit.ingest.layouts.contract import PIXELS, LayoutContract


class TestGalaxiesMl(LayoutContract):
    layout = "galaxiesml"
    njy = njy_per_unit(27.0)
    options: ClassVar[dict[str, Any]] = {"galaxiesml": {"bands": ("g", "r"), "weight": "variance"}}

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

    suffixes: ClassVar[dict[str, Any]] = {".HDF5": bytes, ".h5": gzip.compress, ".hdf.gz": gzip.compress}
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
        with pytest.raises(TileError, match=r"no dataset 'alpha'.*\[survey.galaxiesml\] ra = "):
            read(survey, galaxiesml={"bands": ("g", "r"), "ra": "alpha"})

    def test_another_number_of_bands(self, survey, read):
        with pytest.raises(TileError, match=r"image has shape \(1, 2, 60, 70\); .* with 5 bands is needed"):
            read(survey, galaxiesml={})

    def test_a_dataset_for_each_band(self, survey, read, objects, cut):
        with h5py.File(self.files(survey)[0], "a") as file:
            for number, band in enumerate("gr"):
                file[f"image_{band}"] = PIXELS[None, number]
        mapped = {"bands": ("g", "r"), "image": "image_{band}", "weight": "variance"}
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
            x, y = wcs.to_pixels(ra[row], dec[row])
            assert (float(x), float(y)) == pytest.approx((expected, expected), abs=1e-6)
            assert tile.grid_key == lattice.lattice_key(tile.wcs_header)
            assert tile.image.index == (row, 4)
            corners = np.array(lattice.corners_deg(wcs, (size, size)))
            off = (np.array(tile.corners_deg) - corners + [180.0, 0.0]) % [360.0, 360.0] - [180.0, 0.0]
            off[:, 1] = (off[:, 1] + 180) % 360 - 180
            assert np.abs(off * [np.cos(np.deg2rad(dec[row])), 1.0]).max() < 1e-9

    @pytest.mark.parametrize("size", [64, 127])
    def test_published_files_need_no_names(self, tmp_path, read_tiles, objects, cut, size):
        """Datasets as GalaxiesML's files of both sizes have them: five bands, five magnitudes beside, no weights, no attributes."""
        rng = np.random.default_rng(size)
        images = rng.normal(size=(3, 5, size, size)).astype(np.float32)
        with h5py.File(tmp_path / f"5x{size}x{size}_training_with_morphology.hdf5", "w") as file:
            file["image"] = images
            file["object_id"] = np.array([36411452835238206, 36411452835238207, 74643924559360902])
            file["ra"], file["dec"] = np.array([150.0, 150.01, 20.0]), np.array([2.0, 2.0, -0.5])
            for band in "grizy":
                file[f"{band}_cmodel_mag"] = rng.normal(22.0, 1.0, 3)
            file["specz_redshift"] = rng.uniform(0, 4, 3)
        tiles = read_tiles(tmp_path, layout="galaxiesml", bands=("i", "g"), zero_point_mag=27.0)
        assert len(tiles) == 6
        assert {(tile.mask, tile.weight, tile.pixel_scale_arcsec) for tile in tiles} == {(None, None, 0.168)}
        block = cut(objects(20.0, -0.5), tiles, size=21, bands=("g", "i"))
        middle = slice(size // 2 - 10, size // 2 + 11)
        right = images[2][[0, 2], middle, middle] * np.float32(njy_per_unit(27.0))
        np.testing.assert_allclose(block.image[0], right, rtol=2e-7)
        assert np.isnan(block.variance).all()


class TestWeightsAndMasks:
    IVAR = 4.0

    @pytest.fixture
    def read(self, tmp_path, read_tiles, objects, cut):
        """The cutout of one object of 41 x 41 px in band g, from a file with more datasets."""

        def run(datasets, **galaxiesml):
            with h5py.File(tmp_path / "a.h5", "w") as file:
                file["image"] = np.ones((1, 1, 41, 41), np.float32)
                file["object_id"], file["ra"], file["dec"] = [7], [150.0], [2.0]
                for name, values in datasets.items():
                    file[name] = values
            options = {"bands": ("g",)} | galaxiesml
            tiles = read_tiles(
                tmp_path / "a.h5", layout="galaxiesml", zero_point_mag=31.4, galaxiesml=options
            )
            return cut(objects(150.0, 2.0), tiles, size=5)

        return run

    @pytest.mark.parametrize(
        ("name", "kind", "variance"),
        [
            ("image_ivar", None, 0.25),
            ("invvar", None, 0.25),
            ("variance", None, 4.0),
            ("img_var", None, 4.0),
            ("rms", None, 16.0),
            ("image_err", None, 16.0),
            ("weight", "inverse_variance", 0.25),
            ("weight", "variance", 4.0),
            ("ivar", "standard_deviation", 16.0),
        ],
    )
    def test_what_a_weight_is(self, read, name, kind, variance):
        weights = {name: np.full((1, 1, 41, 41), self.IVAR, np.float32)}
        block = read(weights, weight=name, **({"weight_kind": kind} if kind else {}))
        np.testing.assert_allclose(block.variance, variance, rtol=1e-6)

    def test_a_name_that_does_not_say_it(self, read):
        with pytest.raises(
            TileError, match=r"name of weight does not say what it holds; state .*weight_kind = "
        ):
            read({"weight": np.ones((1, 1, 41, 41), np.float32)}, weight="weight")

    def test_the_old_key_is_refused_with_the_new_one(self):
        with pytest.raises(ConfigError, match=r"\[survey.galaxiesml\] variance: renamed; write weight"):
            parse_strictly(RunConfig, {"survey": {"galaxiesml": {"variance": "x"}}}, "run.toml")

    @pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint64])
    def test_masks(self, read, dtype):
        mask = np.zeros((1, 41, 41), dtype)
        mask[0, 20, 20] = 1
        for planes, bit in (("nonzero", MaskBit.BAD), ({"SAT": 0}, MaskBit.SAT)):
            block = read({"mask": mask}, mask="mask", mask_planes=planes)
            assert (block.mask[0, 0, 2, 2], np.count_nonzero(block.mask)) == (bit, 1)
        assert np.count_nonzero(read({"mask": mask}, mask="mask", mask_planes="zero").mask) == 24
        with pytest.raises(TileError, match="nothing says what its values mean; state mask_planes"):
            read({"mask": mask}, mask="mask")
