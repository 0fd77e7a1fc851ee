import re

import numpy as np
import pytest
from astropy.wcs import WCS

from galbatch.reporting.marks import bar_arcsec, marks_svg


@pytest.mark.parametrize(
    ("width", "bar"), [(40.0, 10.0), (12.5, 5.0), (12.4, 2.0), (5.0, 2.0), (2.49, 0.5), (0.6, 0.2)]
)
def test_the_bar_is_a_round_length_that_fits(width, bar):
    assert bar_arcsec(width) == pytest.approx(bar)


def directions(svg):
    """Letter -> (x to the right, y up) of its arrow."""
    found = re.findall(r'class="([NE])" d="M84.0 84.0l(\S+) ([^"]+)"', svg)
    return {name: (float(x), -float(y)) for name, x, y in found}


@pytest.mark.parametrize("angle_deg", [0, 30, 135, 250])
@pytest.mark.parametrize("parity", [-1, 1])
def test_arrows_point_where_the_wcs_says(angle_deg, parity):
    """The same as the steps of astropy's WCS to a place a little north, and a little east."""
    angle = np.deg2rad(angle_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    cd = turn @ np.diag([parity * 1e-4, 1e-4])
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cd = ["RA---TAN", "DEC--TAN"], [150, 2], [50, 50], cd
    found = directions(marks_svg(100, cd))
    for name, place in (("N", (150, 2.001)), ("E", (150 + 0.001 / np.cos(np.deg2rad(2)), 2))):
        step = wcs.wcs_world2pix([place], 1)[0] - 50
        np.testing.assert_allclose(np.array(found[name]) / 11, step / np.hypot(*step), atol=2e-3)


def test_the_bar_has_the_length_that_it_states():
    """64 px of 0.25 arcsec are 16 arcsec: 5 arcsec are 31.25 % of the width."""
    svg = marks_svg(64, np.diag([-0.25, 0.25]) / 3600)
    assert ">5″</text>" in svg
    assert "M6 92h31.25" in svg
