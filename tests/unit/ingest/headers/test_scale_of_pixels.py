"""The flux of one image unit: every statement that a file can make of it, and which goes before which."""

from __future__ import annotations

import gzip
import math
import shutil
from typing import ClassVar

import h5py
import numpy as np
import pytest
from astropy import units
from astropy.io import fits

from galbatch.core.types import njy_per_unit
from galbatch.errors import ConfigError, TileError
from galbatch.ingest.pixels import Box, TileReader


@pytest.fixture
def njy(tmp_path, tan, read_tiles):
    """Scale of a stamp with these cards, each a value or (value, comment); options of [survey] by `survey`."""

    def run(survey=None, *, layout="stamps", **cards):
        header = tan(crpix=(8, 8), scale_arcsec=0.1)
        for key, value in cards.items():
            header[f"HIERARCH {key}" if len(key) > 8 else key] = value
        path = tmp_path / "one.fits"
        fits.PrimaryHDU(np.ones((16, 16), np.float32), header=header).writeto(path, overwrite=True)
        options = {"stamps": {"band": "g"}} if layout == "stamps" else {}
        header_band = header.get("BAND")
        bands = (str(header_band),) if header_band is not None else ("g",)
        return read_tiles(path, layout=layout, bands=bands, **(options | (survey or {})))[0].njy_per_unit

    return run


LAYOUTS = ("stamps", "generic")


class TestUnits:
    @pytest.mark.parametrize(
        "text",
        [
            "nJy",
            "uJy",
            "mJy",
            "MJy",
            "Jy",
            "GJy",
            "1e-9 Jy",
            "10.0*nanoJansky",
            "Jansky",
            "erg s-1 cm-2 Hz-1",
            "W/(m2 Hz)",
        ],
    )
    @pytest.mark.parametrize("how", ["BUNIT", "config"])
    def test_as_astropy_reads_them(self, njy, text, how):
        right = units.Unit(text).to(units.nJy)
        if right > 1e15 * (1 + 1e-9):
            with pytest.raises(TileError, match="no scale of an image"):
                njy(BUNIT=text)
        elif how == "BUNIT":
            assert njy(BUNIT=text) == pytest.approx(right, rel=1e-9)
        else:
            assert njy({"generic": {"unit": text}}, layout="generic") == pytest.approx(right, rel=1e-9)

    @pytest.mark.parametrize(
        ("text", "right"),
        [
            ("NJY", 1.0),
            ("njy", 1.0),
            ("UJY", 1e3),
            ("JY", 1e9),
            ("Jy/pixel", 1e9),
            ("Jy pixel-1", 1e9),
            ("JY/PIXEL", 1e9),
            ("microJy", 1e3),
            ("NANOMAGGIES", 3630.7805),
            ("nMgy", 3630.7805),
            ("nanomaggy / pix", 3630.7805),
        ],
    )
    def test_other_capitals_with_one_reading(self, njy, text, right):
        assert njy(BUNIT=text) == pytest.approx(right, rel=1e-7)

    @pytest.mark.parametrize("text", ["mjy", "MJY", "Mjy"])
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_two_readings_are_both_shown(self, njy, text, layout):
        with pytest.raises(TileError, match=r"could be MJy or mJy"):
            njy(BUNIT=text, layout=layout)
        assert njy({"zero_point_mag": 16.4}, BUNIT=text, layout=layout) == pytest.approx(1e6, rel=1e-9)

    def test_flux_per_beam_is_refused(self, njy):
        for text in ("Jy/beam", "JY/BEAM", "mJy beam-1"):
            with pytest.raises(TileError, match="per beam"):
                njy(BUNIT=text)

    def test_surface_brightness_times_the_area_of_a_pixel(self, njy):
        area_sr = (0.1 * units.arcsec).to_value(units.rad) ** 2
        right = 1e15 * area_sr
        assert njy(BUNIT="MJy/sr") == pytest.approx(right, rel=1e-6)
        assert njy(BUNIT="MJy/sr", PIXAR_SR=area_sr * 1.0005) == pytest.approx(right * 1.0005, rel=1e-9)
        assert njy(BUNIT="uJy/arcsec2") == pytest.approx(10.0, rel=1e-6)
        for text in ("nmgy/arcsec2", "nanomaggies / arcsec**2", "nMgy arcsec-2"):
            assert njy(BUNIT=text) == pytest.approx(36.307805, rel=1e-6)
        with pytest.raises(TileError, match=r"PIXAR_SR is .* sr, the pixel's area by the WCS "):
            njy(BUNIT="MJy/sr", PIXAR_SR=area_sr * 4)

    def test_an_area_that_varies_over_the_image(self, tmp_path, read_tiles, objects, cut):
        """Plate carree, 6 degrees high at declination 30: a pixel's area goes with cos(dec)."""
        header = fits.Header({"CTYPE1": "RA---CAR", "CTYPE2": "DEC--CAR", "CRVAL1": 150.0, "CRVAL2": 0.0})
        header.update({"CRPIX1": 100.0, "CRPIX2": -900.0, "CDELT1": -0.03, "CDELT2": 0.03, "BUNIT": "MJy/sr"})
        fits.PrimaryHDU(np.ones((200, 200), np.float32), header=header).writeto(tmp_path / "car_g.fits")
        tiles = read_tiles(tmp_path, layout="stamps")
        with TileReader() as reader:
            found = reader.read(tiles[0], Box(0, 200, 0, 200)).image
        dec = np.deg2rad(np.arange(901, 1101) * 0.03)[:, None]
        right = 1e15 * np.deg2rad(0.03) ** 2 * np.cos(dec) * np.ones(200)
        np.testing.assert_allclose(found, right, rtol=1e-4)

    def test_counts_are_no_unit_of_flux(self, njy):
        for text in ("adu", "electron", "DN/s", "counts", ""):
            with pytest.raises(TileError, match="zero point is unknown"):
                njy(BUNIT=text)
        with pytest.raises(ConfigError, match="unit = 'adu' is none"):
            njy({"generic": {"unit": "adu"}}, layout="generic")


