"""One contract for every layout; what is particular to one follows below it."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import h5py
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from galbatch.core.flags import MaskBit, PixelFlag
from galbatch.core.types import njy_per_unit
from galbatch.errors import ConfigError, ObjectListError, TileError
from galbatch.ingest import headers as lattice
from galbatch.ingest.layouts import LAYOUTS, legacysurvey
from galbatch.ingest.pixels import Box, TileReader

RNG = np.random.default_rng(3)
PIXELS = RNG.normal(size=(2, 60, 70)).astype(np.float32)  # (band, y, x) in survey units


def image_hdu(plane, wcs=None, name=None, **cards):
    hdu = fits.ImageHDU(plane, header=wcs, name=name)
    hdu.header.update(cards)
    return hdu


class LayoutContract:
    """Each subclass writes PIXELS in bands g and r, 0.168 arcsec, CRVAL (150, 2), CRPIX (35, 30), variance 0.25."""

    layout: str
    njy: float
    options: ClassVar[dict[str, Any]] = {}  # further keys of [survey]

    def write(self, folder, wcs, write_calexp):
        raise NotImplementedError

    def forget_zero_point(self, folder):
        """Take the zero point out of the files; returns keys of [survey] that replace `options`."""
        raise NotImplementedError

    @pytest.fixture
    def survey(self, tmp_path, tan, write_calexp):
        folder = tmp_path / "survey"
        folder.mkdir()
        self.write(folder, tan(crpix=(35, 30)), write_calexp)
        return folder

    @pytest.fixture
    def read(self, read_tiles):
        def run(folder, *, bands=("g",), **survey):
            return read_tiles(folder, layout=self.layout, bands=bands, **(self.options | survey))

        return run

    def files(self, folder):
        return sorted(path for path in folder.rglob("*.fits") if path.is_file())

    def test_one_tile_for_each_band_asked_for(self, survey, read):
        assert [t.band for t in read(survey, bands=("g", "r"))] == ["g", "r"]
        assert [t.band for t in read(survey, bands=("r",))] == ["r"]

    def test_tiles_tell_shape_scale_and_unit(self, survey, read):
        tile = read(survey)[0]
        assert tile.shape_px == (60, 70)
        assert tile.pixel_scale_arcsec == pytest.approx(0.168, rel=1e-9)
        assert tile.njy_per_unit == pytest.approx(self.njy, rel=1e-9)
        assert tile.identity is not None
        assert np.isnan(tile.psf_fwhm_arcsec)
        ra, dec = zip(*tile.corners_deg, strict=True)
        assert max(dec) - min(dec) == pytest.approx(60 * 0.168 / 3600, rel=1e-6)
        assert max(ra) - min(ra) == pytest.approx(70 * 0.168 / 3600 / np.cos(np.deg2rad(2)), rel=1e-4)

    def test_psf_width_comes_from_the_config(self, survey, read):
        tiles = read(survey, bands=("g", "r"), psf_fwhm_arcsec={"r": 0.7})
        assert tiles[1].psf_fwhm_arcsec == 0.7

    def cut_both(self, tiles, objects, cut):
        return cut(objects(150.0, 2.0), tiles, size=21, bands=("g", "r"))

    def assert_pixels(self, block):
        # CRPIX (35, 30) is the 0-based pixel (34, 29): the center of 21 px.
        expected = PIXELS[:, 19:40, 24:45] * np.float32(self.njy)
        np.testing.assert_allclose(block.image[0], expected, rtol=2e-7)
        np.testing.assert_allclose(block.variance[0], 0.25 * self.njy**2, rtol=1e-6)
        assert not block.flags[0] & (PixelFlag.RESAMPLED | PixelFlag.MOSAICKED)

    def test_pixels_come_out_in_njy_about_the_position(self, survey, read, objects, cut):
        tiles = read(survey, bands=("g", "r"))
        block = self.cut_both(tiles, objects, cut)
        self.assert_pixels(block)
        assert block.tile[0] == tiles[0].tile_id

    def test_the_same_from_s3(self, survey, s3, read, objects, cut):
        fsspec.filesystem("s3").put(f"{survey}/", f"{s3}/survey/", recursive=True)
        tiles = read(f"{s3}/survey", bands=("g", "r"))
        assert tiles[0].image.path.startswith("s3://")
        self.assert_pixels(self.cut_both(tiles, objects, cut))

    def compress(self, folder):
        """Tile-compress every image, without loss."""
        for path in self.files(folder):
            with fits.open(path) as hdus:
                packed = [
                    fits.CompImageHDU(hdu.data, hdu.header, compression_type="GZIP_2", quantize_level=0.0)
                    if hdu.is_image and len(hdu.shape) == 2
                    else hdu
                    for hdu in hdus
                ]
                first = [] if isinstance(packed[0], fits.PrimaryHDU) else [fits.PrimaryHDU()]
                fits.HDUList(first + packed).writeto(path.with_suffix(".packed"))
            path.with_suffix(".packed").rename(path)

    def test_the_same_tile_compressed(self, survey, read, objects, cut):
        self.compress(survey)
        tiles = read(survey, bands=("g", "r"))
        assert tiles[0].image.block_px is not None
        self.assert_pixels(self.cut_both(tiles, objects, cut))

    def test_the_same_gzipped(self, survey, read, objects, cut):
        for path in self.files(survey):
            (path.parent / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
            path.unlink()
        self.assert_pixels(self.cut_both(read(survey, bands=("g", "r")), objects, cut))

    def test_missing_zero_point_is_asked_for(self, survey, read):
        options = self.forget_zero_point(survey)
        with pytest.raises(TileError, match=r"band g.*zero point is unknown.*\[survey\] zero_point_mag"):
            read(survey, **options)
        with pytest.raises(TileError, match=r"band r.*zero point is unknown"):
            read(survey, bands=("g", "r"), **options, zero_point_mag={"g": 27.0})
        tiles = read(survey, bands=("g", "r"), **options, zero_point_mag={"g": 27.0, "r": 26.0})
        assert [t.njy_per_unit for t in tiles] == pytest.approx([57.54399, 144.54398], rel=1e-6)

    def test_a_zero_point_that_contradicts_the_file_is_refused(self, survey, read):
        stated = 31.4 - 2.5 * np.log10(self.njy)
        assert read(survey, zero_point_mag=stated)[0].njy_per_unit == pytest.approx(self.njy, rel=1e-9)
        with pytest.raises(TileError, match=rf"zero point {stated:.4f}, .* zero_point_mag {stated + 1:.4f}"):
            read(survey, zero_point_mag=stated + 1)

    def test_release_and_background_of_the_config_are_recorded(self, survey, read):
        tile = read(survey, release="mine", background="no sky at all")[0]
        assert (tile.release, tile.background) == ("mine", "no sky at all")

    def test_another_file_is_another_identity(self, survey, read):
        files = [path for path in survey.rglob("*") if path.is_file()]
        for path in files:
            before = [tile.identity for tile in read(survey, bands=("g", "r"))]
            status = path.stat()
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000))
            assert [tile.identity for tile in read(survey, bands=("g", "r"))] != before, path.name

    def test_truncated_file_is_named_with_both_sizes(self, survey, read):
        for path in self.files(survey):
            with fits.open(path) as hdus:
                image = next(n for n, hdu in enumerate(hdus) if getattr(hdu, "shape", None) == (60, 70))
                offset = hdus[image].fileinfo()["datLoc"]
            with open(path, "r+b") as file:
                file.truncate(offset + 40 * 70 * 4)
        with pytest.raises(TileError, match=r"image is 40 x 70 px, its header says 60 x 70; .*truncated"):
            read(survey)

    def test_file_cut_in_its_last_plane(self, survey, read):
        path = self.files(survey)[-1]
        with fits.open(path) as hdus:
            last = max(n for n, hdu in enumerate(hdus) if getattr(hdu, "shape", None) == (60, 70))
            offset = hdus[last].fileinfo()["datLoc"]
        with open(path, "r+b") as file:
            file.truncate(offset + 4 * 70 * 10)
        with pytest.raises(TileError, match="is 10 x 70 px, its header says 60 x 70"):
            read(survey, bands=("g", "r"))

    def test_garbage_is_a_tile_error(self, survey, read):
        self.files(survey)[0].write_bytes(b"<html>503 Service Unavailable</html>")
        with pytest.raises(TileError, match="no FITS file"):
            read(survey, bands=("g", "r"))

    def test_no_wcs(self, tmp_path, read, write_calexp):
        self.write(tmp_path, fits.Header(), write_calexp)
        with pytest.raises(TileError, match="no celestial WCS"):
            read(tmp_path)

    @pytest.mark.parametrize(
        ("cards", "message"),
        [
            ({"CTYPE1": "RA---SIN"}, "the WCS cannot be used"),
            ({"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"}, "no celestial WCS"),
            ({"CD1_1": 0.0, "CD2_2": 0.0, "CD1_2": 0.0, "CD2_1": 0.0}, "WCS"),
            ({"CPDIS1": "LOOKUP"}, "distortion tables"),
        ],
    )
    def test_a_wcs_that_cannot_be_used(self, tmp_path, tan, read, write_calexp, cards, message):
        wcs = tan(crpix=(35, 30))
        wcs.update(cards)
        self.write(tmp_path, wcs, write_calexp)
        with pytest.raises(TileError, match=message):
            read(tmp_path)

    def test_nothing_matches(self, tmp_path, read):
        with pytest.raises(TileError, match="no tile matches"):
            read(tmp_path / "empty")

    def test_a_band_without_tiles(self, survey, read):
        with pytest.raises(TileError, match="no tile in band z; there are tiles in g"):
            read(survey, bands=("g", "z"))


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

    def test_bunit_goes_before_it(self, write, read_tiles):
        path = write(mean=57.0)
        fits.setval(path, "BUNIT", value="nJy", ext=1)
        assert read_tiles(path)[0].njy_per_unit == 1.0

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


class TestLsst(LayoutContract):
    layout = "lsst"
    njy = 1.0

    def write(self, folder, wcs, write_calexp):
        for band, image in zip("gr", PIXELS, strict=True):
            hdus = [
                fits.PrimaryHDU(),
                image_hdu(image, wcs, EXTTYPE="IMAGE", BUNIT="nJy"),
                image_hdu(np.zeros(image.shape, np.int32), wcs, EXTTYPE="MASK"),
                image_hdu(np.full_like(image, 0.25), wcs, EXTTYPE="VARIANCE"),
            ]
            hdus[2].header.update({"HIERARCH MP_SAT": 1, "HIERARCH MP_NO_DATA": 8})
            name = f"deepCoadd_calexp_9813_40_{band}_hsc_rings_v1_HSC_runs_RC2.fits"
            fits.HDUList(hdus).writeto(folder / name)

    def forget_zero_point(self, folder):
        for path in self.files(folder):
            fits.setval(path, "BUNIT", value="adu", ext=1)
        return {}

    @pytest.mark.parametrize(
        ("name", "tile_id", "band", "release"),
        [
            ("deepCoadd_calexp_9813_40_i_hsc_rings_v1_run.fits", "9813/40", "i", ""),
            ("deep_coadd_5063_14_i_lsst_cells_v1_LSSTComCam_runs_DRP_DP1_v29.fits", "5063/14", "i", "dp1"),
            ("deep_coadd_predetection_5063_14_i_lsst_cells_v1.fits", "5063/14", "i", ""),
            ("template_coadd_5063_14_i_lsst_cells_v1.fits", "5063/14", "i", ""),
            ("dp0_2/deepCoadd-i-4431-17.fits", "4431/17", "i", "dp0.2"),
            ("calexp-HSC-I2-9813-4,4.fits", "9813/4,4", "i", ""),
            ("dr1/deepCoadd/HSC-I/9813/4,4.fits", "9813/4,4", "i", "dr1"),
            ("deepCoadd_calexp_9813_4,4_i.fits", "9813/4,4", "i", ""),
        ],
    )
    def test_names_of_coadds(self, survey, tmp_path, read, name, tile_id, band, release):
        path = tmp_path / "named" / name
        path.parent.mkdir(parents=True)
        shutil.copy(self.files(survey)[0], path)
        (tile,) = read(tmp_path / "named", bands=(band,))
        assert (tile.tile_id, tile.band, tile.release) == (tile_id, band, release)

    def test_other_products_are_passed_by(self, survey, read):
        for name in ("deepCoadd_meas_9813_40_g_x.fits", "deepCoadd_det_9813_40_g_x.fits"):
            fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(np.zeros(3, dtype=[("id", "i8")]))]).writeto(
                survey / name
            )
        assert len(read(survey, bands=("g", "r"))) == 2

    def test_a_name_in_the_butler_s_cards(self, survey, tmp_path, read):
        path = tmp_path / "coadd.fits"
        shutil.copy(self.files(survey)[0], path)
        with fits.open(path, mode="update") as hdus:
            for key, value in (("TRACT", 5063), ("PATCH", 14), ("BAND", "i")):
                hdus[0].header[f"HIERARCH LSST BUTLER DATAID {key}"] = value
        (tile,) = read(path, bands=("i",))
        assert (tile.tile_id, tile.band) == ("5063/14", "i")


class TestCellCoadds(LayoutContract):
    """As lsst.images writes them: named HDUs in blocks of a cell, masks by MSKN, a JSON tree."""

    layout = "lsst"
    njy = 1.0
    PLANES = ("NO_DATA", "INTERPOLATED", "COSMIC_RAY", "SATURATED", "DETECTION_EDGE", "CLIPPED", "DETECTED")

    def write(self, folder, wcs, write_calexp):
        for band, image in zip("gr", PIXELS, strict=True):
            mask = np.zeros(image.shape, np.int32)
            mask[29, 34], mask[28, 34], mask[0, 0] = 1 << 3 | 1 << 6, 1 << 2, 1
            hdus = [
                fits.PrimaryHDU(),
                image_hdu(image, wcs, "IMAGE", BUNIT="nJy"),
                image_hdu(mask, wcs, "MASK"),
                image_hdu(np.full_like(image, 0.25), wcs, "VARIANCE", BUNIT="nJy2"),
                image_hdu(np.zeros_like(image), wcs, "MASK_FRACTIONS/REJECTED"),
                image_hdu(np.zeros_like(image), wcs, "NOISE_REALIZATIONS/0"),
                image_hdu(np.zeros((2, 2, 21, 21), np.float32), name="PSF"),
            ]
            for number, name in enumerate(self.PLANES):
                hdus[2].header[f"MSKN{number:04d}"], hdus[2].header[f"MSKM{number:04d}"] = name, 1 << number
            hdus[0].header["JSONADDR"] = 1
            tree = f'{{"band": "{band}", "patch": {{"id": 62}}, "sky_projection": {{"pixel_frame": {{"tract": 10463}}}}}}'
            text = np.frombuffer(tree.encode(), np.uint8)
            json = fits.BinTableHDU.from_columns([fits.Column("JSON", "PB()", array=[text])], name="JSON")
            index = fits.BinTableHDU(np.zeros(2, dtype=[("EXTNAME", "S8")]), name="INDEX")
            fits.HDUList([*hdus, json, index]).writeto(folder / f"cells_{band}.fits")

    def forget_zero_point(self, folder):
        for path in self.files(folder):
            fits.delval(path, "BUNIT", extname="IMAGE")
        return {}

    @pytest.fixture
    def named(self, survey):
        """The same files by names that say tract and patch: the JSON at their end may be cut off."""
        for path, band in zip(self.files(survey), "gr", strict=True):
            path.rename(path.with_name(f"deep_coadd_10463_62_{band}_lsst_cells_v2.fits"))
        return survey

    def test_truncated_file_is_named_with_both_sizes(self, named, read):
        super().test_truncated_file_is_named_with_both_sizes(named, read)

    def test_file_cut_in_its_last_plane(self, named, read):
        path = self.files(named)[-1]
        with fits.open(path) as hdus:
            offset = hdus["VARIANCE"].fileinfo()["datLoc"]
        with open(path, "r+b") as file:
            file.truncate(offset + 4 * 70 * 10)
        with pytest.raises(TileError, match="variance is 10 x 70 px, its header says 60 x 70"):
            read(named, bands=("g", "r"))

    def test_file_cut_before_its_json(self, survey, read):
        path = self.files(survey)[0]
        with fits.open(path) as hdus:
            os.truncate(path, hdus["JSON"].fileinfo()["hdrLoc"])
        with pytest.raises(TileError, match=r"tract and patch should stand in its JSON.*truncated"):
            read(survey)

    def test_tract_and_patch_in_the_json(self, survey, read):
        assert read(survey)[0].tile_id == "10463/62"

    def test_mask_planes_by_their_new_names(self, survey, read, objects, cut):
        found = cut(objects(150.0, 2.0), read(survey), size=21).mask[0, 0]
        assert found[10, 10] == MaskBit.DETECTED | MaskBit.SAT
        assert found[9, 10] == MaskBit.CR
        assert np.count_nonzero(found) == 2


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
        with pytest.raises(TileError, match="band is unknown: no card BAND or FILTER"):
            read(survey, bands=("g", "r"), generic={}, zero_point_mag=30.0)


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

    def forget_zero_point(self, folder):
        for path in self.files(folder):
            with fits.open(path, mode="update") as hdus:
                for hdu in hdus:
                    hdu.header.remove("MAGZERO", ignore_missing=True)
        return {}

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

    def test_release_by_the_name(self, tmp_path, tan, read):
        hdu = fits.PrimaryHDU(PIXELS[0], header=tan(crpix=(1, 1)))
        hdu.header["FLUXMAG0"] = 6.3e10
        hdu.writeto(tmp_path / "4-cutout-HSC-G-8279-pdr2_wide.fits")
        (tile,) = read(tmp_path)
        assert (tile.release, tile.background) == ("pdr2", "global sky")


class TestStampsWithACatalog:
    """GaMPEN's layout: info.csv beside cutouts/, one band, no WCS, no zero point in the stamps."""

    OPTIONS: ClassVar[dict[str, Any]] = {
        "layout": "stamps",
        "zero_point_mag": 27.0,
        "stamps": {"band": "g", "pixel_scale_arcsec": 0.168},
    }

    @pytest.fixture
    def survey(self, tmp_path):
        (tmp_path / "cutouts").mkdir()
        rows = [("1001.fits", 150.0, 2.0), ("1002.fits", 359.9999, -89.5)]
        text = "object_id,file_name,ra,dec\n" + "".join(f"{f[:4]},{f},{a},{d}\n" for f, a, d in rows)
        (tmp_path / "info.csv").write_text(text)
        for (name, *_), image in zip(rows, PIXELS, strict=True):
            fits.PrimaryHDU(image).writeto(tmp_path / "cutouts" / name)
        return tmp_path

    def test_position_band_and_zero_point_from_catalog_and_config(self, survey, read_tiles, objects, cut):
        tiles = read_tiles(survey, **self.OPTIONS)
        assert [tile.tile_id for tile in tiles] == ["1001", "1002"]
        block = cut(objects([150.0, 359.9999], [2.0, -89.5]), tiles, size=21)
        for image, name in zip(block.image[:, 0], block.tile, strict=True):
            # 60 x 70 px: the central pixel is (30, 35).
            expected = PIXELS[int(name) - 1001, 20:41, 25:46] * np.float32(njy_per_unit(27.0))
            np.testing.assert_allclose(image, expected, rtol=2e-7)

    def test_a_column_of_another_name(self, survey, read_tiles):
        text = (survey / "info.csv").read_text().replace("file_name,ra,dec", "image,RA,DEC")
        (survey / "list.csv").write_text(text)
        (survey / "info.csv").unlink()
        stamps = self.OPTIONS["stamps"] | {
            "catalog": str(survey / "list.csv"),
            "file": "image",
            "ra": "RA",
            "dec": "DEC",
        }
        assert len(read_tiles(survey, **(self.OPTIONS | {"stamps": stamps}))) == 2
        with pytest.raises(ObjectListError, match=r"list\.csv: .*no column file_name"):
            read_tiles(survey, **(self.OPTIONS | {"stamps": stamps | {"file": "file_name"}}))

    def test_pixel_scale_is_asked_for(self, survey, read_tiles):
        with pytest.raises(TileError, match=r"tile 1001 .*\[survey.stamps\] pixel_scale_arcsec"):
            read_tiles(survey, **(self.OPTIONS | {"stamps": {"band": "g"}}))

    def test_a_catalog_without_positions_says_nothing(self, survey, read_tiles):
        (survey / "info.csv").write_text("object_id,file_name\n1001,1001.fits\n")
        with pytest.raises(TileError, match="no celestial WCS"):
            read_tiles(survey, **self.OPTIONS)

    def test_a_stamp_that_is_not_in_the_catalog(self, survey, read_tiles):
        shutil.copy(survey / "cutouts/1001.fits", survey / "cutouts/1003.fits")
        with pytest.raises(TileError, match=r"tile 1003 .*info.csv has no row with file_name = 1003.fits"):
            read_tiles(survey, **self.OPTIONS)

    def test_a_stamp_of_another_place_than_the_catalog_says(self, survey, tan, read_tiles):
        header = tan(crpix=(35, 30), crval=(150.1, 2.0))
        fits.PrimaryHDU(PIXELS[0], header=header).writeto(survey / "cutouts/1001.fits", overwrite=True)
        with pytest.raises(TileError, match=r"tile 1001 .*stamps and catalog do not belong together"):
            read_tiles(survey, **self.OPTIONS)

    def test_a_changed_catalog_is_another_identity(self, survey, read_tiles):
        before = read_tiles(survey, **self.OPTIONS)[0].identity
        (survey / "info.csv").write_text((survey / "info.csv").read_text() + "7,7.fits,1.0,1.0\n")
        assert read_tiles(survey, **self.OPTIONS)[0].identity != before


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


def test_every_layout_is_under_contract():
    assert {contract.layout for contract in LayoutContract.__subclasses__()} == set(LAYOUTS)
    assert all(layout.expects and layout.suffixes for layout in LAYOUTS.values())


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
