"""Cutouts as astropy's CCDData and NDDataArray, with WCS, mask, uncertainty and the bits of the mask."""

from __future__ import annotations

from functools import reduce
from operator import or_

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.nddata import CCDData, NDDataArray, VarianceUncertainty
from astropy.wcs import WCS

from galbatch.api.cutouts import Cutout, add_cards
from galbatch.config import FlagsConfig, nearest_hint
from galbatch.core.flags import MaskBit
from galbatch.errors import UsageError

__all__ = ["as_ccddata"]

UNUSABLE = reduce(or_, (MaskBit[name] for name in FlagsConfig().bad_planes), MaskBit.SAT | MaskBit.NO_DATA)
"""Bits of pixels that are masked: those of which a run makes BAD_CENTER by default, saturated ones, and those without data."""


def as_ccddata(cutout: Cutout, band: str | None = None) -> NDDataArray:
    """Return a cutout as astropy's data with WCS, mask and uncertainty, in nJy.

    Parameters
    ----------
    cutout : Cutout
    band : str or None
        One band, as CCDData (y, x); None: all, as NDDataArray (band, y, x), with a WCS whose third axis counts the bands from 0.

    Returns
    -------
    astropy.nddata.NDDataArray
        ``mask`` is true where a pixel is NaN or has one of the bits `UNUSABLE`; ``flags`` has all bits of `MaskBit`, uint16;
        ``uncertainty`` is the variance, NaN where unknown; these two are None if the store lacks them. ``meta`` is a FITS header
        (OBJECT, FILTER, FLAGS, PSFFWHM, SKYSIGMA, ..), of several bands a dictionary of headers in the order of the planes.

    Raises
    ------
    UsageError
        The cutout has no such band.
    """
    if band is not None and band not in cutout.bands:
        raise UsageError(
            f"no band {band}{nearest_hint(band, cutout.bands)}; there are {', '.join(cutout.bands)}"
        )
    planes = slice(None) if band is None else cutout.bands.index(band)
    image = cutout.image[planes]
    mask = ~np.isfinite(image)
    if cutout.mask is not None:
        mask |= (cutout.mask[planes] & int(UNUSABLE)) != 0
    uncertainty = (
        None if cutout.variance is None else VarianceUncertainty(cutout.variance[planes], unit=u.nJy**2)
    )
    common = {"unit": u.nJy, "mask": mask, "uncertainty": uncertainty}
    if isinstance(planes, int):
        result = CCDData(image, meta=_header(cutout, planes), wcs=cutout.wcs, **common)
    else:
        # CCDData cannot be cut down to one of its planes: it takes no WCS but astropy's own class.
        headers = {name: _header(cutout, number) for number, name in enumerate(cutout.bands)}
        result = NDDataArray(image, meta=headers, wcs=_with_bands(cutout.wcs), **common)
    result.flags = None if cutout.mask is None else cutout.mask[planes]
    return result


def _header(cutout: Cutout, band: int) -> fits.Header:
    """Return what is known of one band as cards, which CCDData writes into FITS files."""
    header = fits.Header()
    add_cards(header, cutout, band, "")
    return header


def _with_bands(celestial: WCS) -> WCS:
    """Return a WCS of three axes: that of the cutout, and the number of the band."""
    wcs = WCS(naxis=3)
    wcs.wcs.ctype = [*celestial.wcs.ctype, "BAND"]
    wcs.wcs.cunit = [*celestial.wcs.cunit, ""]
    wcs.wcs.radesys = celestial.wcs.radesys
    wcs.wcs.crpix = [*celestial.wcs.crpix, 1.0]
    wcs.wcs.crval = [*celestial.wcs.crval, 0.0]
    matrix = np.eye(3)
    matrix[:2, :2] = celestial.wcs.cd if celestial.wcs.has_cd() else celestial.pixel_scale_matrix
    wcs.wcs.cd = matrix
    wcs.wcs.set()
    return wcs