class TestPrecedence:
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_a_zero_point_beside_a_unit_of_flux_is_a_leftover(self, njy, layout):
        assert njy(BUNIT="nJy", MAGZERO=27.0, layout=layout) == 1.0
        assert njy(BUNIT="uJy", PHOTFLAM=1e-20, PHOTPLAM=6000.0, layout=layout) == 1e3

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_two_statements_that_differ_are_shown_both(self, njy, layout):
        with pytest.raises(TileError, match=r"31\.4000, by BUNIT = nJy, .*FLUXMAG0 = 6.3e\+10 26\.99"):
            njy(BUNIT="nJy", FLUXMAG0=6.3e10, layout=layout)
        with pytest.raises(TileError, match=r"30\.0000, by MAGZERO = 30, .*PHOTZP = 25 25\.0000"):
            njy(MAGZERO=30.0, PHOTZP=25.0, layout=layout)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_run_toml_says_which_of_two_is_right(self, njy, layout):
        stated = {"zero_point_mag": 25.0}
        assert njy(stated, MAGZERO=30.0, PHOTZP=25.0, layout=layout) == pytest.approx(
            njy_per_unit(25.0), rel=1e-9
        )

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_one_second_s_zero_point_beside_the_image_s_is_no_contradiction(self, njy, layout):
        """A calexp's MAGZERO has no word on the exposure time, of which its FLUXMAG0 is."""
        cards = {"FLUXMAG0": 10 ** (0.4 * 27.0) * 30.0, "MAGZERO": 27.0, "EXPTIME": 30.0}
        right = njy_per_unit(27.0 + 2.5 * math.log10(30.0))
        assert njy(layout=layout, **cards) == pytest.approx(right, rel=1e-9)
        assert njy(layout=layout, **cards, MAGZERO_RMS=0.01) == pytest.approx(right, rel=1e-9)
        # Where both readings are possible, the plain one counts, and run.toml must not contradict it.
        with pytest.raises(TileError, match=r"the file says zero point 27\.0000, by MAGZERO = 27"):
            njy({"zero_point_mag": 27.0 + 2.5 * math.log10(30.0)}, layout=layout, MAGZERO=27.0, EXPTIME=30.0)

    @pytest.mark.parametrize("cards", [{"BUNIT": "nJy"}, {"FLUXMAG0": 6.3e10}, {"MAGZERO": 30.0}])
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_run_toml_must_not_contradict(self, njy, layout, cards):
        with pytest.raises(TileError, match=r"the file says zero point .* zero_point_mag 25\.0000"):
            njy({"zero_point_mag": 25.0}, layout=layout, **cards)

    @pytest.mark.parametrize("key", ["MAGZERO", "MAGZPT", "PHOTZP", "MAGZP", "ZP"])
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_zero_point_cards(self, njy, key, layout):
        assert njy(layout=layout, **{key: 26.0}) == pytest.approx(njy_per_unit(26.0), rel=1e-12)


