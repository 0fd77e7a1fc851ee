"""Legacy Surveys: the viewer's cutouts, and bricks."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from galbatch.core.flags import MaskBit
from galbatch.core.types import njy_per_unit
from galbatch.errors import TileError
from galbatch.ingest.layouts import legacysurvey
from tests.unit.ingest.layouts.contract import PIXELS, LayoutContract, image_hdu


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

    test_missing_zero_point_is_asked_for = None  # nanomaggies are the layout's unit

    def test_release_by_the_header(self, survey, read):
        assert (read(survey)[0].release, read(survey)[0].background) == ("", "spline sky")
        for path in self.files(survey):
            fits.setval(path, "VERSION", value="DR9-south")
        assert read(survey)[0].release == "dr9"

    def test_tile_id_has_brick_and_file(self, survey, read_tiles):
        assert read_tiles(survey, layout="legacysurvey")[0].tile_id == "1500p020/cutout_150_2"

    def test_no_weight_is_no_pixel(self, survey, read_tiles, objects, cut):
        with fits.open(survey / "cutout_150_2.fits", mode="update") as hdus:
            hdus[2].data[29, 30:34] = 0.0
        block = cut(objects(150.0, 2.0), read_tiles(survey, layout="legacysurvey"), size=21)
        missing = np.isnan(block.image[0, 0])
        assert np.argwhere(missing).tolist() == [[10, 6], [10, 7], [10, 8], [10, 9]]
        assert np.isnan(block.variance[0, 0][missing]).all()


class TestBricks(LayoutContract):
    layout = "legacysurvey"
    njy = njy_per_unit(22.5)

    def write(self, folder, wcs, write_calexp):
        place = folder / "dr9/south/coadd/150/1500p020"
        place.mkdir(parents=True)
        maskbits = np.ones((60, 70), np.int16)  # NPRIMARY everywhere
        maskbits[29, 34:38] = [1 << 2, 1 << 3, 1 << 5, 1 << 1]  # SATUR_G, SATUR_R, ALLMASK_G, BRIGHT
        planes = {"maskbits": maskbits, "psfsize-g": np.full((60, 70), 1.3, np.float32)}
        for band, image in zip("gr", PIXELS, strict=True):
            planes |= {f"image-{band}": image, f"invvar-{band}": np.full_like(image, 4.0)}
            planes[f"model-{band}"] = np.zeros_like(image)
        for kind, plane in planes.items():
            hdus = [fits.PrimaryHDU(), image_hdu(plane, wcs)]
            fits.HDUList(hdus).writeto(place / f"legacysurvey-1500p020-{kind}.fits")

    test_missing_zero_point_is_asked_for = None  # nanomaggies are the layout's unit

    def test_exposures_say_where_there_are_data_without_weights(self, survey, tan, read, objects, cut):
        invvar = self.sibling(survey, "invvar-g")
        exposures = np.full((60, 70), 3, np.int16)
        exposures[29, 30:34] = 0
        hdus = [fits.PrimaryHDU(), image_hdu(exposures, tan(crpix=(35, 30)))]
        fits.HDUList(hdus).writeto(invvar.with_name("legacysurvey-1500p020-nexp-g.fits"))
        assert read(survey)[0].weight_kind == "inverse_variance"
        invvar.unlink()
        block = cut(objects(150.0, 2.0), read(survey), size=21)
        assert np.argwhere(np.isnan(block.image[0, 0])).tolist() == [[10, 6], [10, 7], [10, 8], [10, 9]]
        assert np.isnan(block.variance).all()

    def sibling(self, survey, kind):
        return next(survey.rglob(f"legacysurvey-1500p020-{kind}.fits"))

    def test_another_file_is_another_identity(self, survey, read):
        for kind in ("model-g", "model-r"):
            self.sibling(survey, kind).unlink()
        super().test_another_file_is_another_identity(survey, read)

    def test_names_and_release_by_the_path(self, survey, read):
        tile = read(survey)[0]
        assert (tile.tile_id, tile.release, tile.background) == ("1500p020", "dr9", "spline sky")

    @pytest.mark.parametrize(
        ("path", "cards", "release"),
        [
            ("/x/dr10/south/a.fits", {}, "dr10"),
            ("/x/a.fits", {"DRVERSIO": "9012"}, "dr9"),
            ("/x/a.fits", {"DRVERSIO": "10000"}, "dr10"),
            ("/x/a.fits", {"VERSION": "DR9-south"}, "dr9"),
            ("/x/adr9.fits", {}, ""),
        ],
    )
    def test_release(self, path, cards, release):
        assert legacysurvey.release_in(path, cards) == release

    def test_of_maskbits_the_band_s_own_count(self, survey, read, objects, cut):
        found = self.cut_both(read(survey, bands=("g", "r")), objects, cut).mask[0]
        g = [MaskBit.SAT, 0, MaskBit.BAD, MaskBit.BRIGHT_OBJECT]
        assert found[0, 10, 10:14].tolist() == g
        assert found[1, 10, 10:14].tolist() == [0, MaskBit.SAT, 0, MaskBit.BRIGHT_OBJECT]
        assert np.count_nonzero(found[0]) == 3

    def test_psfsize_is_the_psf_map(self, survey, read):
        g, r = read(survey, bands=("g", "r"))
        assert g.psf.path == str(self.sibling(survey, "psfsize-g"))
        assert r.psf is None

    def test_siblings_may_be_missing(self, survey, read):
        for kind in ("maskbits", "psfsize-g", "invvar-g"):
            self.sibling(survey, kind).unlink()
        tile = read(survey)[0]
        assert (tile.mask, tile.psf, tile.weight) == (None, None, None)

    @pytest.mark.parametrize("kind", ["maskbits", "psfsize-g", "invvar-g"])
    def test_siblings_that_cannot_be_read_are_an_error(self, survey, read, kind):
        self.sibling(survey, kind).write_bytes(b"<html>")
        with pytest.raises(TileError, match=f"{kind}.* is no FITS file"):
            read(survey)

    def test_a_sibling_of_another_shape(self, survey, read):
        path = self.sibling(survey, "invvar-g")
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((60, 69), np.float32))]).writeto(
            path, overwrite=True
        )
        with pytest.raises(TileError, match=r"weight is \(60, 69\) px, the image \(60, 70\)"):
            read(survey)

    def test_siblings_packed_in_another_way(self, survey, read):
        path = self.sibling(survey, "invvar-g")
        path.rename(path.with_suffix(".fits.fz"))
        assert read(survey)[0].weight.path.endswith("invvar-g.fits.fz")


class TestViewerCubes:
    """Cutouts as the viewer's fits-cutout serves them: one cube, its bands in BANDS; with &invvar and &maskbits two HDUs more."""

    def write(self, folder, tan, *, bands="grz", imagetyp=True, invvar=True, names=None):
        header = tan(crpix=(35, 30))
        header["SURVEY"], header["VERSION"], header["BANDS"] = "LegacySurvey", "DR10-south", bands
        for number, band in enumerate(names or []):
            header[f"BAND{number}"] = band
        cube = np.stack([PIXELS[0], PIXELS[1], PIXELS[0] + PIXELS[1]])
        if imagetyp:
            header["IMAGETYP"] = "IMAGE"
        hdus = [fits.PrimaryHDU(cube, header=header)]
        if invvar:
            header["IMAGETYP"] = "INVVAR"
            hdus.append(fits.ImageHDU(np.full(cube.shape, 4.0, np.float32), header=header))
            header["IMAGETYP"] = "MASKBITS"
            bits = np.zeros(PIXELS[0].shape, np.int16)
            bits[29, 34] = 1 << 3
            hdus.append(fits.ImageHDU(bits, header=header))
        fits.HDUList(hdus).writeto(folder / "cutout_150.0000_2.0000.fits", overwrite=True)

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"names": list("grz")},
            {"bands": "g,r,z"},
            {"names": list("grz"), "imagetyp": False, "invvar": False},
        ],
    )
    def test_bands_of_the_cube(self, tmp_path, tan, read_tiles, objects, cut, options):
        self.write(tmp_path, tan, **options)
        tiles = read_tiles(tmp_path, layout="legacysurvey", bands=("r", "z", "g"))
        assert {tile.band: tile.image.index for tile in tiles} == {"g": (0,), "r": (1,), "z": (2,)}
        assert {tile.release for tile in tiles} == {"dr10"}
        block = cut(objects(150.0, 2.0), tiles, size=21, bands=("r", "z"))
        right = np.stack([PIXELS[1], PIXELS[0] + PIXELS[1]])[:, 19:40, 24:45] * njy_per_unit(22.5)
        np.testing.assert_allclose(block.image[0], right, rtol=1e-6)
        if options.get("invvar", True):
            np.testing.assert_allclose(block.variance[0], 0.25 * njy_per_unit(22.5) ** 2, rtol=1e-6)
            # SATUR_R, of the band r alone.
            assert (block.mask[0, 0, 10, 10], np.count_nonzero(block.mask)) == (MaskBit.SAT, 1)

    def test_one_band(self, tmp_path, tan, read_tiles):
        header = tan(crpix=(35, 30))
        header["BANDS"], header["BAND0"] = "r", "r"
        fits.PrimaryHDU(PIXELS[0], header=header).writeto(tmp_path / "cutout.fits")
        (tile,) = read_tiles(tmp_path, layout="legacysurvey", bands=("r",))
        assert (tile.band, tile.image.index) == ("r", ())

    def test_psfs_are_no_cutouts(self, tmp_path, tan, read_tiles):
        self.write(tmp_path, tan)
        psf = fits.PrimaryHDU(np.ones((63, 63), np.float32))
        psf.header["BANDS"], psf.header["BAND"] = "grz", "g"
        psf.writeto(tmp_path / "copsf_150.0000_2.0000.fits")
        assert len(read_tiles(tmp_path, layout="legacysurvey")) == 1
