"""Pixels without data, in every way in which surveys write them: each becomes NaN, is counted, and is flagged."""

from __future__ import annotations

import io

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from galbatch.core.flags import PixelFlag
from galbatch.ingest.headers import Planes, make_tile
from galbatch.ingest.pixels import Box, TileReader, no_data, open_fits, quiet_astropy
from galbatch.storage import FileAccessLog

SHAPE = (120, 140)
WITHOUT = PixelFlag.OUTSIDE_FOOTPRINT | PixelFlag.MISSING_BAND
HOLE = np.zeros(SHAPE, np.bool_)
HOLE[30:95, 50:115] = True
INSIDE, BESIDE = (82, 62), (50, 62)  # x, y: the middle of the hole, and its edge


def noise(seed=1, *, scale=1.0):
    return np.random.default_rng(seed).normal(scale=scale, size=SHAPE).astype(np.float32)


@pytest.fixture
def cut_at(tmp_path, tan, read_tiles, objects, cut):
    """Write an image in nJy, and a weight, and cut 31 px about a pixel (x, y): copied at 0.168 arcsec, else resampled."""

    def run(image, weight=None, *, kind="variance", at=INSIDE, scale=0.168, cards=None, **generic):
        header = tan(crpix=(70, 60))
        header["BUNIT"] = "nJy"
        first = fits.PrimaryHDU(image, header=header)
        first.header.update(cards or {})
        hdus = [first]
        if weight is not None:
            hdus.append(fits.ImageHDU(weight, name="WEIGHT"))
            generic |= {"weight": "WEIGHT", "weight_kind": kind}
        fits.HDUList(hdus).writeto(tmp_path / "image.fits", overwrite=True)
        tiles = read_tiles(tmp_path / "image.fits", layout="generic", generic=generic)
        return cut(objects(*WCS(header).all_pix2world(*at, 0)), tiles, size=31, scale=scale)

    return run


def expect_hole(cut_at, *arguments, **options):
    """In the hole nothing is left; a cutout across its edge has just the pixels beside it, copied or resampled."""
    block = cut_at(*arguments, at=INSIDE, **options)
    assert np.isnan(block.image).all()
    assert np.isnan(block.variance).all()
    assert block.coverage[0, 0] == 0
    assert block.flags[0] == WITHOUT
    block = cut_at(*arguments, at=BESIDE, **options)
    missing = np.isnan(block.image[0, 0])
    # The cutout's first pixel is (35, 47) of the tile.
    np.testing.assert_array_equal(missing, HOLE[47:78, 35:66])
    assert block.coverage[0, 0] == np.float32(1 - missing.mean())
    assert np.isnan(block.variance[0, 0][missing]).all()
    assert block.flags[0] & PixelFlag.PARTIAL_COVERAGE
    block = cut_at(*arguments, at=BESIDE, scale=0.15, **options)
    assert block.flags[0] & PixelFlag.RESAMPLED
    assert block.flags[0] & PixelFlag.PARTIAL_COVERAGE
    columns = np.isfinite(block.image[0, 0]).any(axis=0)
    # The kernel about x reaches to floor(x) + 3: up to x = 47 it is beside the hole.
    x = 50 + (np.arange(31) - 15) * 0.15 / 0.168
    np.testing.assert_array_equal(columns, x < 47)


@pytest.mark.parametrize("value", [0.0, -99.0, 1.0, 65535.0, np.nan, np.inf, -np.inf, 1e30, -1e30, 1e20])
def test_an_area_of_one_value_in_an_image_alone(cut_at, value):
    image = noise()
    image[HOLE] = value
    expect_hole(cut_at, image)


