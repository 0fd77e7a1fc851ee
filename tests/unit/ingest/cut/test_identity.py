"""Keys and digests of pixels: what changes a cutout changes them, and nothing else does."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.wcs import WCS

from galbatch import ingest
from galbatch.core.types import CutoutSpec, FileIdentity, Grid

PIXELS = np.random.default_rng(6).normal(size=(100, 220)).astype(np.float32)
GRID = Grid(31, 0.168)


def positions(header, xs, y=50.0):
    return WCS(header).all_pix2world(xs, np.full(len(xs), y), 0)


@pytest.fixture
def tiles(tmp_path, tan, write_calexp, read_tiles):
    """Patches 0,0 and 1,0 of one tract: columns 0 to 120 and 100 to 220, 20 px in common."""
    write_calexp(tmp_path, patch="0,0", image=PIXELS[:, :120], wcs=tan(crpix=(1, 1)))
    write_calexp(tmp_path, patch="1,0", image=PIXELS[:, 100:], wcs=tan(crpix=(-99, 1)))
    return sorted(read_tiles(tmp_path), key=lambda tile: tile.tile_id)


def another_version(tile):
    return replace(tile, identity=FileIdentity(tile.identity.size_bytes, "another"))


def found(block, possible):
    """Return whether the key of each cutout is among those that are possible, (object,) bool."""
    return (block.band_key[:, :, None] == possible).any(axis=2).all(axis=1).tolist()


def test_a_tile_counts_where_it_was_needed(tiles, tan, objects, cut):
    # In the first patch alone; whole in it, while the second begins within the cutout; of both; at the border of the survey.
    listed = objects(*positions(tan(crpix=(1, 1)), [50.0, 104.0, 108.0, 3.0]))
    block, spec = cut(listed, tiles, size=31), CutoutSpec(GRID, ("g",))
    assert block.n_tiles.tolist() == [1, 1, 2, 1]
    first, second = tiles
    for changed, same in (
        ((first, second), [True, True, True, True]),
        ((first, another_version(second)), [True, True, False, True]),
        ((another_version(first), second), [False, False, False, False]),
        # A tile that comes in addition matters where pixels were missing; one that goes, where it was needed.
        ((first,), [True, True, False, True]),
    ):
        assert found(block, ingest.possible_keys(listed, changed, spec=spec)) == same
        again = cut(listed, changed, size=31)
        assert (again.band_key == block.band_key).all(axis=1).tolist() == same
    alone = cut(listed, (first,), size=31)
    assert found(alone, ingest.possible_keys(listed, tiles, spec=spec)) == [True, True, False, True]
    assert 0 not in block.band_key


def test_digests_follow_from_pixels_and_not_from_dates(tiles, tan, objects, cut):
    listed = objects(*positions(tan(crpix=(1, 1)), [50.0, 60.0, 104.0, 108.0]))
    block = cut(listed, tiles, size=31)
    again = cut(listed, [another_version(tile) for tile in tiles], size=31)
    assert (again.band_key != block.band_key).all()
    assert again.pixel_digest.tolist() == block.pixel_digest.tolist()
    assert len({*block.pixel_digest.ravel().tolist(), 0}) == 5
    image, sky, psf = block.image.copy(), block.sky_sigma_njy.copy(), block.psf_fwhm_arcsec.copy()
    image[0, 0, 3, 4] = np.nextafter(image[0, 0, 3, 4], np.float32(np.inf))
    sky[1] += 1
    psf[2] = 0.7
    changed = ingest.digest_of_pixels(image, sky, psf)
    assert (changed == block.pixel_digest).all(axis=1).tolist() == [False, False, False, True]
    assert ingest.digest_of_pixels(image[:0], sky[:0], psf[:0]).shape == (0, 1)
