"""Stamps, with and without a catalog."""

from __future__ import annotations

import gzip
import shutil
from typing import Any, ClassVar

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from galbatch.core.flags import MaskBit
from galbatch.core.types import njy_per_unit
from galbatch.errors import ConfigError, ObjectListError, TileError
from galbatch.ingest.headers import parse_wcs
from tests.unit.ingest.layouts.contract import PIXELS, LayoutContract


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


class TestMaskPlanes:
    """Of masks whose bits no card names, as HST's DQ: run.toml says which are bad."""

    MASK = np.zeros(PIXELS[0].shape, np.int16)
    MASK[29, 34], MASK[29, 36], MASK[29, 38] = 256, 4, 1

    @pytest.fixture
    def read(self, tmp_path, tan, read_tiles):
        def run(cards=(), **stamps):
            mask = fits.ImageHDU(self.MASK, name="DQ")
            mask.header.update(cards)
            image = fits.PrimaryHDU(PIXELS[0], header=tan(crpix=(35, 30)))
            fits.HDUList([image, mask]).writeto(tmp_path / "a_g.fits", overwrite=True)
            return read_tiles(tmp_path, layout="stamps", zero_point_mag=27.0, stamps=stamps)

        return run

    @pytest.mark.parametrize(
        ("planes", "cards", "bits"),
        [
            ({"SAT": 8, "BAD": 2}, {}, [MaskBit.SAT, MaskBit.BAD, 0]),
            ("nonzero", {}, [MaskBit.BAD] * 3),
            (None, {}, [0, 0, 0]),
            (None, {"MP_SAT": 2}, [0, MaskBit.SAT, 0]),
            ({"CR": 0}, {"MP_SAT": 2}, [0, 0, MaskBit.CR]),
        ],
    )
    def test_bits_that_are_stated(self, read, objects, cut, planes, cards, bits):
        found = cut(objects(150.0, 2.0), read(cards, mask_planes=planes), size=21).mask[0, 0]
        assert found[10, [10, 12, 14]].tolist() == [int(bit) for bit in bits]

    def test_zero_is_bad(self, read, objects, cut):
        found = cut(objects(150.0, 2.0), read(mask_planes="zero"), size=21).mask[0, 0]
        assert np.count_nonzero(found) == 441 - 3

    @pytest.mark.parametrize(
        ("planes", "message"),
        [
            ({"SAT": 16}, "the mask has 16 bits, numbered from 0, and its planes SAT = 16 lie beyond"),
            ({"WARM": 2}, "WARM is no mask of galbatch's"),
        ],
    )
    def test_what_a_mask_does_not_have_is_refused(self, read, planes, message):
        with pytest.raises((TileError, ConfigError), match=message):
            read(mask_planes=planes)


class TestWhatAnHduIs:
    @pytest.fixture
    def read(self, tmp_path, tan, read_tiles):
        """The tile of a stamp with HDUs of these names, "" for none, behind its image."""

        def run(*names):
            hdus = [fits.PrimaryHDU(PIXELS[0], header=tan(crpix=(35, 30)))]
            hdus += [fits.ImageHDU(np.ones(PIXELS[0].shape, np.int16), name=name or None) for name in names]
            fits.HDUList(hdus).writeto(tmp_path / "a_g.fits", overwrite=True)
            return read_tiles(tmp_path, layout="stamps", zero_point_mag=27.0)[0]

        return run

    @pytest.mark.parametrize(
        ("names", "mask", "weight", "kind"),
        [
            (("", ""), 1, 2, "variance"),
            (("ERR", "DQ"), 2, 1, "standard_deviation"),
            (("IVAR",), None, 1, "inverse_variance"),
            # Drizzled images: the weight has no unit, so it says where there are data alone; the context is none at all.
            (("WHT", "CTX"), None, 1, "coverage"),
            (("WHT", "ERR"), None, 2, "standard_deviation"),
            (("CTX",), None, None, "variance"),
            (("CTX", "ERR", "FLAGS"), 3, 2, "standard_deviation"),
            (("VAR", "IVAR"), None, 1, "variance"),
        ],
    )
    def test_by_name_or_by_place(self, read, names, mask, weight, kind):
        tile = read(*names)
        assert (tile.mask and tile.mask.hdu, tile.weight and tile.weight.hdu, tile.weight_kind) == (
            mask,
            weight,
            kind,
        )


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

    def test_the_equinox_of_the_pointing_is_none_of_the_catalog(self, survey, read_tiles):
        for path in (survey / "cutouts").iterdir():
            header = fits.Header({"RADECSYS": "FK4", "EQUINOX": 1950.0})
            fits.PrimaryHDU(fits.getdata(path), header).writeto(path, overwrite=True)
        x, y = parse_wcs(read_tiles(survey, **self.OPTIONS)[0].wcs_header).to_pixels(150.0, 2.0)
        assert (float(x), float(y)) == pytest.approx((35.0, 30.0), abs=1e-9)

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

    def test_positions_in_radians(self, survey, read_tiles):
        table = Table.read(survey / "info.csv")
        for name in ("ra", "dec"):
            table[name] = np.radians(table[name])
            table[name].unit = "rad"
        table.write(survey / "info.csv", format="ascii.ecsv", overwrite=True)
        x, y = parse_wcs(read_tiles(survey, **self.OPTIONS)[0].wcs_header).to_pixels(150.0, 2.0)
        assert (float(x), float(y)) == pytest.approx((35.0, 30.0), abs=1e-6)

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

    def test_a_stamp_that_was_packed_since_keeps_its_row(self, survey, read_tiles):
        path = survey / "cutouts/1001.fits"
        (survey / "cutouts/1001.fits.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
        assert [tile.tile_id for tile in read_tiles(survey, **self.OPTIONS)] == ["1001", "1002"]

    def test_a_changed_catalog_is_another_identity(self, survey, read_tiles):
        before = read_tiles(survey, **self.OPTIONS)[0].identity
        (survey / "info.csv").write_text((survey / "info.csv").read_text() + "7,7.fits,1.0,1.0\n")
        assert read_tiles(survey, **self.OPTIONS)[0].identity != before