@pytest.mark.parametrize(
    ("kind", "good", "value"),
    [
        *(("variance", 2.0, value) for value in (0.0, -1.0, np.nan, np.inf, 1e30, 3.4e38)),
        *(("standard_deviation", 2.0, value) for value in (0.0, -2.0, np.nan, np.inf, 1e15, 1e30)),
        *(("inverse_variance", 2.0, value) for value in (0.0, -1.0, np.nan, np.inf, 1e-30)),
        *(("coverage", 2.0, value) for value in (0.0, -1.0, np.nan)),
    ],
)
def test_a_weight_that_says_nothing_was_measured(cut_at, kind, good, value):
    """The image has noise everywhere: the weight alone tells."""
    weight = np.full(SHAPE, good, np.float32)
    weight[HOLE] = value
    expect_hole(cut_at, noise(), weight, kind=kind)


@pytest.mark.parametrize("dtype", [">i2", ">i4", "u1"])
def test_exposures_are_counted_in_integers(cut_at, dtype):
    expect_hole(cut_at, noise(), np.where(HOLE, 0, 7).astype(dtype), kind="coverage")


def test_a_coverage_says_nothing_of_the_noise(cut_at):
    block = cut_at(noise(), np.full(SHAPE, 3.0, np.float32), kind="coverage")
    assert np.isnan(block.variance).all()
    assert block.coverage[0, 0] == 1
    assert block.sky_sigma_njy[0, 0] == pytest.approx(1.0, rel=0.2)


@pytest.mark.parametrize("value", [np.inf, np.nan, 1e30, -1e30, -9999.0, -32768.0, -2147483648.0, 1e20])
def test_single_pixels(cut_at, value):
    image = noise()
    image[60, 80] = value
    block = cut_at(image)
    assert np.argwhere(np.isnan(block.image[0, 0])).tolist() == [[13, 13]]
    assert block.coverage[0, 0] == np.float32(1 - 1 / 31**2)
    assert block.flags[0] & PixelFlag.PARTIAL_COVERAGE


def test_doubles_beyond_a_float(cut_at):
    image = noise().astype(np.float64)
    image[60, 80], image[61, 81] = 1e300, -1.7e308
    assert np.isnan(cut_at(image).image).sum() == 2


@pytest.mark.parametrize(
    ("dtype", "cards", "stored"),
    [
        (">i2", {}, -32768),
        (">i4", {}, -2147483648),
        (">i2", {"BSCALE": 0.01, "BZERO": 200.0}, -32768),
        (">i2", {"BLANK": -999}, -999),
        (">i4", {"BLANK": 7777, "BSCALE": 0.5}, 7777),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_integers(tmp_path, tan, read_tiles, dtype, cards, stored, packed):
    """By BLANK, or the lowest integer where BLANK was forgotten."""
    image = np.random.default_rng(2).normal(scale=30.0, size=SHAPE).astype(dtype)
    image[60, 80:83] = stored
    header = tan(crpix=(70, 60))
    hdu = (
        fits.CompImageHDU(image, header, compression_type="RICE_1")
        if packed
        else fits.ImageHDU(image, header)
    )
    hdu.header.update(cards | {"BUNIT": "nJy"})
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "image.fits")
    (tile,) = read_tiles(tmp_path / "image.fits", layout="generic")
    with TileReader() as reader:
        found = reader.read(tile, Box(50, 90, 60, 100)).image
    assert np.argwhere(np.isnan(found)).tolist() == [[10, 20], [10, 21], [10, 22]]
    expected = image[50:90, 60:100] * cards.get("BSCALE", 1.0) + cards.get("BZERO", 0.0)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)


def test_zblank_of_a_quantized_image(tmp_path, tan, read_tiles):
    image = noise()
    image[60, 80:83] = np.nan
    hdu = fits.CompImageHDU(image, tan(crpix=(70, 60)), compression_type="RICE_1", quantize_level=16)
    hdu.header["BUNIT"] = "nJy"
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "image.fits")
    with fits.open(tmp_path / "image.fits", disable_image_compression=True) as hdus:
        assert "ZBLANK" in hdus[1].columns.names or "ZBLANK" in hdus[1].header
    (tile,) = read_tiles(tmp_path / "image.fits", layout="generic")
    with TileReader() as reader:
        assert np.argwhere(np.isnan(reader.read(tile, Box(60, 61, 70, 90)).image)).tolist() == [
            [0, 10],
            [0, 11],
            [0, 12],
        ]


