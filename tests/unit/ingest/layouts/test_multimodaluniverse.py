"""MultimodalUniverse's HDF5 files, with the datasets that its scripts write."""

from __future__ import annotations

import gzip
import os
from typing import Any, ClassVar

import h5py
import numpy as np
import pytest
from astropy.wcs import WCS

from galbatch.core.flags import MaskBit
from galbatch.core.types import njy_per_unit
from galbatch.errors import TileError
from tests.unit.ingest.layouts.contract import PIXELS, LayoutContract


class TestMultimodalUniverse(LayoutContract):
    layout = "multimodaluniverse"
    njy = njy_per_unit(27.0)
    options: ClassVar[dict[str, Any]] = {"zero_point_mag": 27.0}

    def write(self, folder, wcs, write_calexp, **kind):
        ra, dec = (np.nan, np.nan)
        if wcs:
            ra, dec = WCS(wcs).all_pix2world(35, 30, 0)  # 60 x 70 px: the central pixel
        place = folder / "pdr3_dud_22.5/healpix=1104"
        place.mkdir(parents=True, exist_ok=True)
        with h5py.File(place / "001-of-001.hdf5", "w") as file:
            file.create_dataset("image_array", data=PIXELS[None], **kind)
            file.create_dataset("image_ivar", data=np.full_like(PIXELS[None], 4.0), **kind)
            file.create_dataset("image_mask", data=np.ones(PIXELS[None].shape, bool), **kind)
            file["image_band"] = np.array([["hsc-g", "hsc-r"]], h5py.string_dtype("utf-8", 5))
            file["image_scale"] = np.full((1, 2), 0.168, np.float32)
            file["image_psf_fwhm"] = np.zeros((1, 2), np.float32)  # the scripts fill unknown widths with 0
            file["ra"], file["dec"] = np.array([ra], float), np.array([dec], float)
            file["object_id"] = np.array([36411452835238206])

    def files(self, folder):
        return sorted(folder.rglob("*.hdf5"))

    def forget_zero_point(self, folder):
        self.options = {}
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
    test_a_zero_point_that_contradicts_the_file_is_refused = None  # the files state none
    test_truncated_file_is_named_with_both_sizes = None  # HDF5's own message, see TestGalaxiesMl

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

    def test_bands_are_named_as_people_write_them(self, survey, read):
        for bands in (("g", "r"), ("hsc-g", "hsc-r"), ("HSC-G", "HSC-R"), ("R",)):
            assert {tile.band for tile in read(survey, bands=bands)} == set(bands)

    def test_tile_ids_have_the_cell(self, survey, read):
        assert read(survey)[0].tile_id == "healpix=1104/36411452835238206"


@pytest.fixture
def sample(tmp_path):
    """Write one file of a sample; rows of 40 x 40 px at ra 150, 150.1 .., dec 2."""

    def write(cell=17, n_rows=2, bands=("des-g", "des-r", "des-i", "des-z"), image="image_array", **datasets):
        rng = np.random.default_rng(cell)
        place = tmp_path / f"dr10_south_21/healpix={cell}"
        place.mkdir(parents=True)
        content = {
            image: rng.normal(size=(n_rows, len(bands), 40, 40)).astype(np.float32),
            "image_ivar": rng.uniform(1, 2, (n_rows, len(bands), 40, 40)).astype(np.float32),
            "image_mask": np.ones((n_rows, 40, 40), bool),
            "image_band": np.array([list(bands)] * n_rows, h5py.string_dtype("utf-8", 5)),
            "image_psf_fwhm": rng.uniform(1, 2, (n_rows, len(bands))),
            "image_scale": np.full((n_rows, len(bands)), 0.262, np.float32),
            "object_id": np.array([f"1500p020-{cell}{row}" for row in range(n_rows)], "S16"),
            "RA": 150.0 + 0.1 * np.arange(n_rows),
            "DEC": np.full(n_rows, 2.0),
        } | datasets
        with h5py.File(place / "001-of-001.hdf5", "w") as file:
            for name, values in content.items():
                if values is not None:
                    file[name] = values
        return content

    return write