class TestZeroPointsThatAreNone:
    @pytest.mark.parametrize("value", [0.0, 0, -1.0, -99.0, 99.0, 999.0, -999.0, True, "25.0", "none"])
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_refused_with_card_and_value(self, njy, value, layout):
        with pytest.raises(TileError, match=r"MAGZERO = .* is no zero point.*zero_point_mag = \{g = "):
            njy(MAGZERO=value, layout=layout)
        # Only where it would have decided.
        assert njy(MAGZERO=value, BUNIT="nJy", layout=layout) == 1.0
        stated = {"zero_point_mag": 27.0}
        assert njy(stated, MAGZERO=value, layout=layout) == pytest.approx(57.54399, rel=1e-6)

    def test_a_flux_of_magnitude_0_that_is_none(self, njy):
        for value in (0.0, -1.0, True, "6.3e10"):
            with pytest.raises(TileError, match=r"FLUXMAG0 = .* is no flux"):
                njy(FLUXMAG0=value)

    @pytest.mark.parametrize(
        "cards", [{"MAGZERO": 60.0}, {"MAGZERO": -20.0}, {"FLUXMAG0": 1e-320}, {"BUNIT": "1e9 MJy"}]
    )
    def test_absurd_sizes(self, njy, cards):
        with pytest.raises(TileError, match="no scale of an image"):
            njy(**cards)

    def test_absurd_sizes_from_run_toml(self, njy):
        for magnitude in (49.5, -9.5, 46.6):  # of what run.toml takes
            with pytest.raises(TileError, match=r"\[survey\] zero_point_mag makes one image unit"):
                njy({"zero_point_mag": magnitude})

    def test_in_hdf5(self, tmp_path, read_tiles):
        path = tmp_path / "some.hdf5"
        for value in (-99.0, 0.0, "27", True):
            with h5py.File(path, "w") as file:
                file["image"] = np.ones((1, 5, 8, 8), np.float32)
                file["object_id"], file["ra"], file["dec"] = [1], [150.0], [2.0]
                file.attrs["zero_point_mag"] = value
            with pytest.raises(TileError, match="is no zero point"):
                read_tiles(path, layout="galaxiesml")
        with h5py.File(path, "a") as file:
            file.attrs["zero_point_mag"] = np.float32(27.0)
        assert read_tiles(path, layout="galaxiesml")[0].njy_per_unit == pytest.approx(57.54399, rel=1e-6)