def test_the_faintest_pixel_of_an_image_stretched_over_all_integers_is_data(cut_at):
    """IRAF's and cfitsio's scaling gives the lowest integer to it."""
    image = noise()
    step = float(np.ptp(image)) / 65535
    stored = np.round((image - image.min()) / step - 32768).astype(">i2")
    y, x = np.unravel_index(np.argmin(image), SHAPE)
    assert stored[y, x] == -32768
    at = int(np.clip(x, 16, 123)), int(np.clip(y, 16, 103))
    block = cut_at(stored, at=at, cards={"BSCALE": step, "BZERO": float(image.min()) + 32768 * step})
    assert np.isfinite(block.image).all()


def test_weights_of_zero_that_compression_has_moved(cut_at):
    """DECam's weights come back as -0.4e-6 to 0.4e-6 where they were 0, of 5e-4 elsewhere."""
    rng = np.random.default_rng(5)
    weight = np.where(HOLE, rng.uniform(-4e-7, 4e-7, SHAPE), 5e-4).astype(np.float32)
    expect_hole(cut_at, noise(), weight, kind="inverse_variance")


def test_low_weights_beside_a_sentinel_are_weights(cut_at):
    weight = np.where(HOLE, 0.02, 5.0).astype(np.float32)
    weight[0, 0], weight[62, 70] = -1.0, -1.0
    block = cut_at(noise(), weight, kind="inverse_variance")
    assert np.isnan(block.image[0, 0]).sum() == 1


def test_an_object_on_nothing_but_zeros_is_flagged(cut_at):
    block = cut_at(np.zeros(SHAPE, np.float32))
    assert block.flags[0] == WITHOUT
    block = cut_at(np.zeros(SHAPE, np.float32), scale=0.25)
    assert block.flags[0] == WITHOUT


def test_a_hole_is_filled_from_another_tile(tmp_path, tan, read_tiles, objects, cut):
    header = tan(crpix=(70, 60))
    first, second = noise(1), noise(2)
    first[HOLE] = 0.0
    for name, image in (("a", first), ("b", second)):
        header["BUNIT"] = "nJy"
        fits.PrimaryHDU(image, header).writeto(tmp_path / f"{name}.fits")
    block = cut(
        objects(*WCS(header).all_pix2world(*BESIDE, 0)), read_tiles(tmp_path, layout="generic"), size=31
    )
    np.testing.assert_array_equal(block.image[0, 0], np.where(HOLE, second, first)[47:78, 35:66])
    assert block.flags[0] & PixelFlag.MOSAICKED


# --- areas of one value ------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 3, 7, 8, 20])
@pytest.mark.parametrize("edge", ["left", "right", "top", "bottom"])
def test_a_cutout_that_reaches_a_little_into_the_padding(cut_at, width, edge):
    """What is padding does not depend on where a cutout ends."""
    image, padded = noise(), np.zeros(SHAPE, np.bool_)
    lines = {
        "left": np.s_[:, 20 : 47 + width - 1],
        "right": np.s_[:, 76 - width + 1 : 110],
        "bottom": np.s_[10 : 47 + width - 1],
        "top": np.s_[76 - width + 1 : 110],
    }
    padded[lines[edge]] = True
    image[padded] = 0.0
    block = cut_at(image, at=(61, 61))
    np.testing.assert_array_equal(np.isnan(block.image[0, 0]), padded[46:77, 46:77])


def test_gaps_between_detectors_at_an_angle(cut_at):
    y, x = np.indices(SHAPE)
    gap = np.abs(0.6 * (x - 82) + 0.8 * (y - 62)) < 9
    image = noise()
    image[gap] = 0.0
    missing = np.isnan(cut_at(image).image[0, 0])
    expected = gap[47:78, 67:98]
    assert not missing[~expected].any()
    # All but the steps of its edges, which no square of 8 px fits into.
    assert missing[expected].mean() > 0.95


