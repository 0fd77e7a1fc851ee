"""The PSF of a tile by its stars, on tiles of stars and galaxies whose PSF is not the stated one."""

from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from galbatch import ingest
from galbatch.config import FlagsConfig
from galbatch.core.types import CutoutSpec, Grid
from galbatch.ingest.cut.tile import stars
from galbatch.ingest.cut.tile.stars import _locus

SHAPE, SCALE = (660, 900), 0.168
STATED = 0.8
SPACING_PX = 60


@pytest.fixture
def tile(tmp_path, tan, read_tiles):
    """Write a tile in nJy with sources on a lattice and read it: stars of one width, and disks of three as many widths."""

    def write(fwhm_arcsec=STATED, *, stars_every=2, stated=STATED, psf_card=True, empty=slice(0)):
        rng = np.random.default_rng(4)
        image = rng.normal(0.0, 1.0, SHAPE)
        y, x = np.indices(SHAPE)
        centers = [(a, b) for a in range(30, SHAPE[0], SPACING_PX) for b in range(30, SHAPE[1], SPACING_PX)]
        for number, (row, column) in enumerate(centers):
            is_star = stars_every and number % stars_every == 0
            size = 1.0 if is_star else rng.uniform(1.15, 3.0)
            sigma = size * fwhm_arcsec / SCALE / 2.3548
            near = slice(row - 30, row + 30), slice(column - 30, column + 30)
            at = np.array([row, column]) + rng.uniform(-0.5, 0.5, 2)
            squared = (y[near] - at[0]) ** 2 + (x[near] - at[1]) ** 2
            image[near] += rng.uniform(60, 400) * np.exp(-squared / (2 * sigma**2))
        image[empty] = np.nan
        header = fits.Header({"BUNIT": "nJy"}) + tan(crpix=(1, 1))
        if psf_card:
            header["SEEING"] = stated
        fits.PrimaryHDU(image, header).writeto(tmp_path / "stars_g.fits", overwrite=True)
        card = {"psf_fwhm_card": "SEEING"} if psf_card else {}
        return read_tiles(tmp_path / "stars_g.fits", layout="generic", **card)

    return write


@pytest.fixture
def at_center(tan, objects):
    ra, dec = WCS(tan(crpix=(1, 1))).all_pix2world([450.0, 200.0], [310.0, 500.0], 0)
    return objects(ra, dec)


@pytest.mark.parametrize("fwhm", [0.6, 0.8, 1.2])
def test_the_width_of_stars_is_that_of_the_pixels(fwhm, tile, at_center, cut):
    block = cut(at_center, tile(fwhm), size=60)
    assert block.psf_fwhm_arcsec[:, 0] == pytest.approx([STATED] * 2)
    assert block.psf_fwhm_stars_arcsec[:, 0] == pytest.approx([fwhm] * 2, rel=0.01)


def test_without_a_stated_width_that_of_stars_is_known(tile, at_center, cut):
    block = cut(at_center, tile(0.9, psf_card=False), size=60)
    assert np.isnan(block.psf_fwhm_arcsec).all()
    assert block.psf_fwhm_stars_arcsec[:, 0] == pytest.approx([0.9] * 2, rel=0.01)


@pytest.mark.parametrize("stars_every", [0, 40])
def test_too_few_stars_are_unknown(stars_every, tile, at_center, cut):
    assert np.isnan(cut(at_center, tile(stars_every=stars_every), size=60).psf_fwhm_stars_arcsec).all()


def test_an_area_without_data_is_passed_over(tile, at_center, cut):
    assert cut(at_center, tile(1.0, empty=slice(0, 300)), size=60).psf_fwhm_stars_arcsec[1] == pytest.approx(
        1.0, rel=0.01
    )
    assert np.isnan(cut(at_center, tile(1.0, empty=slice(0, 660)), size=60).psf_fwhm_stars_arcsec).all()


def test_the_company_does_not_count(tile, at_center, cut):
    tiles = tile(1.0)
    together, alone = cut(at_center, tiles, size=60), cut(at_center.take(np.array([1])), tiles, size=60)
    assert together.psf_fwhm_stars_arcsec[1] == alone.psf_fwhm_stars_arcsec[0]


