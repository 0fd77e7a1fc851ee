"""One contract for every layout; what is particular to one follows below it."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from galbatch.errors import NotInThisVersion, TileError
from galbatch.ingest.layouts import LAYOUTS
from galbatch.types import MaskBit, njy_per_unit

RNG = np.random.default_rng(3)
PIXELS = RNG.normal(size=(2, 60, 70)).astype(np.float32)  # (band, y, x) in survey units


class LayoutContract:
    """Each subclass writes PIXELS in bands g and r, 0.168 arcsec, CRVAL (150, 2), CRPIX (35, 30)."""

    layout: str
    njy: float

    def write(self, folder, wcs, write_calexp):
        raise NotImplementedError

    @pytest.fixture
    def survey(self, tmp_path, tan, write_calexp):
        self.write(tmp_path, tan(crpix=(35, 30)), write_calexp)
        return tmp_path

    def files(self, folder):
        return sorted(path for path in folder.rglob("*.fits") if path.is_file())

    def test_one_tile_for_each_band_asked_for(self, survey, read_tiles):
        assert [t.band for t in read_tiles(survey, layout=self.layout, bands=("g", "r"))] == ["g", "r"]
        assert [t.band for t in read_tiles(survey, layout=self.layout, bands=("r",))] == ["r"]

    def test_tiles_tell_shape_scale_and_unit(self, survey, read_tiles):
        tile = read_tiles(survey, layout=self.layout)[0]
        assert tile.shape_px == (60, 70)
        assert tile.pixel_scale_arcsec == pytest.approx(0.168, rel=1e-9)
        assert tile.njy_per_unit == pytest.approx(self.njy, rel=1e-9)
        assert tile.identity is not None
        assert np.isnan(tile.psf_fwhm_arcsec)
        ra, dec = zip(*tile.corners_deg, strict=True)
        assert max(dec) - min(dec) == pytest.approx(60 * 0.168 / 3600, rel=1e-6)
        assert max(ra) - min(ra) == pytest.approx(70 * 0.168 / 3600 / np.cos(np.deg2rad(2)), rel=1e-4)

    def test_psf_width_comes_from_the_config(self, survey, read_tiles):
        tiles = read_tiles(survey, layout=self.layout, bands=("g", "r"), psf_fwhm_arcsec={"r": 0.7})
        assert tiles[1].psf_fwhm_arcsec == 0.7

    def test_pixels_come_out_in_njy_about_the_position(self, survey, read_tiles, objects, cut):
        tiles = read_tiles(survey, layout=self.layout, bands=("g", "r"))
        block = cut(objects(150.0, 2.0), tiles, size=21, bands=("g", "r"))
        # CRPIX (35, 30) is the 0-based pixel (34, 29): the center of 21 px.
        expected = PIXELS[:, 19:40, 24:45] * np.float32(self.njy)
        np.testing.assert_allclose(block.image[0], expected, rtol=2e-7)
        assert block.tile[0] == tiles[0].tile_id

    def test_weights_come_out_as_variance(self, survey, read_tiles, objects, cut):
        block = cut(objects(150.0, 2.0), read_tiles(survey, layout=self.layout), size=21)
        np.testing.assert_allclose(block.variance[0], 0.25 * self.njy**2, rtol=1e-6)

    def test_truncated_file_is_named_with_both_sizes(self, survey, read_tiles):
        for path in self.files(survey):
            with fits.open(path) as hdus:
                image = next(n for n, hdu in enumerate(hdus) if getattr(hdu, "shape", None) == (60, 70))
                offset = hdus[image].fileinfo()["datLoc"]
            with open(path, "r+b") as file:
                file.truncate(offset + 40 * 70 * 4)
        with pytest.raises(TileError, match=r"image is 40 x 70 px, its header says 60 x 70; .*truncated"):
            read_tiles(survey, layout=self.layout)

    def test_file_cut_in_its_last_plane(self, survey, read_tiles):
        path = self.files(survey)[-1]
        with fits.open(path) as hdus:
            last = max(n for n, hdu in enumerate(hdus) if getattr(hdu, "shape", None) == (60, 70))
            offset = hdus[last].fileinfo()["datLoc"]
        with open(path, "r+b") as file:
            file.truncate(offset + 4 * 70 * 10)
        with pytest.raises(TileError, match="is 10 x 70 px, its header says 60 x 70"):
            read_tiles(survey, layout=self.layout, bands=("g", "r"))

    def test_garbage_is_a_tile_error(self, survey, read_tiles):
        self.files(survey)[0].write_bytes(b"<html>503 Service Unavailable</html>")
        with pytest.raises(TileError, match="no FITS file"):
            read_tiles(survey, layout=self.layout, bands=("g", "r"))

    def test_no_wcs(self, tmp_path, read_tiles, write_calexp):
        self.write(tmp_path, fits.Header(), write_calexp)
        with pytest.raises(TileError, match="no celestial WCS"):
            read_tiles(tmp_path, layout=self.layout)

    @pytest.mark.parametrize(
        ("cards", "message"),
        [
            ({"CTYPE1": "RA---SIN"}, "the WCS cannot be used"),
            ({"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"}, "no celestial WCS"),
            ({"CD1_1": 0.0, "CD2_2": 0.0, "CD1_2": 0.0, "CD2_1": 0.0}, "WCS"),
            ({"CPDIS1": "LOOKUP"}, "distortion tables"),
        ],
    )
    def test_a_wcs_that_cannot_be_used(self, tmp_path, tan, read_tiles, write_calexp, cards, message):
        wcs = tan(crpix=(35, 30))
        wcs.update(cards)
        self.write(tmp_path, wcs, write_calexp)
        with pytest.raises(TileError, match=message):
            read_tiles(tmp_path, layout=self.layout)

    def test_nothing_matches(self, tmp_path, read_tiles):
        with pytest.raises(TileError, match="no tile matches: 0 FITS files"):
            read_tiles(tmp_path / "empty", layout=self.layout)

    def test_a_band_without_tiles(self, survey, read_tiles):
        with pytest.raises(TileError, match="no tile in band z; there are tiles in g"):
            read_tiles(survey, layout=self.layout, bands=("g", "z"))


class TestHsc(LayoutContract):
    layout = "hsc"
    njy = njy_per_unit(27.0)

    def write(self, folder, wcs, write_calexp):
        for band, image in zip("GR", PIXELS, strict=True):
            write_calexp(folder, band=band, image=image, variance=np.full_like(image, 0.25), wcs=wcs)

    def test_zero_point_27_is_57_544_njy(self, survey, read_tiles):
        assert read_tiles(survey)[0].njy_per_unit == pytest.approx(57.54399, rel=1e-6)

    @pytest.mark.parametrize("fluxmag0", [None, 0.0])
    def test_missing_zero_point_is_asked_for(self, tmp_path, tan, write_calexp, read_tiles, fluxmag0):
        write_calexp(tmp_path, image=PIXELS[0], wcs=tan(crpix=(1, 1)), fluxmag0=fluxmag0)
        with pytest.raises(TileError, match=r"tile 9813/4,4 band g .*FLUXMAG0.*add FLUXMAG0"):
            read_tiles(tmp_path)

    def test_tile_id_is_tract_and_patch(self, survey, read_tiles):
        assert read_tiles(survey)[0].tile_id == "9813/4,4"

    def test_replaced_filters_keep_the_band(self, tmp_path, tan, write_calexp, read_tiles):
        write_calexp(tmp_path, band="R2", image=PIXELS[0], wcs=tan(crpix=(1, 1)))
        assert read_tiles(tmp_path, bands=("r",))[0].band == "r"

    def test_two_files_of_one_tile_are_refused(self, tmp_path, tan, write_calexp, read_tiles):
        for release in ("pdr2", "pdr3"):
            write_calexp(tmp_path / release, image=PIXELS[0], wcs=tan(crpix=(1, 1)))
        with pytest.raises(TileError, match=r"tile 9813/4,4 band g is there 2 times"):
            read_tiles(tmp_path)

    def test_lattice_comes_from_the_wcs_not_from_the_name(self, tmp_path, tan, write_calexp, read_tiles):
        write_calexp(tmp_path, patch="4,4", image=PIXELS[0], wcs=tan(crpix=(35, 30)))
        write_calexp(tmp_path, patch="4,5", image=PIXELS[0], wcs=tan(crpix=(35, -10)))
        write_calexp(tmp_path, patch="4,6", image=PIXELS[0], wcs=tan(crpix=(35, -50), crval=(150.1, 2.0)))
        first, second, other = read_tiles(tmp_path)
        assert first.grid_key == second.grid_key
        assert first.grid_key != other.grid_key

    def test_mask_bits_are_decoded_by_name(self, tmp_path, tan, write_calexp, read_tiles, objects, cut):
        mask = np.zeros((60, 70), np.int32)
        mask[29, 34], mask[29, 35], mask[28, 34] = 1 << 5 | 1 << 1, 1 << 9, 1 << 3
        write_calexp(tmp_path, image=PIXELS[0], mask=mask, wcs=tan(crpix=(35, 30)))
        found = cut(objects(150.0, 2.0), read_tiles(tmp_path), size=21).mask[0, 0]
        assert found[10, 10] == MaskBit.DETECTED | MaskBit.SAT
        assert found[10, 11] == MaskBit.BRIGHT_OBJECT
        assert found[9, 10] == MaskBit.CR
        assert np.count_nonzero(found) == 3

    def test_file_cut_before_its_variance(self, survey, read_tiles):
        path = self.files(survey)[0]
        with fits.open(path) as hdus:
            start = hdus[3].fileinfo()["hdrLoc"]
        with open(path, "r+b") as file:
            file.truncate(start)
        with pytest.raises(TileError, match=r"3 HDUs; .*probably\s+truncated"):
            read_tiles(survey)


class TestLegacySurvey(LayoutContract):
    layout = "legacysurvey"
    njy = njy_per_unit(22.5)

    def write(self, folder, wcs, write_calexp):
        hdus = [fits.PrimaryHDU()]
        for band, image in zip("gr", PIXELS, strict=True):
            for kind, plane in (("image", image), ("invvar", np.full_like(image, 4.0))):
                hdus.append(fits.ImageHDU(plane, header=wcs))
                hdus[-1].header["BAND"], hdus[-1].header["IMAGETYP"] = band, kind
                hdus[-1].header["BRICK"] = "1500p020"
        fits.HDUList(hdus).writeto(folder / "cutout_150_2.fits")

    def test_tile_id_has_brick_and_file(self, survey, read_tiles):
        assert read_tiles(survey, layout="legacysurvey")[0].tile_id == "1500p020/cutout_150_2"

    def test_no_weight_is_no_pixel(self, survey, read_tiles, objects, cut):
        with fits.open(survey / "cutout_150_2.fits", mode="update") as hdus:
            hdus[2].data[29, 30:34] = 0.0
        block = cut(objects(150.0, 2.0), read_tiles(survey, layout="legacysurvey"), size=21)
        missing = np.isnan(block.image[0, 0])
        assert np.argwhere(missing).tolist() == [[10, 6], [10, 7], [10, 8], [10, 9]]
        assert np.isnan(block.variance[0, 0][missing]).all()


class TestStamps(LayoutContract):
    layout = "stamps"
    njy = njy_per_unit(30.0)

    def write(self, folder, wcs, write_calexp):
        for band, image in zip("gr", PIXELS, strict=True):
            hdus = [
                fits.PrimaryHDU(image, header=wcs),
                fits.ImageHDU(np.full_like(image, 4.0), name="WGT"),
            ]
            hdus[0].header["BAND"], hdus[0].header["MAGZERO"] = band, 30.0
            fits.HDUList(hdus).writeto(folder / f"galaxy_{band}.fits")

    def test_unknown_zero_point(self, survey, read_tiles):
        for path in self.files(survey):
            fits.delval(path, "MAGZERO")
        with pytest.raises(TileError, match=r"galaxy_g band g .*zero point is unknown"):
            read_tiles(survey, layout="stamps")

    @pytest.mark.parametrize(("unit", "njy"), [("nJy", 1.0), ("nanomaggy", 3630.7805), ("uJy", 1000.0)])
    def test_calibrated_units_need_no_zero_point(self, survey, read_tiles, unit, njy):
        for path in self.files(survey):
            fits.delval(path, "MAGZERO")
            fits.setval(path, "BUNIT", value=unit)
        assert read_tiles(survey, layout="stamps")[0].njy_per_unit == pytest.approx(njy, rel=1e-7)

    def test_band_from_the_file_name(self, tmp_path, tan, read_tiles):
        image = fits.ImageHDU(PIXELS[0], header=tan(crpix=(1, 1)))
        primary = fits.PrimaryHDU()
        primary.header["FLUXMAG0"] = 6.3e10
        fits.HDUList([primary, image]).writeto(tmp_path / "4-cutout-HSC-I-8279-pdr2_wide.fits")
        assert [tile.band for tile in read_tiles(tmp_path, layout="stamps", bands=("i",))] == ["i"]

    def test_band_unknown(self, tmp_path, tan, read_tiles):
        fits.PrimaryHDU(PIXELS[0], header=tan(crpix=(1, 1))).writeto(tmp_path / "nameless.fits")
        with pytest.raises(TileError, match="the band is unknown"):
            read_tiles(tmp_path, layout="stamps")


def test_every_layout_is_under_contract():
    assert {contract.layout for contract in LayoutContract.__subclasses__()} == set(LAYOUTS)


@pytest.mark.parametrize("layout", ["lsst", "generic", "galaxiesml"])
def test_layouts_to_come_say_so(read_tiles, layout):
    with pytest.raises(NotInThisVersion, match=f"{layout}.*not in this version; there are hsc, legacysurvey"):
        read_tiles("nowhere", layout=layout)