def test_small_areas_of_one_value_are_data(cut_at):
    """7 px of zeros may be a coincidence of a coarse image; 15 px of another number a saturated core."""
    image = noise()
    image[40:47, 70:77], image[70:85, 85:100] = 0.0, 3000.0
    assert np.isfinite(cut_at(image, at=(84, 62)).image).all()


def test_a_tile_of_one_negative_number_is_padding(cut_at):
    for scale in (0.168, 0.25):
        assert cut_at(np.full(SHAPE, -99.0, np.float32), scale=scale).flags[0] == WITHOUT


@pytest.mark.parametrize("compressed", [False, True])
def test_padding_beyond_the_window_is_seen_on_s3(serve, tan, read_tiles, objects, cut, compressed):
    """Windows are fetched before they are read; what lies beside them is fetched when an area is cut by their edge."""
    put, _ = serve
    image = noise()
    image[:, 20:50] = 0.0
    header = tan(crpix=(70, 60))
    header["BUNIT"] = "nJy"
    hdu = fits.ImageHDU(image, header)
    if compressed:
        hdu = fits.CompImageHDU(image, header, compression_type="GZIP_2", quantize_level=0.0)
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(file)
    tiles = read_tiles(put("image.fits", file.getvalue()), layout="generic")
    block = cut(objects(*WCS(header).all_pix2world(62, 61, 0)), tiles, size=31)
    # The cutout begins at column 47: three columns of the padding, which is seen to be wider.
    np.testing.assert_array_equal(np.isnan(block.image[0, 0]), np.arange(47, 78) < 50 + np.zeros((31, 1)))


def test_a_flat_simulation_keeps_its_brightness(cut_at):
    for scale in (0.168, 0.25):
        assert np.isfinite(cut_at(np.full(SHAPE, 3.0, np.float32), scale=scale).image).all()


def source(sigma_px):
    y, x = np.indices(SHAPE)
    return 100 * np.exp(-0.5 * ((x - 82) ** 2 + (y - 62) ** 2) / sigma_px**2)


@pytest.mark.parametrize("scale", [0.168, 0.2])
def test_a_source_without_noise_that_fades_into_its_sky(cut_at, scale):
    """A Gaussian of 0.9 px is 0 in float32 beyond 13 px."""
    image = source(0.9).astype(np.float32)
    assert (image[:48] == 0).all()
    block = cut_at(image, scale=scale)
    assert np.isfinite(block.image).all()
    assert block.coverage[0, 0] == 1


@pytest.mark.parametrize("sky", [0.0, 1000.0])
def test_skies_without_noise(sky):
    """On 1000, light of 3e-5 is lost."""
    image = (source(1.5) + sky).astype(np.float32)
    assert (image[:20, :40] == sky).all()
    assert not no_data.constant_areas(image).any()


def test_a_source_without_noise_that_is_cut_off_keeps_its_light(cut_at):
    image = source(3.0)
    image[image < 0.01] = 0.0
    block = cut_at(image.astype(np.float32))
    assert np.nansum(block.image) == pytest.approx(image.sum(), rel=1e-7)
    assert block.flags[0] & PixelFlag.PARTIAL_COVERAGE


def test_an_impossible_pixel_does_not_make_noise_fade(cut_at):
    image = noise()
    image[HOLE] = 0.0
    image[60, 46] = 1e30
    missing = np.isnan(cut_at(image, at=BESIDE).image[0, 0])
    expected = HOLE[47:78, 35:66].copy()
    expected[13, 11] = True
    np.testing.assert_array_equal(missing, expected)


