"""The contract of all layouts: what each one's adapter must do, whatever its files are."""

from __future__ import annotations

import bz2
import gzip
import os
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
from astropy.io import fits

from galbatch.core.flags import PixelFlag
from galbatch.errors import TileError

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
    variance: float | None = 0.25  # of every pixel, in squared survey units; None: the survey states none
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
        expected_variance = np.nan if self.variance is None else self.variance * self.njy**2
        np.testing.assert_allclose(block.variance[0], expected_variance, rtol=1e-6)
        assert not block.flags[0] & (PixelFlag.RESAMPLED | PixelFlag.MOSAICKED)

    def test_pixels_come_out_in_njy_about_the_position(self, survey, read, objects, cut):
        tiles = read(survey, bands=("g", "r"))
        block = self.cut_both(tiles, objects, cut)
        self.assert_pixels(block)
        assert block.tile[0] == tiles[0].tile_id

    @pytest.fixture
    def with_holes(self):
        """PIXELS, which `write` writes, with some that were not observed: where they are, (band, y, x) bool."""
        whole = PIXELS.copy()
        PIXELS[0, :, :26] = 0.0
        PIXELS[0, 29, 34:36] = np.nan, np.inf
        PIXELS[1, 20:22, 30] = 1e30, -1e30
        PIXELS[1, 25, 30:33] = -9999.0, -32768.0, 1e20
        yield (whole != PIXELS) | np.isnan(PIXELS)
        PIXELS[:] = whole

    def test_pixels_without_data_are_nan(self, with_holes, survey, read, objects, cut):
        block = self.cut_both(read(survey, bands=("g", "r")), objects, cut)
        missing = with_holes[:, 19:40, 24:45]
        np.testing.assert_array_equal(np.isnan(block.image[0]), missing)
        expected = PIXELS[:, 19:40, 24:45] * np.float32(self.njy)
        np.testing.assert_allclose(block.image[0][~missing], expected[~missing], rtol=2e-7)
        np.testing.assert_allclose(block.coverage[0], 1 - np.array([2 * 21 + 2, 5]) / 21**2, rtol=1e-6)
        assert np.isnan(block.variance[0][missing]).all()
        assert block.flags[0] & PixelFlag.PARTIAL_COVERAGE

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

    # Ending of the name, and how its content is packed: they need not agree.
    suffixes: ClassVar[dict[str, Any]] = {
        ".FITS": bytes,
        ".fit": gzip.compress,
        ".fts": bytes,
        ".fits.fz": bz2.compress,
        ".fits.bz2": bz2.compress,
        ".Fits.GZ": bytes,
    }

    def test_the_same_under_any_suffix(self, survey, read, objects, cut):
        before = [tile.tile_id for tile in read(survey, bands=("g", "r"))]
        stems = [(path, path.with_suffix("")) for path in self.files(survey)]
        for suffix, pack in self.suffixes.items():
            renamed = []
            for path, stem in stems:
                renamed.append(stem.with_name(f"{stem.name}{suffix}"))
                renamed[-1].write_bytes(pack(path.read_bytes()))
                path.rename(path.with_suffix(".aside"))
            tiles = read(survey, bands=("g", "r"))
            assert [tile.tile_id for tile in tiles] == before, suffix
            self.assert_pixels(self.cut_both(tiles, objects, cut))
            for path, new in zip((path for path, _ in stems), renamed, strict=True):
                new.unlink()
                path.with_suffix(".aside").rename(path)

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
            offset, n_bytes = hdus[last].fileinfo()["datLoc"], abs(hdus[last].header["BITPIX"]) // 8
        with open(path, "r+b") as file:
            file.truncate(offset + n_bytes * 70 * 10)
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
            ({"CTYPE1": "SLON-TAN", "CTYPE2": "SLAT-TAN"}, "no celestial WCS"),
            ({"CTYPE1": "RA---TAB", "CTYPE2": "DEC--TAB"}, "distortion tables .-TAB"),
            ({"RADESYS": "GAPPT"}, "is no frame that is read: ICRS, FK5 and FK4 are"),
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
