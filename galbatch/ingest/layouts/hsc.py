"""HSC coadds of PDR1, PDR2 and PDR3: one calexp file for each patch and band.

``deepCoadd-results/HSC-<B>/<tract>/<x,y>/calexp-HSC-<B>-<tract>-<x,y>.fits``: a primary header with
FLUXMAG0 (newer pipelines: a PhotoCalib in the archive, or nJy), then image, mask (plane names in MP_* cards)
and variance. Files of other names that hold "calexp" say tract, patch and band in their headers.

The release is read from the path (``pdr2_wide/..``). PDR2's coadds keep a sky that is subtracted over the whole
focal plane ("global sky"); PDR1 and PDR3 subtract it on small scales ("local sky").
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from galbatch.config import SurveyConfig
from galbatch.ingest.layouts import afw

__all__ = ["BACKGROUND_OF_RELEASE", "HscLayout", "release_in"]

# Not within a longer word, and the last of several in a path counts: it is in the deepest folder.
RELEASE = re.compile(r"(?<![a-z0-9])(pdr[1-9])(?![a-z0-9])", re.IGNORECASE)
BACKGROUND_OF_RELEASE = {"pdr1": "local sky", "pdr2": "global sky", "pdr3": "local sky"}


def release_in(path: str) -> str:
    """Return the release that the path names, such as ``pdr2``; "" if it names none."""
    found = RELEASE.findall(path)
    return found[-1].lower() if found else ""


class HscLayout(afw.AfwLayout):
    """Adapter of calexp patches."""

    expects = "calexp-HSC-<B>-<tract>-<x,y>.fits"

    def wants(self, path: str, survey: SurveyConfig) -> bool:
        if "calexp" not in PurePosixPath(path).name:
            return False
        return afw.may_be_in_bands(path, survey.bands)

    def release_and_background(self, path: str, stated_release: str) -> tuple[str, str]:
        release = stated_release or release_in(path)
        return release, BACKGROUND_OF_RELEASE.get(release, "")
