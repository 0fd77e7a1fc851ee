"""What one tile takes from the headers of its file."""

import math

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from galbatch.ingest.headers import Planes, make_tile


def tile(*gains):
    """A tile of an image in the first extension, with a card GAIN in the primary header and in the image's; None: no card."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ("RA---TAN", "DEC--TAN")
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = (150, 2), (10, 10), (-5e-5, 5e-5)
    hdus = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((20, 20), "f4"), wcs.to_header())])
    for hdu, gain in zip(hdus, gains, strict=True):
        if gain is not None:
            hdu.header["GAIN"] = gain
    return make_tile(hdus, "a.fits", key=("1", "g"), planes=Planes(1), njy=57.5, psf_fwhm_arcsec=math.nan)


@pytest.mark.parametrize(
    ("gains", "electrons"),
    [
        ((None, 3.0), 3.0),
        ((4.0, None), 4.0),
        ((4.0, 3.0), 3.0),
        ((4.0, 0.0), math.nan),
        ((None, "3.0"), math.nan),
        ((None, None), math.nan),
    ],
    ids=["image", "file", "both", "unknown", "text", "none"],
)
def test_electrons_of_a_njy_follow_from_the_gain(gains, electrons):
    assert tile(*gains).electrons_per_njy == pytest.approx(electrons / 57.5, nan_ok=True)
