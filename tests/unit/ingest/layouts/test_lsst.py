"""LSST's coadds, also cell-based ones."""

from __future__ import annotations

import json
import os
import shutil

import fsspec
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from galbatch import ingest
from galbatch.config import SurveyConfig
from galbatch.core.flags import MaskBit, PixelFlag
from galbatch.errors import TileError
from tests.unit.ingest.layouts.contract import PIXELS, LayoutContract, image_hdu


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
            tree = fits.BinTableHDU.from_columns([fits.Column("JSON", "PB()", array=[text])], name="JSON")
            index = fits.BinTableHDU(np.zeros(2, dtype=[("EXTNAME", "S8")]), name="INDEX")
            fits.HDUList([*hdus, tree, index]).writeto(folder / f"cells_{band}.fits")

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

    CELL_FWHM_PX = np.array([[4.0, 4.5, np.nan], [5.0, 5.5, 6.0]])

    def with_cell_psfs(self, path, *, shape=None):
        """Cells of 40 x 30 px, the first of which begins 10 px before the image's first row and 5 before its first column."""
        y, x = np.indices((35, 35)) - 17
        kernels = np.exp(-4 * np.log(2) * (y**2 + x**2) / self.CELL_FWHM_PX[:, :, None, None] ** 2)
        box = {"y": {"start": 990, "stop": 1070}, "x": {"start": 495, "stop": 585}}
        psf = {
            "array": {"source": "fits:PSF", "datatype": "float64"},
            "bounds": {
                "grid": {"bbox": box, "cell_shape": [40, 30]},
                "bbox": box,
                "missing": [{"i": 0, "j": 2}],
            },
        }
        tree = {"image": {"start": [1000, 500]}, "band": "g", "patch": {"id": 62}, "psf": psf, "tract": 10463}
        text = np.frombuffer(json.dumps(tree).encode(), np.uint8)
        with fits.open(path) as hdus:
            hdus["PSF"].data = kernels if shape is None else kernels.reshape(shape)
            columns = [fits.Column("JSON", "PB()", array=[text])]
            others = [hdu for hdu in hdus if hdu.name != "JSON"]
            fits.HDUList([*others, fits.BinTableHDU.from_columns(columns, name="JSON")]).writeto(
                path.with_suffix(".new")
            )
        path.with_suffix(".new").rename(path)

    @pytest.mark.parametrize(
        ("pixel", "fwhm_px"),
        [
            ((0, 0), 4.0),
            ((24, 29), 4.0),
            ((25, 29), 4.5),  # the second cell begins at column 25
            ((24, 30), 5.0),  # and at row 30
            ((69, 59), 6.0),
            ((60, 10), np.nan),  # a missing cell
        ],
    )
    def test_the_psf_of_a_cell(self, survey, read, objects, cut, pixel, fwhm_px):
        self.with_cell_psfs(self.files(survey)[0])
        (tile,) = read(survey)
        position = WCS(tile.wcs_header).all_pix2world(*pixel, 0)
        found = cut(objects(*position), [tile], size=5).psf_fwhm_arcsec[0, 0]
        assert found == pytest.approx(fwhm_px * 0.168, rel=1e-4, nan_ok=True)

    def test_a_width_that_is_stated_goes_before_the_cells(self, survey, read):
        self.with_cell_psfs(self.files(survey)[0])
        (tile,) = read(survey, psf_fwhm_arcsec={"g": 0.7})
        assert (tile.psf, tile.psf_fwhm_arcsec) == (None, 0.7)

    def test_psfs_of_cells_from_s3_and_the_tile_index(self, survey, s3, read, objects, cut, tmp_path):
        self.with_cell_psfs(self.files(survey)[0])
        fsspec.filesystem("s3").put(f"{survey}/", f"{s3}/cells/", recursive=True)
        (tile,) = read(f"{s3}/cells")
        assert cut(objects(150.0, 2.0), [tile], size=5).psf_fwhm_arcsec[0, 0] == pytest.approx(
            0.756, rel=1e-4
        )
        config = SurveyConfig(layout="lsst", tiles=str(survey), bands=("g",))
        index = str(tmp_path / "tiles.parquet")
        read_again = [
            ingest.read_tiles(
                config, index=index, map_files=lambda function, items: list(map(function, items))
            )
            for _ in range(2)
        ]
        assert read_again[0] == read_again[1]
        assert read_again[1][0].psf_cells.first_px == (-10, -5)

    def test_cells_that_do_not_fit_the_array_are_refused(self, survey, read):
        self.with_cell_psfs(self.files(survey)[0], shape=(3, 2, 35, 35))
        with pytest.raises(
            TileError,
            match=r"the array's shape is \(3, 2, 35, 35\), the tree tells of \(2, 3\) cells.*psf_fwhm_arcsec = {g",
        ):
            read(survey)

    def with_more_masks(self, path, names):
        """Let the planes go on in a second MASK HDU, as lsst.images writes masks of more than 31 planes."""
        with fits.open(path) as hdus:
            mask = hdus["MASK"].data
            first, second = (image_hdu(np.zeros_like(mask), name="MASK", EXTVER=n) for n in (1, 2))
            first.data[:] = mask
            first.header.extend(hdus["MASK"].header, unique=True)
            for number in range(7, 31):
                first.header[f"MSKN{number:04d}"], first.header[f"MSKM{number:04d}"] = (
                    f"P{number}",
                    1 << number,
                )
            for number, name in enumerate(names):
                second.header[f"MSKN{number:04d}"], second.header[f"MSKM{number:04d}"] = name, 1 << number
            where = hdus.index_of("MASK")
            fits.HDUList([*hdus[:where], first, second, *hdus[where + 1 :]]).writeto(path.with_suffix(".new"))
        path.with_suffix(".new").rename(path)

    def test_planes_that_no_flag_uses_in_a_second_hdu(self, survey, read, objects, cut):
        """The variance is found behind it."""
        self.with_more_masks(self.files(survey)[0], ["VISIT_BOUNDARY", "STREAK"])
        block = cut(objects(150.0, 2.0), read(survey), size=21)
        assert block.mask[0, 0, 10, 10] == MaskBit.DETECTED | MaskBit.SAT
        np.testing.assert_allclose(block.variance[0, 0], 0.25)

    def test_more_than_31_planes(self, survey, s3, read, objects, cut, tmp_path):
        """Planes of both HDUs by name: the second one's bits are counted anew from 0."""
        path = self.files(survey)[0]
        self.with_more_masks(path, ["STREAK", "BRIGHT_OBJECT", "CROSSTALK"])
        with fits.open(path, mode="update") as hdus:
            assert [hdu.name for hdu in hdus[1:5]] == ["IMAGE", "MASK", "MASK", "VARIANCE"]
            hdus[3].data[:] = 1  # STREAK
            hdus[3].data[29, 34], hdus[3].data[29, 38] = 1 << 1, 1 << 2
        fsspec.filesystem("s3").put(f"{survey}/", f"{s3}/cells/", recursive=True)
        config = SurveyConfig(layout="lsst", tiles=str(survey), bands=("g",))
        index = str(tmp_path / "tiles.parquet")
        for _ in range(2):  # the second time from the index
            indexed = ingest.read_tiles(
                config, index=index, map_files=lambda function, items: list(map(function, items))
            )
        for tiles in (read(survey), indexed, read(f"{s3}/cells")):
            block = cut(objects(150.0, 2.0), tiles, size=21)
            found = block.mask[0, 0]
            assert found[10, 10] == MaskBit.DETECTED | MaskBit.SAT | MaskBit.BRIGHT_OBJECT
            assert found[10, 14] == MaskBit.SUSPECT
            assert np.count_nonzero(found) == 3
            assert block.flags[0] & PixelFlag.BRIGHT_OBJECT
            np.testing.assert_allclose(block.variance[0, 0], 0.25)

    @pytest.mark.parametrize("names", [["STREAK", "DETECTED"], ["DETECTED", "P40"]])
    def test_a_plane_in_both_hdus_is_refused(self, survey, read, names):
        path = self.files(survey)[0]
        self.with_more_masks(path, names)
        with pytest.raises(
            TileError,
            match=r"10463/62 .*the mask plane DETECTED stands in HDU 2 and in HDU 3, and nothing says",
        ):
            read(survey)

    def test_a_second_mask_of_another_shape_is_refused(self, survey, read):
        path = self.files(survey)[0]
        self.with_more_masks(path, ["BRIGHT_OBJECT"])
        with fits.open(path, mode="update") as hdus:
            hdus[3].data = hdus[3].data[:-1]
        with pytest.raises(TileError, match=r"mask, HDU 3: mask is .* px, the image .* the same pixels"):
            read(survey)


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        (
            {"HIERARCH MP_SAT": 40},
            r"the mask has 32 bits, numbered from 0, and its planes SAT = 40 lie beyond",
        ),
        ({"HIERARCH MP_SAT": -1}, r"its planes SAT = -1 lie beyond"),
        ({"HIERARCH MP_SAT": "one"}, r"do not number its planes \(invalid literal"),
        ({"MSKN0000": "SAT", "MSKM0000": 1 << 33}, r"its planes SAT = 33 lie beyond"),
    ],
)
def test_planes_that_the_mask_does_not_have_are_refused(
    tmp_path, tan, write_calexp, read_tiles, cards, message
):
    path = write_calexp(tmp_path, image=PIXELS[0], wcs=tan(crpix=(35, 30)))
    with fits.open(path, mode="update") as hdus:
        hdus[2].header.update(cards)
    with pytest.raises(TileError, match=message):
        read_tiles(tmp_path)


def test_a_mask_of_64_bits(tmp_path, tan, write_calexp, read_tiles, objects, cut):
    mask = np.zeros((60, 70), np.int64)
    mask[29, 34], mask[28, 34] = 1 << 45, -(1 << 63)
    path = write_calexp(tmp_path, image=PIXELS[0], mask=mask, wcs=tan(crpix=(35, 30)))
    with fits.open(path, mode="update") as hdus:
        hdus[2].header.update({"HIERARCH MP_SAT": 45, "HIERARCH MP_CR": 63})
    found = cut(objects(150.0, 2.0), read_tiles(tmp_path), size=21).mask[0, 0]
    assert (found[10, 10], found[9, 10]) == (MaskBit.SAT, MaskBit.CR)
    assert np.count_nonzero(found) == 2