@pytest.fixture
def read(tmp_path, read_tiles):
    def run(*, bands=("g", "z"), zero_point_mag=22.5, **survey):
        return read_tiles(
            tmp_path, layout="multimodaluniverse", bands=bands, zero_point_mag=zero_point_mag, **survey
        )

    return run


def test_planes_psf_and_scale_of_each_row(sample, read, objects, cut):
    """Legacy Surveys' sample: ids are text, positions in capitals, one mask (true: good) for all bands."""
    mask = np.ones((2, 40, 40), bool)
    mask[1, 20, 21] = False
    ivar = np.ones((2, 4, 40, 40), np.float32)
    ivar[1, 3, 19, 20] = 0.0
    content = sample(image_mask=mask, image_ivar=ivar)
    tiles = read()
    assert [tile.tile_id for tile in tiles[::2]] == ["healpix=17/1500p020-170", "healpix=17/1500p020-171"]
    block = cut(objects(150.1, 2.0), tiles, size=5, scale=0.262, bands=("z", "g"))
    njy = np.float32(njy_per_unit(22.5))
    right = content["image_array"][1][[3, 0], 18:23, 18:23] * njy
    right[0, 1, 2] = np.nan  # inverse variance 0: nothing was measured
    np.testing.assert_allclose(block.image[0], right, rtol=2e-7)
    np.testing.assert_allclose(block.variance[0], np.where(np.isnan(right), np.nan, njy**2), rtol=1e-6)
    assert block.mask[0, :, 2, 3].tolist() == [MaskBit.BAD, MaskBit.BAD]
    assert np.count_nonzero(block.mask) == 2
    np.testing.assert_allclose(block.psf_fwhm_arcsec[0], content["image_psf_fwhm"][1][[3, 0]], rtol=1e-6)
    assert not block.flags[0] & 1


def test_cells_are_joined(sample, read):
    sample(cell=17), sample(cell=18)
    assert len(read()) == 8


def test_a_sample_without_weights_and_masks(sample, read):
    sample(image_ivar=None, image_mask=None, image_psf_fwhm=None)
    tile = read()[0]
    assert (tile.mask, tile.weight, np.isnan(tile.psf_fwhm_arcsec)) == (None, None, True)
    with pytest.raises(TileError, match="no dataset 'image_var'"):
        read(multimodaluniverse={"weight": "image_var"})


def test_filters_of_jwst_at_scales_of_their_own(sample, read, objects, cut):
    content = sample(
        bands=("f090w", "f444w"),
        image="image_flux",
        image_mask=np.ones((2, 2, 40, 40), bool),
        image_scale=np.tile(np.float32([0.02, 0.04]), (2, 1)),
    )
    tiles = read(bands=("F444W", "F090W"), zero_point_mag=28.9)
    assert {tile.band: tile.pixel_scale_arcsec for tile in tiles} == {"F444W": 0.04, "F090W": 0.02}
    for tile in tiles:
        _, dec = zip(*tile.corners_deg, strict=True)
        assert max(dec) - min(dec) == pytest.approx(40 * tile.pixel_scale_arcsec / 3600, rel=1e-6)
    block = cut(objects(150.0, 2.0), tiles, size=9, scale=0.04, bands=("F444W",))
    right = content["image_flux"][0, 1, 16:25, 16:25] * njy_per_unit(28.9)
    np.testing.assert_allclose(block.image[0, 0], right, rtol=1e-6)


