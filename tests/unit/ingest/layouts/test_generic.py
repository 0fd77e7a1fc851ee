"""FITS images as [survey.generic] describes them."""

from __future__ import annotations

import bz2
import gzip
from typing import Any, ClassVar

import numpy as np
import pytest
from astropy.io import fits

from galbatch.core.flags import MaskBit
from galbatch.core.types import njy_per_unit
from galbatch.errors import ConfigError, TileError
from tests.unit.ingest.layouts.contract import PIXELS, LayoutContract, image_hdu


class TestGeneric(LayoutContract):
    layout = "generic"
    njy = njy_per_unit(30.0)
    options: ClassVar[dict[str, Any]] = {
        "generic": {
            "pattern": r"(?P<tile>field\d+)_(?P<band>[a-z])\.fits",
            "weight": "ERR",
            "weight_kind": "standard_deviation",
            "zero_point_card": "ZP",
        }
    }

    # Names must fit `pattern`.
    suffixes: ClassVar[dict[str, Any]] = {
        ".fits.fz": bytes,
        ".fits.bz2": gzip.compress,
        ".fits.gz": bz2.compress,
    }

    def write(self, folder, wcs, write_calexp):
        for band, image in zip("gr", PIXELS, strict=True):
            hdus = [fits.PrimaryHDU(image, header=wcs), image_hdu(np.full_like(image, 0.5), name="ERR")]
            hdus[0].header["ZP"] = 30.0
            fits.HDUList(hdus).writeto(folder / f"field1_{band}.fits")

    def forget_zero_point(self, folder):
        for path in self.files(folder):
            with fits.open(path, mode="update") as hdus:
                for hdu in hdus:
                    hdu.header.remove("ZP", ignore_missing=True)
        return {}

    def options_with(self, **generic):
        return {"generic": self.options["generic"] | generic}

    def test_a_zero_point_that_contradicts_the_file_is_refused(self, survey, read):
        # Here the config describes the files: it goes before their cards.
        assert read(survey, zero_point_mag=27.0)[0].njy_per_unit == pytest.approx(57.54399, rel=1e-6)

    def test_unit(self, survey, read):
        assert read(survey, **self.options_with(unit="uJy"))[0].njy_per_unit == 1e3
        with pytest.raises(ConfigError, match="unit = 'electrons' is none"):
            read(survey, **self.options_with(unit="electrons"))

    def test_tile_id_by_the_pattern_or_the_file_name(self, survey, read):
        assert read(survey)[0].tile_id == "field1"
        plain = self.options_with(pattern=r"_(?P<band>.)\.fits")
        assert read(survey, **plain)[0].tile_id == "field1_g"

    def test_a_pattern_that_no_name_fits(self, survey, read):
        with pytest.raises(
            TileError, match=r"no tile matches: .*field1_g\.fits does not fit \[survey\.generic\] pattern"
        ):
            read(survey, **self.options_with(pattern=r"tile_(?P<band>.)\.fits"))

    def test_a_pattern_that_is_none(self, survey, read):
        with pytest.raises(ConfigError, match="no regular expression"):
            read(survey, **self.options_with(pattern="(?P<band"))

    def test_psf_width_by_a_card(self, survey, read):
        for path in self.files(survey):
            fits.setval(path, "SEEING", value=0.81)
        assert read(survey, psf_fwhm_card="SEEING")[0].psf_fwhm_arcsec == 0.81
        assert read(survey, psf_fwhm_card="SEEING", psf_fwhm_arcsec={"g": 0.6})[0].psf_fwhm_arcsec == 0.6

    def test_bands_as_hdus(self, tmp_path, tan, read, objects, cut):
        wcs = tan(crpix=(35, 30))
        hdus = [fits.PrimaryHDU()]
        for band, image in zip("gr", PIXELS, strict=True):
            hdus += [image_hdu(image, wcs, f"SCI_{band}"), image_hdu(np.full_like(image, 0.25), wcs)]
        fits.HDUList(hdus).writeto(tmp_path / "field.fits")
        generic = {"image": {"g": "SCI_G", "r": 3}, "weight": {"g": 2, "r": 4}}
        tiles = read(tmp_path, bands=("g", "r"), generic=generic, zero_point_mag=30.0)
        assert [tile.image.hdu for tile in tiles] == [1, 3]
        self.assert_pixels(self.cut_both(tiles, objects, cut))

    @pytest.mark.parametrize("packed", [False, True])
    def test_bands_on_an_axis(self, tmp_path, tan, read, objects, cut, packed):
        cube = fits.ImageHDU(PIXELS[::-1], header=tan(crpix=(35, 30)))
        if packed:
            cube = fits.CompImageHDU(cube.data, cube.header, compression_type="GZIP_2", quantize_level=0.0)
        weight = fits.ImageHDU(np.full_like(PIXELS, 0.25))
        fits.HDUList([fits.PrimaryHDU(), cube, weight]).writeto(tmp_path / "cube.fits")
        generic = {"axis": {"g": 1, "r": 0}, "weight": 2}
        tiles = read(tmp_path, bands=("g", "r"), generic=generic, zero_point_mag=30.0)
        assert [tile.image.index for tile in tiles] == [(1,), (0,)]
        self.assert_pixels(self.cut_both(tiles, objects, cut))
        with pytest.raises(TileError, match=r"shape \(2, 60, 70\).* at index 2 "):
            read(tmp_path, generic={"axis": {"g": 2}}, zero_point_mag=30.0)
        with pytest.raises(TileError, match=r"shape \(2, 60, 70\); an image"):
            read(tmp_path, generic={}, zero_point_mag=30.0)

    def test_one_plane_is_not_several_bands(self, tmp_path, tan, read):
        fits.PrimaryHDU(PIXELS[0], header=tan(crpix=(35, 30))).writeto(tmp_path / "flat.fits")
        assert read(tmp_path, generic={"axis": {"g": 0}}, zero_point_mag=30.0)[0].image.index == ()
        with pytest.raises(
            TileError, match=r"band r .*the image is no cube, so nothing is at index 1; correct"
        ):
            read(tmp_path, bands=("g", "r"), generic={"axis": {"g": 0, "r": 1}}, zero_point_mag=30.0)

    @pytest.mark.parametrize(
        "places",
        [
            {"mask": 1, "weight": 2},
            {"image": 0, "mask": 1, "weight": 2},
            {"image": 1, "mask": 0, "weight": 2},
            {"image": 2, "mask": 1, "weight": 0},
        ],
    )
    def test_numbers_of_hdus_hold_after_fpack(self, tmp_path, tan, read, objects, cut, places):
        """fpack puts an image of the primary HDU behind an empty one."""
        wcs = tan(crpix=(35, 30))
        mask = np.zeros((60, 70), np.int16)
        mask[29, 34] = 2
        planes = {"image": PIXELS[0], "mask": mask, "weight": np.full_like(PIXELS[0], 0.25)}
        order = sorted(planes, key=lambda role: places.get(role, 0))
        first, *others = (planes[role] for role in order)
        plain = fits.HDUList([fits.PrimaryHDU(first, wcs), *(fits.ImageHDU(plane, wcs) for plane in others)])
        packed = [
            fits.CompImageHDU(planes[role], wcs, compression_type="GZIP_2", quantize_level=0.0)
            for role in order
        ]
        plain.writeto(tmp_path / "a_g.fits")
        fits.HDUList([fits.PrimaryHDU(), *packed]).writeto(tmp_path / "b_g.fits.fz")
        generic = places | {"mask_planes": {"SAT": 1}}
        for name in ("a_g.fits", "b_g.fits.fz"):
            tiles = read(tmp_path / name, generic=generic, zero_point_mag=30.0)
            block = cut(objects(150.0, 2.0), tiles, size=21)
            np.testing.assert_allclose(block.image[0, 0], PIXELS[0][19:40, 24:45] * self.njy, rtol=1e-6)
            np.testing.assert_allclose(block.variance, 0.25 * self.njy**2, rtol=1e-6)
            assert np.argwhere(block.mask[0, 0]).tolist() == [[10, 10]]

    def test_a_mask_file_whose_hdu_0_was_packed(self, tmp_path, tan, read, objects, cut):
        mask = np.zeros((60, 70), np.int16)
        mask[29, 34] = 2
        fits.PrimaryHDU(PIXELS[0], header=tan(crpix=(35, 30))).writeto(tmp_path / "a_g_sci.fits")
        packed = fits.CompImageHDU(mask, compression_type="RICE_1")
        fits.HDUList([fits.PrimaryHDU(), packed]).writeto(tmp_path / "a_g_dq.fits")
        generic = {"mask": 0, "mask_replace": ("_sci", "_dq"), "mask_planes": {"SAT": 1}}
        tiles = read(tmp_path / "a_g_sci.fits", generic=generic, zero_point_mag=30.0)
        assert np.argwhere(cut(objects(150.0, 2.0), tiles, size=21).mask[0, 0]).tolist() == [[10, 10]]

    def test_mask_and_weight_in_files_beside(self, tmp_path, tan, read, objects, cut):
        mask = np.zeros((60, 70), np.uint8)
        mask[29, 34], mask[28, 34] = 2, 4
        for kind, plane in (("sci", PIXELS[0]), ("wht", np.full_like(PIXELS[0], 4.0)), ("dq", mask)):
            fits.PrimaryHDU(plane, header=tan(crpix=(35, 30))).writeto(tmp_path / f"a_g_{kind}.fits")
        generic = {
            "pattern": r"_(?P<band>[a-z])_(sci|wht|dq)\.fits",
            "mask_replace": ("_sci", "_dq"),
            "weight_replace": ("_sci", "_wht"),
            "weight_kind": "inverse_variance",
        }
        named = generic | {"mask_planes": {"SAT": 1, "INTRP": 2}}
        (tile,) = read(tmp_path, generic=named, zero_point_mag=30.0)
        block = cut(objects(150.0, 2.0), [tile], size=21)
        assert (block.mask[0, 0, 10, 10], block.mask[0, 0, 9, 10]) == (MaskBit.SAT, MaskBit.INTRP)
        np.testing.assert_allclose(block.variance, 0.25 * self.njy**2, rtol=1e-6)
        (tile,) = read(tmp_path, generic=generic | {"mask_planes": "nonzero"}, zero_point_mag=30.0)
        block = cut(objects(150.0, 2.0), [tile], size=21)
        assert (block.mask[0, 0, 10, 10], block.mask[0, 0, 9, 10]) == (MaskBit.BAD, MaskBit.BAD)
        assert np.count_nonzero(block.mask) == 2
        with pytest.raises(TileError, match="mask has no cards MP_"):
            read(tmp_path, generic=generic, zero_point_mag=30.0)
        with pytest.raises(ConfigError, match="HOT is no mask"):
            read(tmp_path, generic=generic | {"mask_planes": {"HOT": 1}}, zero_point_mag=30.0)
        (tmp_path / "a_g_dq.fits").unlink()
        with pytest.raises(TileError, match=r"there is no mask file .*a_g_dq\.fits"):
            read(tmp_path, generic=named, zero_point_mag=30.0)

    def test_an_hdu_that_is_not_there(self, survey, read):
        with pytest.raises(
            TileError, match="variance: there is no HDU WHT, 2 HDUs are there: 0 PRIMARY, 1 ERR"
        ):
            read(survey, **self.options_with(weight="WHT", weight_kind="variance"))

    def test_band_by_the_card(self, survey, read):
        for path, name in zip(self.files(survey), ("g DECam SDSS c0001 4720.0", "r"), strict=True):
            fits.setval(path, "FILTER", value=name)
        assert [t.band for t in read(survey, bands=("g", "r"), generic={}, zero_point_mag=30.0)] == ["g", "r"]

    def test_the_only_band_there_is(self, survey, read):
        self.files(survey)[1].unlink()
        assert read(survey, bands=("i",), generic={}, zero_point_mag=30.0)[0].band == "i"

    def test_band_unknown(self, survey, read):
        for path in self.files(survey):
            path.rename(path.with_name(f"{path.stem}_sci.fits"))
        with pytest.raises(TileError, match=r"band is unknown: no card BAND or FILTER, .* none of g, r"):
            read(survey, bands=("g", "r"), generic={}, zero_point_mag=30.0)

    def test_band_by_the_name(self, survey, read):
        assert [t.band for t in read(survey, bands=("R", "G"), generic={}, zero_point_mag=30.0)] == ["G", "R"]
