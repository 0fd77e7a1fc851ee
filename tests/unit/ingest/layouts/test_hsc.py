"""HSC's coadds, and the PhotoCalib of newer pipelines."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from galbatch.core.flags import MaskBit
from galbatch.core.types import njy_per_unit
from galbatch.errors import TileError
from tests.unit.ingest.layouts.contract import PIXELS, LayoutContract


class TestHsc(LayoutContract):
    layout = "hsc"
    njy = njy_per_unit(27.0)

    def write(self, folder, wcs, write_calexp):
        for band, image in zip("GR", PIXELS, strict=True):
            write_calexp(folder, band=band, image=image, variance=np.full_like(image, 0.25), wcs=wcs)

    def test_zero_point_27_is_57_544_njy(self, survey, read_tiles):
        assert read_tiles(survey)[0].njy_per_unit == pytest.approx(57.54399, rel=1e-6)

    def forget_zero_point(self, folder):
        for path in self.files(folder):
            fits.delval(path, "FLUXMAG0")
        return {}

    @pytest.mark.parametrize("fluxmag0", [None, 0.0])
    def test_fluxmag0_is_asked_for(self, tmp_path, tan, write_calexp, read_tiles, fluxmag0):
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

    @pytest.mark.parametrize(
        ("folder", "release", "background"),
        [("pdr2_wide", "pdr2", "global sky"), ("pdr3_dud", "pdr3", "local sky"), ("s21a_wide", "", "")],
    )
    def test_release_and_background_by_the_path(
        self, tmp_path, tan, write_calexp, read_tiles, folder, release, background
    ):
        write_calexp(tmp_path / folder, image=PIXELS[0], wcs=tan(crpix=(1, 1)))
        (tile,) = read_tiles(tmp_path)
        assert (tile.release, tile.background) == (release, background)
        assert read_tiles(tmp_path, release="pdr3")[0].background == "local sky"

    def test_planes_are_told_by_their_names(self, survey, read_tiles, objects, cut):
        path = self.files(survey)[0]
        with fits.open(path) as hdus:
            for number, name in ((1, "IMAGE"), (2, "MASK"), (3, "VARIANCE")):
                hdus[number].header["EXTTYPE"] = name
            fits.HDUList([h.copy() for h in (hdus[0], hdus[4], hdus[3], hdus[2], hdus[1])]).writeto(
                path, overwrite=True
            )
        (tile,) = read_tiles(survey)
        assert (tile.image.hdu, tile.mask.hdu, tile.weight.hdu) == (4, 3, 2)
        block = cut(objects(150.0, 2.0), [tile], size=21)
        np.testing.assert_allclose(
            block.image[0, 0], PIXELS[0, 19:40, 24:45] * np.float32(self.njy), rtol=2e-7
        )

    def test_tract_and_patch_in_the_header(self, tmp_path, tan, write_calexp, read_tiles):
        path = write_calexp(tmp_path, image=PIXELS[0], wcs=tan(crpix=(35, 30)))
        renamed = path.rename(tmp_path / "my-calexp.fits")
        with pytest.raises(TileError, match="no tile matches"):
            read_tiles(renamed)
        with fits.open(renamed, mode="update") as hdus:
            hdus[0].header.update({"TRACT": 9813, "PATCH": "4,4", "FILTER": "HSC-G"})
        (tile,) = read_tiles(renamed)
        assert (tile.tile_id, tile.band) == ("9813/4,4", "g")


def photocalib_archive(mean, *, version=1, constant=True):
    """Index and table of an afw archive with one PhotoCalib of id 7, behind three HDUs of something else."""
    index = np.array(
        [(1, 1, 0, 0, 1, "TanWcs", "lsst.afw.image"), (7, 2, 0, 1, 1, "PhotoCalib", "lsst.afw.image")],
        dtype=[
            *((name, "i4") for name in ("id", "cat.archive", "cat.persistable", "row0", "nrows")),
            *((name, "S64") for name in ("name", "module")),
        ],
    )
    other = fits.BinTableHDU(np.zeros(1, dtype=[("crval", "2f8")]))
    columns = [
        fits.Column("flags", "1X", array=np.array([[not constant], [constant]])),
        fits.Column("calibrationMean", "D", array=[99.0, mean]),
        fits.Column("calibrationErr", "D", array=[0.0, 0.0]),
        fits.Column("field", "J", array=[0, 0]),
        fits.Column("version", "J", array=[1, version]),
    ]
    return [fits.BinTableHDU(index), other, fits.BinTableHDU.from_columns(columns)]


class TestPhotoCalib:
    """Calexps without FLUXMAG0, as newer pipelines write them."""

    @pytest.fixture
    def write(self, tmp_path, tan, write_calexp):
        def run(**archive):
            path = write_calexp(tmp_path, image=PIXELS[0], wcs=tan(crpix=(1, 1)), fluxmag0=None)
            with fits.open(path) as hdus:
                planes = [hdu.copy() for hdu in hdus[:4]]
            planes[0].header.update({"AR_HDU": 5, "HIERARCH ARCHIVE_ID_PHOTOCALIB": 7})
            fits.HDUList(planes + photocalib_archive(**archive)).writeto(path, overwrite=True)
            return path

        return run

    def test_its_mean_is_njy_per_unit(self, write, read_tiles):
        assert read_tiles(write(mean=57.5439937))[0].njy_per_unit == 57.5439937

    def test_a_bunit_beside_it_agrees_or_is_refused(self, write, read_tiles):
        path = write(mean=1.0)
        fits.setval(path, "BUNIT", value="nJy", ext=1)
        assert read_tiles(path)[0].njy_per_unit == 1.0
        path.unlink()
        path = write(mean=57.0)
        fits.setval(path, "BUNIT", value="nJy", ext=1)
        with pytest.raises(TileError, match=r"BUNIT = nJy.*PhotoCalib 57 nJy.*zero_point_mag"):
            read_tiles(path)

    @pytest.mark.parametrize(
        ("archive", "message"),
        [
            ({"mean": 57.0, "version": 0}, "version 0"),
            ({"mean": -1.0}, "calibrationMean -1"),
            ({"mean": 57.0, "constant": False}, "varies over the image"),
        ],
    )
    def test_what_cannot_be_used(self, write, read_tiles, archive, message):
        with pytest.raises(TileError, match=message):
            read_tiles(write(**archive))

    def test_an_archive_cut_off(self, write, read_tiles):
        path = write(mean=57.0)
        fits.setval(path, "AR_HDU", value=9)
        with pytest.raises(TileError, match="PhotoCalib 7 cannot be read from the archive at HDU 9"):
            read_tiles(path)