class TestPerSecond:
    @pytest.mark.parametrize("exposure", ["EXPTIME", "EXP_TIME", "EXPOSURE"])
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_the_comment_says_so(self, njy, exposure, layout):
        zero_point = (25.0, "[mag] Magnitude zero point per sec")
        right = njy_per_unit(25.0 + 2.5 * math.log10(40.0))
        assert njy(MAGZPT=zero_point, layout=layout, **{exposure: 40.0}) == pytest.approx(right, rel=1e-12)

    def test_counts_that_are_per_second_themselves(self, njy):
        assert njy(MAGZPT=(25.0, "per second"), EXPTIME=40.0, BUNIT="adu/s") == pytest.approx(
            njy_per_unit(25.0)
        )

    def test_without_exposure_time(self, njy):
        with pytest.raises(TileError, match=r"MAGZPT = 25 is that of one second.*EXPTIME"):
            njy(MAGZPT=(25.0, "per sec"))

    def test_the_user_s_zero_point_goes_before_it(self, njy):
        stated = {"zero_point_mag": 27.0}
        assert njy(stated, MAGZPT=(25.0, "per sec"), EXPTIME=40.0) == pytest.approx(57.54399, rel=1e-6)

    def test_magnitudes_per_second_of_des_are_no_magnitudes_per_second(self, njy):
        card = (30.0, "Mag Zero-point in magnitudes/s")
        assert njy(MAGZERO=card, EXPTIME=450.0) == pytest.approx(njy_per_unit(30.0), rel=1e-12)


class TestVega:
    @pytest.mark.parametrize(
        ("cards", "zero_point"),
        [
            ({"MAGZP": 20.0, "DATASET": "2MASS", "BAND": "J"}, 20.91),
            ({"MAGZP": 20.0, "ORIGIN": "2MASS", "BAND": "H"}, 21.39),
            ({"MAGZP": 20.0, "ORIGIN": "2MASS", "BAND": "Ks"}, 21.85),
            ({"MAGZP": (22.5, "in Vega mag"), "BAND": (2, "WISE band")}, 25.839),
            ({"MAGZP": 20.5, "TELESCOP": "WISE", "BAND": 1}, 23.199),
            (
                {"MAGZPT": 23.0, "EXTINCT": 0.05, "EXPTIME": 10.0, "TELESCOP": "ESO-VISTA", "BAND": "Ks"},
                27.327,
            ),
            (
                {"MAGZPT": 24.0, "EXTINCT": 0.05, "EXP_TIME": 10.0, "AMSTART": 1.1, "AMEND": 1.3}
                | {"TELESCOP": "UKIRT", "BAND": "J"},
                24.0 + 2.5 - 0.05 * 0.2 + 0.938,
            ),
        ],
    )
    def test_documented_offsets(self, njy, cards, zero_point):
        assert njy(**cards) == pytest.approx(njy_per_unit(zero_point), rel=1e-9)

    @pytest.mark.parametrize(
        "cards",
        [
            {"MAGZERO": (25.0, "zero point, Vega")},
            {"MAGZERO": 25.0, "MAGSYS": "VEGAMAG"},
            {"MAGZERO": 25.0, "PHOTSYS": "Vega"},
            {"MAGZERO": 25.0, "MAGSYS": "STmag"},
            {"MAGZPT": 25.0, "EXTINCT": 0.1, "EXPTIME": 1.0, "TELESCOP": "INT"},
        ],
    )
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_refused_unless_an_offset_is_stated(self, njy, layout, cards):
        with pytest.raises(TileError, match=r"another magnitude system.*vega_to_ab_mag = \{g = "):
            njy(layout=layout, **cards)
        stated = {"vega_to_ab_mag": {"g": -0.1}}
        assert njy(stated, layout=layout, **cards) == pytest.approx(njy_per_unit(24.9), rel=1e-9)
        assert njy({"zero_point_mag": 27.0}, layout=layout, **cards) == pytest.approx(57.54399, rel=1e-6)

    def test_a_card_that_says_ab(self, njy):
        assert njy(MAGZERO=(25.0, "AB mag"), MAGSYS="AB") == pytest.approx(njy_per_unit(25.0))