@pytest.mark.parametrize("mean", [0.003, 0.02, 0.3, 3.0])
def test_a_sky_of_few_photons_is_data(cut_at, mean):
    """Counts that are mostly 0, as in the ultraviolet: the zeros are measurements."""
    counts = np.random.default_rng(6).poisson(mean, SHAPE).astype(np.float32)
    for at in ((30, 30), (70, 60), (100, 80)):
        block = cut_at(counts, at=at)
        if np.count_nonzero(counts[at[1] - 15 : at[1] + 16, at[0] - 15 : at[0] + 16]) > 3:
            assert np.isfinite(block.image).all()
        assert block.flags[0] & (WITHOUT | PixelFlag.LOW_SNR | PixelFlag.PARTIAL_COVERAGE) or mean == 3.0


@pytest.mark.parametrize("sigma", [0.3, 0.5, 1.0])
def test_coarsely_quantized_noise_is_data(cut_at, sigma):
    image = np.round(noise(7, scale=sigma))
    for at in ((30, 30), (70, 60), (100, 80)):
        assert np.isfinite(cut_at(image, at=at).image).all()


def test_padding_beside_quantized_noise_is_found(cut_at):
    image = np.round(noise(8, scale=1.0))
    image[HOLE] = 0.0
    missing = np.isnan(cut_at(image, at=BESIDE).image[0, 0])
    hole = HOLE[47:78, 35:66]
    assert missing[hole].all()
    # Zeros of the noise that touch the padding go with it.
    assert missing[~hole].mean() < 0.02


def test_constant_areas_equal_a_slow_search():
    rng = np.random.default_rng(9)
    for _ in range(20):
        image = rng.normal(size=(37, 41))
        for _ in range(3):
            y, x, height, width = rng.integers(0, [30, 34, 24, 24])
            image[y : y + height, x : x + width] = rng.choice([0.0, 5.0])
        expected = np.zeros(image.shape, np.bool_)
        for value, side in ((0.0, 8), (5.0, 16)):
            for y in range(37 - side + 1):
                for x in range(41 - side + 1):
                    if (image[y : y + side, x : x + side] == value).all():
                        expected[y : y + side, x : x + side] = True
        np.testing.assert_array_equal(no_data.constant_areas(image), expected)
        if expected.any():
            assert no_data.maybe_constant(image.astype(np.float32))


# --- files of surveys --------------------------------------------------------------------------------------

WHOLE = {
    "decals_dr9/cutout_59.1067_-30.4848.fits": (1, {"weight": 2, "weight_kind": "inverse_variance"}),
    "des_griz/DES_i.fits": (0, {"weight": 1, "weight_kind": "inverse_variance"}),
    "ps1_griz/PS1_z.fits": (0, {}),
    "sdss_bad_wcs/SDSS_g.fits": (0, {}),  # quantized: 4 % of neighbors are equal
    "by_survey/2mass/2MASS_j.fits.gz": (0, {}),  # 16 bit integers, a saturated core
    "by_survey/ukidss_wsa/image.fits": (1, {}),  # scaled 32 bit integers
    "by_survey/viking/mystery_VIKING_Z.fits": (0, {}),
    "by_survey/hst_frontier_drz/abell_2744_dwarf_galaxy_f105w.fits.gz": (0, {}),
    "by_survey/suprimecam_old_afw/act-img.fits": (1, {"weight": 3}),  # BLANK on floats, which says nothing
    "by_survey/unwise/unwise-3460p121-w1-img-m.fits": (0, {}),
    "by_survey/spitzer_galactic/spitzer_glon_car_120px.fits": (0, {}),
}


