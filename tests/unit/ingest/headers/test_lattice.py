"""Lattices in any frame, and which pixels are a grid's."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from galbatch.core.types import Grid
from galbatch.ingest.headers import TanWCS, accepted_wcs, lattice_key
from galbatch.ingest.headers.lattice import _icrs_tan

GRID = Grid(240, 0.168)


def matrix(*, scale=0.168, angle=0.0, flip=-1.0, aspect=1.0, shear=0.0):
    """CD, deg/px, of pixels `aspect` times as wide as high, whose y axis leans by `shear`."""
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    return (
        scale / 3600 * np.array([[c, -s], [s, c]]) @ np.array([[flip * aspect, shear], [0.0, 1.0 / aspect]])
    )


def header_of(cd, *, cards=(), crval=(150.0, 2.0), crpix=(52.3, 44.8)):
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"], header["CRPIX1"], header["CRPIX2"] = *crval, *crpix
    header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = np.ravel(cd)
    header.update(cards)
    return header


class TestFitsGrid:
    # A corner lies 169.7 px from the center: 0.02 px there are 1.18e-4 of squareness, twice that of shear.
    @pytest.mark.parametrize("angle", [0.0, 33.0, 90.0, 180.0, 271.0])
    @pytest.mark.parametrize(
        ("pixels", "fits_it"),
        [
            ({}, True),
            ({"flip": 1.0}, False),
            ({"aspect": 1 + 1.15e-4}, True),
            ({"aspect": 1 + 1.21e-4}, False),
            ({"aspect": 1 - 1.21e-4}, False),
            ({"shear": 2.3e-4}, True),
            ({"shear": -2.42e-4}, False),
            ({"scale": 0.168 * (1 + 0.049 / 240)}, True),
            ({"scale": 0.168 * (1 + 0.051 / 240)}, False),
            ({"scale": 0.168 * (1 - 0.051 / 240)}, False),
        ],
    )
    def test_in_shape_parity_and_scale(self, pixels, fits_it, angle):
        tan = TanWCS((1.0, 1.0), (150.0, 2.0), matrix(angle=angle, **pixels))
        assert tan.fits_grid(GRID) is fits_it

    def test_small_cutouts_may_differ_more(self):
        tan = TanWCS((1.0, 1.0), (150.0, 2.0), matrix(scale=0.168 * 1.0005))
        assert tan.fits_grid(Grid(96, 0.168))
        assert not tan.fits_grid(Grid(143, 0.168))


FRAMES = {
    "FK5": {"RADESYS": "FK5"},
    "FK5 of 1975": {"RADESYS": "FK5", "EQUINOX": 1975.0},
    "galactic": {"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"},
    "ecliptic": {"CTYPE1": "ELON-TAN", "CTYPE2": "ELAT-TAN"},
    "ICRS": {},
}


@pytest.mark.parametrize("crval", [(150.0, 2.0), (0.0, -89.5), (359.9, 61.0), (77.0, 0.0)])
@pytest.mark.parametrize("cards", FRAMES.values(), ids=FRAMES)
def test_a_tan_tile_of_another_frame_is_one_in_icrs(cards, crval):
    """The same pixels at the same places, to 1e-7 px over 30,000 px."""
    text, wcs = accepted_wcs(header_of(matrix(angle=20.0), cards=cards, crval=crval), "here")
    tan = _icrs_tan(text)
    x, y = np.array([0.0, 30000.0, -8000.0]), np.array([0.0, -20000.0, 100.0])
    np.testing.assert_allclose(tan.sky().to_pixels(*wcs.to_sky(x, y)), [x, y], rtol=0, atol=1e-6)
    assert tan.fits_grid(GRID)
    assert lattice_key(text).startswith("tan:")


def test_swapped_axes_are_the_same_lattice():
    plain = header_of(matrix(angle=20.0))
    swapped = plain.copy()
    for key in ("CTYPE{}", "CRVAL{}", "CD{}_1", "CD{}_2"):
        swapped[key.format(1)], swapped[key.format(2)] = plain[key.format(2)], plain[key.format(1)]
    keys = {lattice_key(accepted_wcs(header, "here")[0]) for header in (plain, swapped)}
    assert len(keys) == 1


def test_patches_share_a_lattice_only_in_all_of_cd():
    """0.02 px at the corner of 240 px, in any element, are another lattice; so is another frame."""
    cd = matrix(angle=20.0)
    keys = {
        lattice_key(accepted_wcs(header_of(cd, crpix=(52.3 + dx, -3955.2)), "here")[0]) for dx in (0, 4000)
    }
    noisy = matrix(angle=0.0) + 1e-20 * np.array([[0, 1], [-1, 0]])
    assert len({lattice_key(accepted_wcs(header_of(m), "here")[0]) for m in (matrix(angle=0.0), noisy)}) == 1
    assert len(keys) == 1
    for place in np.ndindex(2, 2):
        other = cd.copy()
        other[place] += 0.02 / 120 * 0.168 / 3600
        keys.add(lattice_key(accepted_wcs(header_of(other), "here")[0]))
    keys |= {lattice_key(accepted_wcs(header_of(cd, cards=cards), "here")[0]) for cards in FRAMES.values()}
    assert len(keys) == 1 + 4 + len(FRAMES) - 1


def test_aberration_in_fk4_is_no_rotation():
    text, wcs = accepted_wcs(header_of(matrix(), cards={"RADESYS": "FK4"}), "here")
    assert wcs.frame.rotation is None
    assert lattice_key(text).startswith("warped:")
