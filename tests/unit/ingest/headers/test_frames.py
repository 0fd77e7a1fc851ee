"""Frames other than ICRS, against astropy's own WCS and SkyCoord."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import FK4, FK5, BarycentricMeanEcliptic, Galactic, SkyCoord
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS

from galbatch.errors import TileError
from galbatch.ingest.headers import accepted_wcs

J1975 = Time(1975.0, format="jyear")
B1950 = Time(1950.0, format="byear")

FRAMES = {
    "FK5 by RADESYS": ({"RADESYS": "FK5"}, FK5()),
    "FK5 by RADECSYS": ({"RADECSYS": "fk5 ", "EQUINOX": 2000.0}, FK5()),
    "FK5 by RADESYS, before its older name": ({"RADESYS": "FK5", "RADECSYS": "ICRS"}, FK5()),
    "FK5 by its equinox alone": ({"EQUINOX": 2000}, FK5()),
    "an equinox as text": ({"EQUINOX": "J2000.0"}, FK5()),
    "FK5 of J1975": ({"RADESYS": "FK5", "EQUINOX": 1975.0}, FK5(equinox=J1975)),
    "FK4": ({"RADESYS": "FK4"}, FK4(equinox=B1950)),
    "FK4 by its equinox alone": ({"EQUINOX": 1950.0}, FK4(equinox=B1950)),
    "FK4 by EPOCH": ({"EPOCH": 1950.0}, FK4(equinox=B1950)),
    "FK5 by EPOCH as text": ({"EPOCH": "J2000"}, FK5()),
    "galactic": ({"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN", "EQUINOX": 2000.0}, Galactic()),
    "galactic, in FK4": ({"CTYPE1": "GLON-CAR", "CTYPE2": "GLAT-CAR", "RADESYS": "FK4"}, Galactic()),
    "ecliptic": ({"CTYPE1": "ELON-TAN", "CTYPE2": "ELAT-TAN"}, BarycentricMeanEcliptic()),
    "ecliptic of J1975": (
        {"CTYPE1": "ELON-SIN", "CTYPE2": "ELAT-SIN", "RADESYS": "FK5", "EQUINOX": 1975.0},
        BarycentricMeanEcliptic(equinox=J1975),
    ),
}

ICRS = {
    "nothing": {},
    "RADESYS": {"RADESYS": "ICRS"},
    "an equinox beside ICRS": {"RADESYS": "ICRS", "EQUINOX": 2000.0, "EPOCH": 2013.4},
    "RADECSYS": {"RADECSYS": "ICRS", "EQUINOX": 1950.0},
    "a realization": {"RADESYS": "GAIA-DR2"},
    "no equinox in EPOCH": {"EPOCH": -1},
    "a date in EPOCH": {"EPOCH": "2013-04-05"},
    "cards without a value": {"RADESYS": fits.card.Undefined(), "EQUINOX": fits.card.Undefined()},
}


def header_of(cards, *, crval=(150.0, 2.0), swapped=False):
    """Pixels of 1 arcsec, turned by 30 deg and a little skewed."""
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"], header["CRPIX1"], header["CRPIX2"] = *crval, 40.0, 25.0
    header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = -2.4e-4, 1.4e-4, 1.3e-4, 2.5e-4
    header.update(cards)
    if swapped:
        before = header.copy()
        for key in ("CTYPE{}", "CRVAL{}", "CD{}_1", "CD{}_2"):
            header[key.format(1)], header[key.format(2)] = before[key.format(2)], before[key.format(1)]
    return header


def world_of(header, x, y):
    """Longitude and latitude in the header's own frame, by astropy, in that order."""
    wcs = WCS(header)
    world = wcs.all_pix2world(x, y, 0)
    return world[wcs.wcs.lng], world[wcs.wcs.lat]


PIXELS = np.array([[0.0, 79.0, 30.2], [0.0, 49.0, 11.7]])


@pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")  # RADECSYS is deprecated
@pytest.mark.parametrize("swapped", [False, True], ids=["", "swapped"])
@pytest.mark.parametrize("name", FRAMES)
def test_positions_are_astropys_in_icrs(name, swapped):
    cards, frame = FRAMES[name]
    header = header_of(cards, swapped=swapped)
    _, wcs = accepted_wcs(header, "here")
    right = SkyCoord(*world_of(header, *PIXELS), unit="deg", frame=frame).icrs
    found = SkyCoord(*wcs.to_sky(*PIXELS), unit="deg")
    assert found.separation(right).to_value(u.mas).max() < 0.01
    np.testing.assert_allclose(wcs.to_pixels(right.ra.deg, right.dec.deg), PIXELS, atol=1e-5)


@pytest.mark.parametrize("cards", ICRS.values(), ids=ICRS)
def test_icrs_is_not_transformed(cards):
    header = header_of(cards)
    text, wcs = accepted_wcs(header, "here")
    assert wcs.frame is None
    np.testing.assert_array_equal(wcs.to_sky(*PIXELS), WCS(header_of({})).all_pix2world(*PIXELS, 0))
    assert fits.Header.fromstring(text)["RADESYS"] == "ICRS"


def test_fk5_is_not_icrs():
    """The two differ by up to 0.02 arcsec, FK4 by more than half a degree, galactic coordinates altogether."""
    right = {"FK5": (0.02, 0.03), "FK4": (2000, 2600)}
    for system, (low, high) in right.items():
        _, wcs = accepted_wcs(header_of({"RADESYS": system}), "here")
        away = SkyCoord(*wcs.to_sky(*PIXELS), unit="deg").separation(
            SkyCoord(*world_of(header_of({}), *PIXELS), unit="deg")
        )
        assert low < away.arcsec.min()
        assert away.arcsec.max() < high


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ({"RADESYS": "FK5", "RADECSYS": "FK4"}, "RADESYS = 'FK5', RADECSYS = 'FK4' contradict each other"),
        ({"RADESYS": "FK4-NO-E"}, "RADESYS = 'FK4-NO-E' is no frame that is read"),
        ({"RADECSYS": "GAPPT"}, "RADECSYS = 'GAPPT' is no frame that is read"),
        ({"EQUINOX": "yes"}, "EQUINOX = 'yes' is no year"),
        ({"EQUINOX": 0.0}, "EQUINOX = 0.0 is no year"),
        ({"EPOCH": 2013.4}, "EPOCH = 2013.4 without RADESYS and EQUINOX may be the equinox or the time"),
        ({"RADESYS": "FK5", "EPOCH": 2013.4}, "EPOCH = 2013.4"),
        (
            {"CTYPE1": "ELON-TAN", "CTYPE2": "ELAT-TAN", "RADESYS": "FK4"},
            "ecliptic coordinates of FK4 are not read",
        ),
    ],
)
def test_what_is_no_frame_is_refused(cards, message):
    with pytest.raises(TileError, match=f"here: {message}"):
        accepted_wcs(header_of(cards), "here")
