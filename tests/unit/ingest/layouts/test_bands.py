"""Bands as people and files write them."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from galbatch.errors import TileError
from galbatch.ingest.layouts import matching_band

PIXELS = np.random.default_rng(5).normal(size=(20, 20)).astype(np.float32)


@pytest.mark.parametrize(
    ("said", "band"),
    [
        ("H", "h"),
        ("h", "H"),
        ("g", "g"),
        ("HSC-I", "i"),
        ("HSC-I2", "i"),
        ("HSC-R2", "HSC-R"),
        ("i", "HSC-I"),
        ("NB0387", "nb0387"),
        ("HSC-NB0387", "NB0387"),
        ("g DECam SDSS c0001 4720.0 1520.0", "g"),
        ("z.00000", "z"),
        ("i_03", "i"),
        ("r.MP9602", "r"),
        ("VISTA Ks", "Ks"),
        ("Ks", "K"),
        ("K", "Ks"),
        ("SDSS r", "r"),
        ("des-g", "g"),
        ("NIR_H", "H"),
        ("VIS", "vis"),
        ("F814W", "f814w"),
        ("OCAM_r_SDSS", "r"),
        ("g'", "g"),
        ("rSDSS", "r"),
        ("bokr", "r"),
        ("zd DECam k1038", "z"),
        ("2MASS_h", "H"),
        ("WISE W1", "w1"),
        ("W-S-R+", "w-s-r+"),
        (1, "1"),
        (1, "W1"),
        (2, "w2"),
    ],
)
def test_one_band_in_two_spellings(said, band):
    assert matching_band(said, (band, "other")) == band


@pytest.mark.parametrize(
    ("said", "bands"),
    [
        ("H", ("g",)),
        (1, ("W2",)),
        ("g", ("gr",)),
        ("clear", ("r",)),
        ("r DECam SDSS c0002", ("g",)),
        ("F814W", ("W1",)),
        ("W-S-R+", ("r",)),
        ("sdss", ("r",)),
        ("", ("r",)),
    ],
)
def test_other_bands(said, bands):
    assert matching_band(said, bands) is None


def test_the_exact_spelling_goes_before_others():
    assert [matching_band(said, ("z", "Z")) for said in ("z", "Z", "HSC-Z")] == ["z", "Z", None]
    assert matching_band("HSC-R2", ("HSC-R", "HSC-R2")) == "HSC-R2"


@pytest.fixture
def image(tmp_path, tan):
    """Write an image with some cards of its own and in the primary header."""

    def write(name, primary=None, **cards):
        hdu = fits.ImageHDU(PIXELS, header=tan(crpix=(10, 10)))
        first = fits.PrimaryHDU()
        for header, values in ((hdu.header, cards), (first.header, primary or {})):
            for key, value in values.items():
                header[f"HIERARCH {key}" if len(key) > 8 else key] = value
        fits.HDUList([first, hdu]).writeto(tmp_path / name)
        return tmp_path / name

    return write


@pytest.mark.parametrize("layout", ["generic", "stamps"])
@pytest.mark.parametrize(
    ("cards", "bands"),
    [
        ({"BAND": "H"}, ("h", "j")),
        ({"BAND": 1}, ("W1", "W2")),
        ({"BAND": 1.0}, ("1", "2")),
        ({"FILTER": "HSC-I"}, ("i", "r")),
        ({"FPA.FILTERID": "z.00000"}, ("z", "r")),
        ({"FILTER1": "CLEAR1L", "FILTER2": "F814W"}, ("f814w", "f606w")),
        ({"FILTER": "F444W", "PUPIL": "F470N"}, ("F470N", "F444W")),
        ({"BAND": "unknown", "FILTER": "r"}, ("r", "g")),
    ],
)
def test_cards_of_surveys(image, read_tiles, layout, cards, bands):
    for where in ("own", "primary"):
        path = image(f"{where}.fits", cards) if where == "primary" else image(f"{where}.fits", **cards)
        (tile,) = read_tiles(path, layout=layout, bands=bands[:1], zero_point_mag=27.0)
        assert tile.band == bands[0], where
        with pytest.raises(TileError, match="no tile matches"):
            read_tiles(path, layout=layout, bands=bands[1:], zero_point_mag=27.0)


@pytest.mark.parametrize("layout", ["generic", "stamps"])
def test_the_name_says_it(image, read_tiles, layout):
    for name in ("field_Z.fits", "2MASS_h.FITS", "1-cutout-HSC-I-8279-pdr2_wide.fit"):
        image(name)
    tiles = read_tiles(
        image("field_z9_w1.fits").parent, layout=layout, bands=("z", "H", "i", "W1"), zero_point_mag=27.0
    )
    assert {tile.tile_id: tile.band for tile in tiles} == {
        "field_Z": "z",
        "2MASS_h": "H",
        "1-cutout-HSC-I-8279-pdr2_wide": "i",
        "field_z9_w1": "W1",
    }


def test_a_name_that_only_looks_like_a_band_is_none(image, read_tiles):
    image("field_a1.fits", BAND="g")
    assert (
        read_tiles(image("field_b.fits", BAND="g").parent, layout="stamps", zero_point_mag=27.0)[1].tile_id
        == "field_b"
    )


def test_the_error_says_what_was_found_where(image, read_tiles):
    image("field_h.fits", {"FILTER": "K"}, BAND="J")
    with pytest.raises(TileError, match=r"bands y; .*field_h\.fits says FILTER = K, BAND = J, h by its name"):
        read_tiles(
            image("other.fits", {"FILTER": "F105W"}).parent,
            layout="generic",
            bands=("y",),
            zero_point_mag=27.0,
        )
    with pytest.raises(TileError, match=r"no tile in band y; .*other\.fits says FILTER = F105W"):
        read_tiles(image("y.fits", BAND="K").parent, layout="generic", bands=("y", "k"), zero_point_mag=27.0)


def test_bands_of_coadds_and_bricks(tmp_path, tan, write_calexp, read_tiles):
    path = write_calexp(tmp_path, band="I2", image=PIXELS, wcs=tan(crpix=(10, 10)))
    for spelled in ("i", "I", "HSC-I", "HSC-I2"):
        assert read_tiles(path, bands=(spelled,))[0].band == spelled
    brick = tmp_path / "legacysurvey-1500p020-image-W1.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(PIXELS, header=tan(crpix=(10, 10)))]).writeto(brick)
    for spelled in ("w1", "W1"):
        assert read_tiles(brick, layout="legacysurvey", bands=(spelled,))[0].band == spelled


def test_rows_of_a_table(image, tmp_path, read_tiles):
    image("a.fits"), image("b.fits")
    (tmp_path / "tiles.csv").write_text("path,band\na.fits,1\nb.fits,2\n")
    tiles = read_tiles(tmp_path / "tiles.csv", layout="generic", bands=("W2", "W1"), zero_point_mag=22.5)
    assert {tile.tile_id: tile.band for tile in tiles} == {"a": "W1", "b": "W2"}
