"""Coadds of the LSST pipelines: deepCoadd, deepCoadd_calexp, deep_coadd, and cell-based coadd files.

Known file names: ``deepCoadd_calexp_<tract>_<patch>_<band>_<skymap>_<run>.fits``, ``deep_coadd_<tract>_<patch>_..``
and ``template_coadd_..`` as a Butler exports them, ``calexp-<band>-<tract>-<patch>.fits`` and
``deepCoadd/<filter>/<tract>/<x,y>.fits`` of older repositories; the patch is an integer or "x,y". Any other file
must say them in its headers (TRACT, PATCH, BAND, also after ``LSST BUTLER DATAID``).

Fluxes are nJy where BUNIT says so, else calibrated by FLUXMAG0 or the PhotoCalib. Mask bits are known by name, from
MP_* or MSKN* cards. A cell-based coadd is read as the stitched image that its IMAGE, MASK and VARIANCE are; of
its other HDUs the JSON is looked at, for tract and patch, and the kernel images of its PSF, one for each cell. If its mask has more than 31 planes, the rest stands in
further MASK HDUs: they may hold what no flag uses, else the file is refused by name.

The files do not say what the background is: state it in [survey].
"""

from __future__ import annotations

import re

from galbatch.config import SurveyConfig
from galbatch.ingest.layouts import afw

__all__ = ["LsstLayout", "release_in"]

# Data previews and releases as folders and runs name them: dp0_2, DP1_v29, dr1; of several in one path
# the last counts, which is in the deepest folder.
RELEASE = re.compile(r"(?<![a-z0-9])(dp[0-9](?:[._][0-9](?![0-9]))?|dr[0-9]{1,2})(?![a-z0-9])", re.IGNORECASE)


def release_in(path: str) -> str:
    """Return the release that the path names, such as ``dp1`` or ``dp0.2``; "" if it names none."""
    found = RELEASE.findall(path)
    return found[-1].lower().replace("_", ".") if found else ""


class LsstLayout(afw.AfwLayout):
    """Adapter of deep coadds."""

    expects = "deep_coadd_<tract>_<patch>_<band>_..fits or deepCoadd_.., or with cards TRACT, PATCH and BAND"

    def wants(self, path: str, survey: SurveyConfig) -> bool:
        return afw.may_be_in_bands(path, survey.bands)

    def release_and_background(self, path: str, stated_release: str) -> tuple[str, str]:
        return release_in(path), ""
