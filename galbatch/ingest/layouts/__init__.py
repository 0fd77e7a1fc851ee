"""The layouts of surveys' files: one adapter a layout, each an implementation of `Layout`.

A new survey is one module here, one entry in `LAYOUTS`, its name in config, and one subclass of the contract test.
"""

from __future__ import annotations

from typing import Protocol

from galbatch.config import SurveyConfig
from galbatch.core.types import Tile
from galbatch.ingest.layouts import bands
from galbatch.ingest.layouts.bands import matching_band
from galbatch.ingest.layouts.galaxiesml import GalaxiesMlLayout
from galbatch.ingest.layouts.generic import GenericLayout
from galbatch.ingest.layouts.hdf5_stamps import Hdf5StampsLayout
from galbatch.ingest.layouts.hsc import HscLayout
from galbatch.ingest.layouts.legacysurvey import LegacySurveyLayout
from galbatch.ingest.layouts.lsst import LsstLayout
from galbatch.ingest.layouts.multimodaluniverse import MultimodalUniverseLayout
from galbatch.ingest.layouts.overrides import with_mask_bits
from galbatch.ingest.layouts.stamps import StampsLayout
from galbatch.storage import FileAccessLog

__all__ = ["LAYOUTS", "Layout", "layout_of", "matching_band", "said_of_bands", "with_mask_bits"]


class Layout(Protocol):
    """Reads the headers of one survey's files as tiles."""

    expects: str
    """Description of its files, for error messages."""
    suffixes: tuple[str, ...]
    """Endings of its files' names, in lower case: files of a folder that end otherwise are not looked at."""

    def wants(self, path: str, survey: SurveyConfig) -> bool:
        """Return whether the name, but for its suffix, says that the file may hold tiles in the survey's bands; no I/O."""

    def tiles_in(self, path: str, survey: SurveyConfig, files: FileAccessLog) -> list[Tile]:
        """Return the tiles of one file in the survey's bands, read from its headers alone.

        Parameters
        ----------
        files : answers questions about all other files, and records them: the tile index then sees when one of them changes

        Raises
        ------
        TileError
            The file is not what the layout says.
        """


LAYOUTS: dict[str, Layout] = {
    "hsc": HscLayout(),
    "lsst": LsstLayout(),
    "legacysurvey": LegacySurveyLayout(),
    "generic": GenericLayout(),
    "stamps": StampsLayout(),
    "galaxiesml": GalaxiesMlLayout(),
    "multimodaluniverse": MultimodalUniverseLayout(),
}


def said_of_bands(path: str, survey: SurveyConfig, files: FileAccessLog) -> str:
    """Return what a file says of its bands, in the words of the error that no tile is of a band that was asked for."""
    layout = layout_of(survey.layout)
    if isinstance(layout, Hdf5StampsLayout):
        return layout.said_of_bands(path, survey)
    if survey.generic.pattern and not layout.wants(path, survey):
        return f"{path} does not fit [survey.generic] pattern, or is by it of another band"
    return bands.said_of_bands(path, survey.bands, files)


def layout_of(name: str) -> Layout:
    """Return the adapter of a layout; the config has checked the name."""
    return LAYOUTS[name]
