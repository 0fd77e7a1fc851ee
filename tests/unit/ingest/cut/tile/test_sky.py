"""The level of a tile's sky in the pixels of its cutouts, on tiles with a pedestal, masked light and bright sources."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from galbatch import ingest
from galbatch.config import FlagsConfig
from galbatch.core.types import CutoutSpec, Grid
from galbatch.ingest.cut.tile import sky

SIDE_PX, SCALE = 660, 0.168
SIGMA = 2.0
STRIP = slice(100, 119)
"""Rows of the first of three strips: each part of 220 px holds 4096 pixels."""

PART = slice(0, 220)
"""Columns of the first of three parts of a strip."""


@pytest.fixture
def tile(tmp_path, tan, read_tiles):
    """Write a tile in nJy with noise on a level, and read it; `change` is applied to the image, and light in `detected` (y, x) is masked."""

    def write(level=0.0, *, side_px=SIDE_PX, change=None, detected=None):
        rng = np.random.default_rng(8)
        image = level + rng.normal(0.0, SIGMA, (side_px, side_px))
        if change is not None:
            change(image)
        hdus = [fits.PrimaryHDU(image.astype(np.float32), fits.Header({"BUNIT": "nJy"}) + tan(crpix=(1, 1)))]
        mask = np.zeros(image.shape, np.int32)
        if detected is not None:
            mask[detected] = 1 << 5
            image[detected] += 30.0
            hdus[0].data = image.astype(np.float32)
        hdus.append(fits.ImageHDU(mask, fits.Header({"HIERARCH MP_DETECTED": 5})))
        fits.HDUList(hdus).writeto(tmp_path / "sky_g.fits", overwrite=True)
        return read_tiles(tmp_path / "sky_g.fits", layout="generic", generic={"mask": 1})

    return write


@pytest.fixture
def at(tan, objects):
    """Return objects at a place of the tile."""

    def place(x=300.0, y=350.0, n=1):
        ra, dec = WCS(tan(crpix=(1, 1))).all_pix2world(np.full(n, x), np.full(n, y), 0)
        return objects(ra, dec)

    return place


def level_of(block):
    return float(block.sky_level_njy[0, 0]), float(block.sky_level_err_njy[0, 0])


@pytest.mark.parametrize("level", [0.0, 1.0, -5.0])
def test_the_level_is_the_pedestal(level, tile, at, cut):
    found, error = level_of(cut(at(), tile(level), size=60))
    assert found == pytest.approx(level, abs=0.1)
    # A twentieth of the noise stands for undetected light; nine parts of white noise add less than that.
    assert 0.048 * SIGMA < error < 0.09 * SIGMA


def test_masked_light_and_a_part_of_one_bright_source_do_not_count(tile, at, cut):
    def bright(image):
        image[STRIP, PART] += 200.0

    found, error = level_of(cut(at(), tile(1.0, change=bright), size=60))
    assert found == pytest.approx(1.0, abs=0.1)
    assert error < 0.09 * SIGMA
    left_half = (slice(None), slice(0, 330))
    assert level_of(cut(at(), tile(1.0, detected=left_half), size=60))[0] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("scale_px", [7.0, 8.0])
def test_wings_in_a_crowded_tile_are_within_the_error(scale_px, tile, at, cut):
    """Galaxies 80 px apart cover 51 and 76 percent of the tile; between them their wings are 0.5 and 0.65 of the noise, in all parts alike."""
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    wings = sum(
        200.0 * np.exp(-np.hypot(y - y0, x - x0) / scale_px)
        for y0 in range(-40, SIDE_PX + 41, 80)
        for x0 in range(-40, SIDE_PX + 41, 80)
    )

    def add(image):
        image += wings

    tiles = tile(change=add, detected=np.nonzero(wings > SIGMA))
    found, error = level_of(cut(at(), tiles, size=60))
    assert found > 0.2 * SIGMA
    assert found < 3 * error  # beyond which it is an offset


def test_undetected_sources_are_clipped(tile, at, cut):
    """Without a mask, a seventh of the pixels is 5 to 20 sigma bright."""

    def sources(image):
        image[::7] += np.linspace(10.0, 40.0, image.shape[1])

    assert level_of(cut(at(), tile(1.0, change=sources), size=60))[0] == pytest.approx(1.0, abs=0.2 * SIGMA)


def test_the_error_holds_what_parts_differ_by(tile, at, cut):
    """On a slope of 4 nJy from side to side the parts of three columns differ by 1.33 nJy: 1.48 times that, 1.25 / 3 of it."""

    def slope(image):
        image += np.linspace(-2.0, 2.0, image.shape[1])

    found, error = level_of(cut(at(), tile(1.0, change=slope), size=60))
    assert found == pytest.approx(1.0, abs=0.15)
    assert error == pytest.approx(1.4826 * 4 / 3 * np.sqrt(np.pi / 2) / 3, rel=0.15)


def test_the_level_is_that_of_a_pixel_of_the_cutout(tile, at, cut):
    tiles = tile(1.0)
    copied, coarse = level_of(cut(at(), tiles, size=60)), level_of(cut(at(), tiles, size=30, scale=2 * SCALE))
    assert coarse == pytest.approx([4 * copied[0], 4 * copied[1]], rel=1e-4)
    block = cut(at(), tiles, size=60, scale=0.2)
    assert level_of(block)[0] == pytest.approx(np.nanmedian(block.image), abs=0.15)


def test_small_tiles_and_places_without_one_have_no_level(tile, at, cut, objects):
    assert np.isnan(level_of(cut(at(), tile(1.0, side_px=639), size=60))).all()
    assert np.isfinite(level_of(cut(at(), tile(1.0, side_px=640), size=60))).all()
    assert np.isnan(level_of(cut(objects(10.0, -50.0), tile(1.0), size=60))).all()


@pytest.mark.parametrize(("n_rows", "is_known"), [(STRIP.stop, True), (420, False)])
def test_five_parts_with_sky_are_needed(n_rows, is_known, tile, at, cut):
    """Without the first strip six are left, without two three."""

    def empty(image):
        image[:n_rows] = np.nan

    found = level_of(cut(at(y=500.0), tile(1.0, change=empty), size=60))
    assert np.isfinite(found).tolist() == [is_known] * 2


def test_pixels_of_one_value_have_no_level(tile, at, cut):
    """A simulation without noise: a level without an error would be an offset whatever it is."""

    def flat(image):
        image[:] = 1.0
        image[::50] = 2.0

    assert np.isnan(level_of(cut(at(), tile(change=flat), size=60))).all()


def test_the_company_does_not_count(tile, at, cut):
    tiles = tile(1.0)
    both = cut(at(n=2), tiles, size=60)
    assert level_of(cut(at(), tiles, size=60)) == level_of(both)
    assert both.sky_level_njy[1] == both.sky_level_njy[0]


def test_one_object_gets_what_many_get(tile, at):
    """The flag must not follow from the number of objects that a partition takes from a tile."""
    tiles, found = tile(1.0), []
    for n_objects in (1, 40):
        (block,) = ingest.cut_blocks(
            at(n=n_objects),
            tiles,
            spec=CutoutSpec(Grid(96, SCALE), ("g",)),
            flags=FlagsConfig(),
            object_flags=np.zeros(n_objects, np.int32),
        )
        found.append(level_of(block))
    assert found[0] == found[1]
    assert found[0][0] == pytest.approx(1.0, abs=0.1)


def test_a_process_measures_the_sky_of_a_tile_once(tile, at, cut, monkeypatch):
    """Each partition opens its tiles again; a file that was replaced is another tile."""
    read, n_read = sky._free_pixels, []
    monkeypatch.setattr(sky, "_free_pixels", lambda reader, of: n_read.append(1) or read(reader, of))
    for number, level in enumerate((1.0, 3.0), 1):
        tiles = tile(level)
        for _ in range(2):
            assert level_of(cut(at(), tiles, size=60))[0] == pytest.approx(level, abs=0.1)
            assert len(n_read) == number


@pytest.mark.parametrize(
    ("shape", "height"), [((4200, 4100), 8), ((660, 660), 19), ((200, 300), 41), ((50, 100), 16), ((2, 1), 1)]
)
def test_strips_lie_within_the_tile_and_hold_enough_pixels(shape, height):
    """Rows are read whole: 8 of an HSC patch, and as many as there are of a small stamp."""
    strips = sky.sky_strips(shape)
    assert [box.shape for box in strips] == [(height, shape[1])] * 3
    assert all(box.clipped(shape) == box for box in strips)
    middles = [(box.y0 + box.y1) / 2 for box in strips]
    assert middles == pytest.approx([shape[0] * share for share in (1 / 6, 1 / 2, 5 / 6)], abs=1)