def tile_of(path, image, **planes):
    """A tile of 1 nJy a count, straight from the file's HDUs."""
    with open_fits(str(path), FileAccessLog()) as hdus:
        hdus[image].header.update(
            {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"}
        )  # whichever: no position is asked for
        return make_tile(
            hdus, str(path), key=("a", "g"), planes=Planes(image, **planes), njy=1.0, psf_fwhm_arcsec=1.0
        )


def read_whole(tile):
    with TileReader() as reader:
        return reader.read(tile, Box(0, tile.shape_px[0], 0, tile.shape_px[1]))


class TestRealFiles:
    @pytest.mark.parametrize("name", WHOLE)
    def test_images_without_holes_lose_no_pixel(self, realdata, name):
        image, planes = WHOLE[name]
        found = read_whole(tile_of(realdata / name, image, **planes)).image
        assert np.isfinite(found).all()
        with quiet_astropy():  # of BLANK on floats
            np.testing.assert_allclose(found, fits.getdata(realdata / name, image), rtol=1e-6)

    def test_weights_of_decam_that_were_0_before_their_compression(self, realdata, read_tiles):
        folder = realdata / "by_survey" / "decam_cp"
        generic = {"weight_replace": ("-image-", "-invvar-"), "weight_kind": "inverse_variance"}
        (tile,) = read_tiles(folder, layout="generic", bands=("z",), generic=generic)
        found = read_whole(tile)
        weight = fits.getdata(folder / "decam-520206-S16-invvar-sub.fits")
        # Up to 4.1e-7; the next larger weight is 4.5e-4.
        np.testing.assert_array_equal(np.isnan(found.image), weight < 1e-6)
        assert np.isnan(found.variance).sum() == 630

    def test_a_warp_of_pan_starrs(self, realdata):
        folder = realdata / "by_survey" / "ps1_warp"
        (path,) = folder.glob("*_sci.fits")
        found = read_whole(tile_of(path, 0))
        with quiet_astropy():  # of BLANK on floats
            np.testing.assert_array_equal(np.isnan(found.image), np.isnan(fits.getdata(path)))
        assert np.isnan(found.image).sum() == 822

    def test_exposures_of_unwise(self, realdata, read_tiles, tmp_path):
        folder = realdata / "by_survey" / "unwise"
        image = fits.getdata(folder / "unwise-3460p121-w1-img-m.fits")
        exposures = fits.getdata(folder / "unwise-3460p121-w1-n-m.fits.gz")
        exposures[3, 4] = 0
        for name, plane in (("img", image), ("n", exposures)):
            header = fits.getheader(folder / "unwise-3460p121-w1-img-m.fits")
            fits.PrimaryHDU(plane, header).writeto(tmp_path / f"w1-{name}-m.fits")
        generic = {
            "pattern": "(?P<band>w1)-img",
            "weight_replace": ("-img-", "-n-"),
            "weight_kind": "coverage",
        }
        (tile,) = read_tiles(tmp_path, layout="generic", bands=("w1",), generic=generic)
        assert np.argwhere(np.isnan(read_whole(tile).image)).tolist() == [[3, 4]]

    def test_no_data_of_hsc_s_cutout_service(self, realdata, read_tiles):
        (path,) = (realdata / "by_survey" / "hsc_cutout_service").glob("*_i.fits")
        (tile,) = read_tiles(path, layout="stamps", bands=("i",))
        found = read_whole(tile)
        np.testing.assert_array_equal(np.isnan(found.image), fits.getdata(path, 2) >> 8 & 1 == 1)
        assert np.isnan(found.image[250, 257])


@pytest.mark.parametrize("shape", [(8, 8), (17, 31), (40, 16)])
@pytest.mark.parametrize("side", [2, 5, 8, 13, 16])
def test_squares_are_those_that_a_slow_search_finds(shape, side):
    """Every square of one value, by looking at each of them."""
    rng = np.random.default_rng(side)
    image = rng.integers(0, 3, shape)
    image[2:, 3:] = 1
    image[:6, :9] = 0
    right = np.zeros(shape, np.bool_)
    for y in range(shape[0] - side + 1):
        for x in range(shape[1] - side + 1):
            square = np.s_[y : y + side, x : x + side]
            right[square] |= np.ptp(image[square]) == 0
    found = no_data._squares(image[:, 1:] == image[:, :-1], image[1:] == image[:-1], side)
    np.testing.assert_array_equal(found, right)