def test_one_band_without_its_axis(sample, read):
    """The COSMOS sample of HST: (object, y, x), and one name and scale a row."""
    images = np.ones((2, 40, 40), np.float32)
    sample(
        image="image_flux",
        image_flux=images,
        image_ivar=images,
        image_band=np.array([b"F814W"] * 2),
        image_scale=None,
        pixel_scale=np.full(2, 0.05),
        image_psf_fwhm=None,
    )
    (first, _) = read(bands=("f814w",), zero_point_mag=25.9)
    assert (first.pixel_scale_arcsec, first.image.index, first.weight.index) == (0.05, (0,), (0,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"image_band": np.array([["des-g"] * 4, ["des-r"] * 4], "S5")},
            "image_band should name each band once, and in all rows alike; it has des-g, .* and des-r",
        ),
        (
            {"image_scale": np.array([[0.262] * 4, [0.168] * 4])},
            r"the pixel scale is 0\.168, 0\.262; one positive",
        ),
        (
            {"image_band": np.array([["des-g", "des-g", "des-r", "des-z"]] * 2, "S5")},
            "should name each band once",
        ),
        ({"image_psf_fwhm": np.ones(5)}, r"image_psf_fwhm has shape \(5,\); \(2,\) or \(2, 4\) is needed"),
        ({"image_psf_fwhm": np.array([b"a", b"b"])}, "image_psf_fwhm holds .*, numbers are needed"),
        ({"RA": np.array([b"10:00:00", b"10:00:01"])}, r"ra holds .*\[survey.multimodaluniverse\] ra = "),
        (
            {"image_array": np.ones((2, 4, 40, 40), complex)},
            "image_array holds complex128, numbers are needed",
        ),
        ({"image_scale": None}, r"there is no dataset 'image_scale'"),
        ({"image_band": None}, "there is no dataset 'image_band'"),
        ({"image_ivar": np.ones((2, 3, 40, 40))}, r"image_ivar has shape \(2, 3, 40, 40\); .* with 4 bands"),
        ({"image_mask": np.ones((2, 4, 39, 40), bool)}, r"image_mask \(2, 39, 40\).*must be the same"),
    ],
)
def test_what_cannot_be(sample, read, changes, message):
    sample(**changes)
    with pytest.raises(TileError, match=message):
        read()


def test_one_scale_and_a_name_for_each_plane(sample, read):
    sample(image_scale=np.array(0.262), image_band=np.array([b"des-g", b"des-r", b"des-i", b"des-z"]))
    assert {(tile.band, tile.image.index[1], tile.pixel_scale_arcsec) for tile in read()} == {
        ("g", 0, 0.262),
        ("z", 3, 0.262),
    }


def test_a_cell_without_objects(sample, read):
    sample(cell=17)
    nothing = {
        "image_array": (4, 40, 40),
        "image_ivar": (4, 40, 40),
        "image_mask": (40, 40),
        "image_psf_fwhm": (4,),
    }
    empty = {name: np.zeros((0, *shape), np.float32) for name, shape in nothing.items()}
    names = {
        "image_band": np.zeros((0, 4), "S5"),
        "image_scale": np.zeros((0, 4)),
        "object_id": np.zeros(0, "S4"),
    }
    sample(cell=18, **empty, **names, RA=np.zeros(0), DEC=np.zeros(0))
    assert len(read()) == 4


def test_names_that_are_no_text(sample, read):
    sample(
        image_band=np.array([[b"\xd6es-g", b"des-r", b"des-i", b"des-z"]] * 2),
        object_id=np.array([b"\xff1", b"2"]),
    )
    assert {tile.tile_id for tile in read(bands=("z",))} == {"healpix=17/\ufffd1", "healpix=17/2"}
    with pytest.raises(TileError, match="no tile matches"):
        read(bands=("g",))


def test_no_zero_point(sample, read):
    sample()
    with pytest.raises(TileError, match="zero point is unknown"):
        read(zero_point_mag=None)


def test_the_error_says_which_bands_there_are(sample, read):
    sample()
    with pytest.raises(
        TileError,
        match=r"no tile matches: .* in bands y; .*healpix=17/001-of-001.hdf5 has bands des-g, des-r",
    ):
        read(bands=("y",))