def test_a_process_looks_at_the_stars_of_a_tile_once(tile, at_center, cut, monkeypatch):
    """Each partition opens its tiles anew; a file that was replaced is another tile."""
    found, strips = stars._round_sources, []
    monkeypatch.setattr(
        stars, "_round_sources", lambda reader, of, strip: strips.append(strip) or found(reader, of, strip)
    )
    for fwhm, n_strips in ((1.0, 2), (1.2, 4)):
        tiles = tile(fwhm)
        for _ in range(2):
            block = cut(at_center, tiles, size=60)
            assert block.psf_fwhm_stars_arcsec[0, 0] == pytest.approx(fwhm, rel=0.01)
            assert len(strips) == n_strips


def test_of_sparse_objects_nothing_more_is_read(tile, at_center, monkeypatch):
    """Five strips of 900 px hold 576,000 pixels: a quarter of 9 cutouts of 506 px, more than that of 8."""
    tiles, found = tile(1.0), {}
    strips = []
    monkeypatch.setattr(stars, "_round_sources", lambda reader, tile, strip: strips.append(strip) or [])
    for n_objects in (8, 9):
        many = at_center.take(np.zeros(n_objects, np.intp))
        spec = CutoutSpec(Grid(506, SCALE), ("g",))
        blocks = ingest.cut_blocks(
            many, tiles, spec=spec, flags=FlagsConfig(), object_flags=np.zeros(n_objects, np.int32)
        )
        assert sum(len(block) for block in blocks) == n_objects
        found[n_objects] = len(strips)
    assert found == {8: 0, 9: 5}


def test_cutouts_without_a_width_by_stars_do_not_stand_in_for_those_with_one(tile, at_center):
    """A catalog that grows: from nine objects of a tile on its stars are looked for, so that eight old cutouts are cut again."""
    tiles, spec = tile(1.0), CutoutSpec(Grid(506, SCALE), ("g",))
    of = {n: at_center.take(np.zeros(n, np.intp)) for n in (8, 9)}
    for n_before in of:
        zeros = np.zeros(n_before, np.int32)
        [block] = ingest.cut_blocks(of[n_before], tiles, spec=spec, flags=FlagsConfig(), object_flags=zeros)
        assert np.isfinite(block.psf_fwhm_stars_arcsec).all() == (n_before == 9)
        for n_now in of:
            possible = ingest.possible_keys(of[n_now], tiles, spec=spec)[0, 0]
            assert (block.band_key[0, 0] in possible) == (n_now == n_before)


def test_stored_cutouts_count_among_those_of_a_tile(tile, at_center):
    """A tile is sparse by all objects of a partition: that some are taken from an older store changes no width."""
    spec, many = CutoutSpec(Grid(506, SCALE), ("g",)), at_center.take(np.zeros(9, np.intp))
    settings = {"spec": spec, "flags": FlagsConfig(), "object_flags": np.zeros(9, np.int32)}
    tiles = tile(1.0)
    (cut_all,) = ingest.cut_blocks(many, tiles, **settings)
    stored = SimpleNamespace(taken=np.arange(9) != 4, block=lambda rows, *, list_flags: cut_all.take(rows))
    (found,) = ingest.cut_blocks(many, tiles, **settings, stored=stored)
    assert found.psf_fwhm_stars_arcsec[:, 0] == pytest.approx([1.0] * 9, rel=0.01)


def test_galaxies_alone_are_seldom_taken_for_stars():
    """Of tiles with 40 galaxies as wide as the PSF and more, one in a hundred has a width that differs by 0.15."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(400):
        widths = np.hypot(1, rng.lognormal(-0.2, 0.6, 40)) * rng.normal(1, 0.03, 40)
        found.append(_locus(widths)[0])
    assert np.mean(np.isfinite(found)) < 0.2
    assert np.mean(np.array(found) > 1.15) <= 0.01


def test_stars_among_galaxies_are_found():
    rng = np.random.default_rng(6)
    galaxies, stars = np.hypot(1, rng.lognormal(-0.2, 0.6, 30)), rng.normal(1, 0.03, 25)
    width, n_stars = _locus(np.concatenate([galaxies * rng.normal(1, 0.03, 30), stars]))
    assert width == pytest.approx(1.0, abs=0.02)
    assert 20 <= n_stars <= 30