class TestHst:
    CARDS: ClassVar = {
        "PHOTFLAM": 3.03865739999999e-20,
        "PHOTPLAM": 10551.04700000001,
    }  # WFC3 F105W: AB 26.2688
    ZERO_POINT = 26.26882

    @pytest.mark.parametrize("unit", ["ELECTRONS/S", "electron / s", "counts/s", "cps"])
    def test_counts_per_second(self, njy, unit):
        assert njy(BUNIT=unit, EXPTIME=100.0, **self.CARDS) == pytest.approx(
            njy_per_unit(self.ZERO_POINT), rel=1e-5
        )

    def test_counts(self, njy):
        right = njy_per_unit(self.ZERO_POINT + 5.0)
        assert njy(BUNIT="ELECTRONS", EXPTIME=100.0, **self.CARDS) == pytest.approx(right, rel=1e-5)

    def test_an_unknown_unit(self, njy):
        with pytest.raises(TileError, match=r"PHOTFLAM = .*BUNIT is 'missing'"):
            njy(**self.CARDS)
        with pytest.raises(TileError, match=r"PHOTFLAM = 0\.0"):
            njy(BUNIT="ELECTRONS/S", PHOTFLAM=0.0, PHOTPLAM=6000.0)

    @pytest.mark.parametrize(
        ("unit", "right"),
        [("DN/S", 2.27e-6 * 1e9), ("COUNTS/S", 2.27e-6 * 1e9), ("ELECTRONS", 2.27e-6 * 1e9 / 100.0)],
    )
    def test_photfnu(self, njy, unit, right):
        """Jy of one count per second, as NICMOS writes it."""
        assert njy(BUNIT=unit, EXPTIME=100.0, PHOTFNU=2.27e-6) == pytest.approx(right, rel=1e-9)

    def test_photflam_goes_before_photfnu(self, njy):
        found = njy(BUNIT="ELECTRONS/S", PHOTFNU=1.0, **self.CARDS)
        assert found == pytest.approx(njy_per_unit(self.ZERO_POINT), rel=1e-5)

    def test_photfnu_that_says_nothing(self, njy):
        with pytest.raises(
            TileError, match=r"PHOTFNU = 2\.27e-06 are for electrons or counts .*BUNIT is 'missing'"
        ):
            njy(PHOTFNU=2.27e-6)
        with pytest.raises(TileError, match=r"PHOTFNU = 0\.0 is no sensitivity"):
            njy(BUNIT="DN/S", PHOTFNU=0.0)
        with pytest.raises(TileError, match=r"PHOTFNU = 2\.27e-06 are per second, and no card EXPTIME"):
            njy(BUNIT="DN", PHOTFNU=2.27e-6)


class TestAsinh:
    ZP, EXPOSURE, OFFSET, SOFTENING = 25.0, 1000.0, 50.0, 2000.0

    def write(self, path, tan, linear, **changes):
        stored = 2.5 / np.log(10) * np.arcsinh((linear - self.OFFSET) / (2 * self.SOFTENING))
        header = tan(crpix=(33, 33))
        cards = {
            "BOFFSET": self.OFFSET,
            "BSOFTEN": self.SOFTENING,
            "EXPTIME": self.EXPOSURE,
            "HIERARCH FPA.ZP": self.ZP,
        }
        header.update({key: value for key, value in (cards | changes).items() if value is not None})
        fits.PrimaryHDU(stored.astype(np.float32), header=header).writeto(path, overwrite=True)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_linear_again(self, tmp_path, tan, read_tiles, objects, cut, layout):
        y, x = np.indices((65, 65))
        linear = 3e5 * np.exp(-((x - 32) ** 2 + (y - 32) ** 2) / 18.0) - 20.0
        self.write(tmp_path / "stack_g.fits", tan, linear)
        tiles = read_tiles(tmp_path, layout=layout)
        block = cut(objects(150.0, 2.0), tiles, size=31)
        right = linear[17:48, 17:48] * njy_per_unit(self.ZP + 2.5 * math.log10(self.EXPOSURE))
        np.testing.assert_allclose(block.image[0, 0], right, rtol=3e-6, atol=1e-6 * right.max())

    def test_the_weight_by_its_own_cards(self, tmp_path, tan, read_tiles, objects, cut):
        self.write(tmp_path / "stack_g.fits", tan, np.full((65, 65), 10.0))
        self.write(tmp_path / "stack_g.wt.fits", tan, np.full((65, 65), 400.0))
        generic = {"pattern": r"_(?P<band>g)\.", "weight_replace": (".fits", ".wt.fits")}
        image = tmp_path / "stack_g.fits"
        block = cut(objects(150.0, 2.0), read_tiles(image, layout="generic", generic=generic), size=5)
        scale = njy_per_unit(self.ZP + 7.5)
        np.testing.assert_allclose(block.variance, 400.0 * scale**2, rtol=1e-5)

    @pytest.mark.parametrize(
        "changes", [{"BOFFSET": None}, {"BSOFTEN": None}, {"BSOFTEN": 0.0}, {"BOFFSET": "x"}]
    )
    def test_half_a_statement(self, tmp_path, tan, read_tiles, changes):
        self.write(tmp_path / "stack_g.fits", tan, np.ones((65, 65)), **changes)
        with pytest.raises(TileError, match="BOFFSET and BSOFTEN are needed"):
            read_tiles(tmp_path, layout="stamps")


