"""How each survey lays out its files: one adapter a layout, all playing the part of `Layout`.

A new survey is one module here, one entry in `LAYOUTS`, and one subclass of the contract test.
"""

from __future__ import annotations

from typing import Protocol

from galbatch.config import SurveyConfig
from galbatch.errors import NotInThisVersion
from galbatch.ingest.layouts.hsc import Hsc
from galbatch.ingest.layouts.legacysurvey import LegacySurvey
from galbatch.ingest.layouts.stamps import Stamps
from galbatch.types import Tile

__all__ = ["LAYOUTS", "Layout", "layout_of"]


class Layout(Protocol):
    """What `read_tiles` asks of a survey's adapter."""

    expects: str
    """What its files look like, for error messages."""

    def wants(self, path: str, survey: SurveyConfig) -> bool:
        """Whether the name says that the file may hold tiles in the survey's bands; no I/O."""

    def tiles_in(self, path: str, survey: SurveyConfig) -> list[Tile]:
        """Tiles of one file in the survey's bands, read from its headers alone.

        Raises
        ------
        TileError
            The file is not what the layout says.
        """


LAYOUTS: dict[str, Layout] = {"hsc": Hsc(), "legacysurvey": LegacySurvey(), "stamps": Stamps()}


def layout_of(name: str) -> Layout:
    """The adapter of a layout.

    Raises
    ------
    NotInThisVersion
        The layout is documented, but not built yet.
    """
    if name not in LAYOUTS:
        raise NotInThisVersion(
            f"[survey] layout = {name!r} is not in this version; there are {', '.join(sorted(LAYOUTS))}"
        )
    return LAYOUTS[name]