class TestPhotoCalibThatVaries:
    """As afw writes it: a ChebyshevBoundedField on the bounding box of the exposure, that has nJy per unit."""

    BOX = (100, 200, 179, 289)  # min_x, min_y, max_x, max_y
    COEFFICIENTS = np.array(
        [[2.0, 0.3, -0.05], [0.1, 0.02, 0.0], [0.04, 0.0, 0.0]]
    )  # (order in y, order in x)

    def write(self, path, tan, image, *, name="ChebyshevBoundedField", ltv=(-100, -200)):
        primary = fits.PrimaryHDU()
        primary.header.update({"AR_HDU": 5, "HIERARCH ARCHIVE_ID_PHOTOCALIB": 7})
        header = tan(crpix=(40, 45))
        header.update({"LTV1": ltv[0], "LTV2": ltv[1]})
        planes = [image.astype(np.float32), np.zeros(image.shape, np.int32), np.ones(image.shape, np.float32)]
        index = np.array(
            [(7, 1, 0, 0, 1, "PhotoCalib", "a"), (9, 2, 0, 0, 1, name, "b")],
            dtype=[
                *((key, "i4") for key in ("id", "cat.archive", "cat.persistable", "row0", "nrows")),
                *((key, "S64") for key in ("name", "module")),
            ],
        )
        calib = [
            fits.Column("flags", "1X", array=np.array([[False]])),
            fits.Column("calibrationMean", "D", array=[2.0]),
            fits.Column("field", "J", array=[9]),
            fits.Column("version", "J", array=[1]),
        ]
        keys = ("order_x", "bbox_min_x", "bbox_min_y", "bbox_max_x", "bbox_max_y")
        columns = [fits.Column(k, "J", array=[v]) for k, v in zip(keys, (2, *self.BOX), strict=True)]
        columns.append(fits.Column("coefficients", "9D", array=self.COEFFICIENTS.reshape(1, 9)))
        tables = [fits.BinTableHDU(index), *map(fits.BinTableHDU.from_columns, (calib, columns))]
        hdus = [primary, *(fits.ImageHDU(plane, header=header) for plane in planes), *tables]
        fits.HDUList(hdus).writeto(path)

    def right(self, x, y):
        """afw's ChebyshevBoundedField: the box counts pixels, so its edges are half a pixel further."""
        u = (2 * x - (99.5 + 179.5)) / 80.0
        v = (2 * y - (199.5 + 289.5)) / 90.0
        return np.polynomial.chebyshev.chebval2d(v, u, self.COEFFICIENTS)

    @pytest.mark.parametrize("layout", ["hsc", "stamps"])
    @pytest.mark.parametrize("first", [(100, 200), (110, 215)])
    def test_pixels_and_variance(self, tmp_path, tan, read_tiles, objects, cut, layout, first):
        image = np.random.default_rng(1).normal(size=(290 - first[1], 180 - first[0]))
        path = tmp_path / "calexp-HSC-G-9813-4,4.fits"
        self.write(path, tan, image, ltv=(-first[0], -first[1]))
        options = {"stamps": {"band": "g"}} if layout == "stamps" else {}
        bands = ("g",)
        tiles = read_tiles(path, layout=layout, bands=bands, **options)
        block = cut(objects(150.0, 2.0), tiles, size=21, bands=bands)
        y, x = np.mgrid[34:55, 29:50]
        factor = self.right(x + first[0], y + first[1])
        np.testing.assert_allclose(block.image[0, 0], image[34:55, 29:50] * factor, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(block.variance[0, 0], factor**2, rtol=1e-5)

    def test_a_product_of_fields(self, tmp_path, tan, read_tiles, objects, cut):
        """afw's ProductBoundedField: the ids of its factors, one a row; here the polynomial and itself."""
        image = np.random.default_rng(1).normal(size=(90, 80))
        path = tmp_path / "calexp-HSC-G-9813-4,4.fits"
        self.write(path, tan, image)
        with fits.open(path) as hdus:
            index = hdus[4].data.copy()
            product = np.array([(9, 3, 0, 1, 2, "ProductBoundedField", "c")], index.dtype)
            index["id"][1] = 11
            factors = fits.BinTableHDU(np.array([(99,), (11,), (11,)], dtype=[("id", "i4")]))
            index = fits.BinTableHDU(np.concatenate([index, product]))
            fits.HDUList([*hdus[:4], index, *hdus[5:], factors]).writeto(tmp_path / "product.fits")
        (tmp_path / "product.fits").rename(path)
        block = cut(objects(150.0, 2.0), read_tiles(path), size=21)
        y, x = np.mgrid[34:55, 29:50]
        factor = self.right(x + 100, y + 200) ** 2
        np.testing.assert_allclose(block.image[0, 0], image[34:55, 29:50] * factor, rtol=1e-5, atol=1e-6)

    def test_a_product_of_itself_ends(self, tmp_path, tan, read_tiles):
        path = tmp_path / "calexp-HSC-G-9813-4,4.fits"
        self.write(path, tan, np.ones((90, 80)), name="ProductBoundedField")
        with fits.open(path) as hdus:
            itself = fits.BinTableHDU(np.array([(9,)], dtype=[("id", "i4")]))
            fits.HDUList([*hdus[:6], itself]).writeto(tmp_path / "itself.fits")
        (tmp_path / "itself.fits").rename(path)
        with pytest.raises(TileError, match=r"cannot be applied .*this is a ProductBoundedField"):
            read_tiles(path)

    def test_another_field_is_refused_by_name(self, tmp_path, tan, read_tiles):
        path = tmp_path / "calexp-HSC-G-9813-4,4.fits"
        self.write(path, tan, np.ones((90, 80)), name="PixelAreaBoundedField")
        with pytest.raises(
            TileError,
            match=r"varies over the image by the PixelAreaBoundedField.*calibrateImage",
        ):
            read_tiles(path)


class TestRoman:
    def test_asdf_is_refused_by_name(self, tmp_path, read_tiles):
        path = tmp_path / "r0000101_wfi01_cal.asdf"
        path.write_bytes(b"#ASDF 1.0.0\n#ASDF_STANDARD 1.6.0\n%YAML 1.1\n")
        with pytest.raises(TileError, match="Roman's ASDF files are not read"):
            read_tiles(path, layout="generic")
        for tiles in (tmp_path, f"{tmp_path}/*"):
            with pytest.raises(
                TileError, match=r"Roman's ASDF files are not read \(1 are there, such as .*cal\.asdf\)"
            ):
                read_tiles(tiles, layout="generic")
        path = path.rename(path.with_suffix(".fits"))
        with pytest.raises(TileError, match="is an ASDF file"):
            read_tiles(path, layout="generic")


class TestRealFiles:
    @pytest.fixture
    def by_survey(self, realdata):
        folder = realdata / "by_survey"
        if not folder.is_dir():
            pytest.skip(f"there are no files in {folder}")
        return folder

    @pytest.fixture
    def read(self, read_tiles):
        def run(path, band, layout="stamps", **survey):
            return read_tiles(path, layout=layout, bands=(band,), **survey)[0].njy_per_unit

        return run

    @pytest.mark.parametrize("layout", ["stamps", "generic", "lsst"])
    def test_the_photocalib_of_an_exposure_goes_before_its_magzero(self, by_survey, tmp_path, read, layout):
        path = tmp_path / "deepCoadd/i/1/2,2.fits"
        path.parent.mkdir(parents=True)
        path.write_bytes(gzip.decompress((by_survey / "hsc_calexp_ccd/calexp.fits.gz").read_bytes()))
        options = {"stamps": {"band": "i"}} if layout == "stamps" else {}
        if layout != "lsst":
            path = shutil.copy(path, tmp_path / "cutout_i.fits")
            options = {"generic": {"pattern": r"_(?P<band>i)\.fits"}} if layout == "generic" else options
        assert read(path, "i", layout, **options) == pytest.approx(1.9940875, rel=1e-7)

    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize(
        ("name", "band", "right"),
        [
            ("ukidss_wsa/image.fits", "K", 15.1405),
            ("2mass/2MASS_j.fits.gz", "J", njy_per_unit(21.8144)),
            ("2mass/2MASS_h.fits.gz", "H", njy_per_unit(21.8771)),
            ("2mass/2MASS_k.fits.gz", "K", njy_per_unit(21.8257)),
            ("hst_frontier_drz/abell_2744_dwarf_galaxy_f105w.fits.gz", "F105W", njy_per_unit(26.26882)),
            ("decam_cp/decam-520206-S16-image-sub.fits", "z", 2.83156),
        ],
    )
    # Numbers of 3631 Jy for magnitude 0, against 31.4 for nJy here: 6e-5 apart.
    def test_the_readme_s_numbers(self, by_survey, tmp_path, read, layout, name, band, right):
        path, options = by_survey / name, {}
        if layout == "stamps":  # a name that says no band
            path = shutil.copy(path, tmp_path / f"image{name[name.index('.fits') :]}")
            options = {"stamps": {"band": band}}
        else:
            options = {"generic": {"pattern": f"(?P<tile>{name.split('/')[-1].split('.')[0]})"}}
        assert read(path, band, layout, **options) == pytest.approx(right, rel=1e-4)

    def test_unwise_and_a_warp_of_pan_starrs(self, by_survey, read):
        unwise = by_survey / "unwise/unwise-3460p121-w1-img-m.fits"
        generic = {"generic": {"pattern": "-(?P<band>w1)-"}}
        assert read(unwise, "w1", "generic", **generic) == pytest.approx(302.2917, rel=1e-4)
        (warp,) = (by_survey / "ps1_warp").glob("*_sci.fits")
        generic = {"generic": {"pattern": "_(?P<band>z)_sci"}}
        assert read(warp, "z", "generic", **generic) == pytest.approx(njy_per_unit(28.01025), rel=1e-5)

    def test_cutouts_of_hsc_whose_archive_is_cut_off(self, by_survey, read):
        (path,) = (by_survey / "hsc_cutout_service").glob("*_i.fits")
        assert read(path, "i") == pytest.approx(57.54399, rel=1e-6)
        old = by_survey / "suprimecam_old_afw/act-img.fits"
        generic = {"generic": {"image": 1}}
        assert read(old, "i", "generic", **generic) == pytest.approx(0.155187, rel=1e-4)
