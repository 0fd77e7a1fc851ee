"""The files in which a survey's tiles are sought: by glob or folder, or by the rows of a table of tiles."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from galbatch import storage
from galbatch.config import SurveyConfig, is_tile_table
from galbatch.core.types import FileIdentity, Tile
from galbatch.errors import TileError
from galbatch.ingest.layouts import layout_of
from galbatch.ingest.tiles.table import TileRow, read_rows, with_planes

__all__ = ["TileSource", "find_sources", "listed_files", "tiles_in"]

ASDF = ".asdf"


@dataclass(frozen=True, slots=True)
class TileSource:
    """A file in which tiles are sought.

    `stated` is what a row of a table of tiles says of it, by the name of the column: empty for files found by
    glob or folder.
    """

    path: str
    identity: FileIdentity
    stated: tuple[tuple[str, Any], ...] = ()

    @property
    def key(self) -> str:
        """Key of the source in the tile index: path and row."""
        return f"{self.path} {json.dumps(self.stated)}" if self.stated else self.path


def find_sources(survey: SurveyConfig) -> list[TileSource]:
    """Return the files that may hold tiles in the survey's bands, from one listing; none is opened.

    Raises
    ------
    TileError
        The table of tiles cannot be read, has wrong columns, or names files that are not there.
    """
    if is_tile_table(survey.tiles):
        return _sources_of(read_rows(survey), survey.tiles)
    layout = layout_of(survey.layout)
    sources = [
        TileSource(path, identity)
        for path, identity in listed_files(survey).items()
        if layout.wants(path, survey) and not path.lower().endswith(ASDF)
    ]
    if not sources:
        _require_no_asdf(survey.tiles)
    return sources


def _require_no_asdf(tiles: str) -> None:
    """Raise where `tiles` names ASDF files alone: a message that no file matches would not say why."""
    found = [path for path in storage.find_identities(tiles, suffixes=(ASDF,)) if path.lower().endswith(ASDF)]
    if found or tiles.lower().endswith(ASDF):
        there = f" ({len(found)} are there, such as {found[0]})" if found else ""
        raise TileError(
            f"[survey] tiles = {tiles!r}: Roman's ASDF files are not read{there}; write the images as FITS, with their WCS "
            "and their unit in BUNIT"
        )


def listed_files(survey: SurveyConfig) -> dict[str, FileIdentity]:
    """Return the files that ``[survey] tiles`` names by a path, a folder or a glob and that may be the layout's, by their paths."""
    suffixes = layout_of(survey.layout).suffixes
    found = storage.find_identities(survey.tiles, suffixes=suffixes)
    # `*_image*` matches checksums and previews, too; a pattern that ends otherwise says itself which files are meant.
    if survey.tiles.endswith(("*", "?", "]")):
        return {path: identity for path, identity in found.items() if path.lower().endswith(suffixes)}
    return found


def tiles_in(source: TileSource, survey: SurveyConfig, files: storage.FileAccessLog) -> list[Tile]:
    """Return the tiles of one file in the survey's bands, read from its headers alone.

    Parameters
    ----------
    files : records which other files were looked at

    Raises
    ------
    TileError
        The file is not what the layout says, or not what its row in the table of tiles says.
    """
    tiles = _read(source, survey, files)
    # Of packed files no part can be read alone, which the costs of reading need to know.
    for number, tile in enumerate(tiles if files.packed else ()):
        planes = {name: getattr(tile, name) for name in ("image", "mask", "weight", "psf")}
        packed: dict[str, Any] = {
            name: dataclasses.replace(plane, packed=True)
            for name, plane in planes.items()
            if plane is not None and plane.path in files.packed
        }
        tiles[number] = dataclasses.replace(tile, **packed)
    return tiles


def _read(source: TileSource, survey: SurveyConfig, files: storage.FileAccessLog) -> list[Tile]:
    """Return the tiles of one file as its layout reads them, with what its row in a table of tiles says."""
    stated = dict(source.stated)
    read = layout_of(survey.layout).tiles_in(source.path, _as_stated(survey, stated), files)
    # Without an identity of its own a tile is what its image's file is.
    tiles = [
        tile if tile.identity else dataclasses.replace(tile, identity=files.identity(tile.image.path))
        for tile in read
    ]
    if not stated:
        return tiles
    tiles = [with_planes(tile, stated, survey, files) for tile in tiles]
    if not tiles:
        asked = f" in band {stated['band']}" if "band" in stated else ""
        raise TileError(
            f"{survey.tiles}: {source.path} holds no tile{asked} of layout {survey.layout}; correct the row, or take it out"
        )
    if "tile_id" not in stated:
        return tiles
    if len({tile.band for tile in tiles}) < len(tiles):
        raise TileError(
            f"{survey.tiles}: {source.path} holds {len(tiles)} tiles, tile_id {stated['tile_id']} can name one in each "
            "band; leave tile_id empty"
        )
    return [dataclasses.replace(tile, tile_id=str(stated["tile_id"])) for tile in tiles]


def _as_stated(survey: SurveyConfig, stated: Mapping[str, Any]) -> SurveyConfig:
    """Return the survey for one file: values in its row of the table replace the keys of [survey]."""
    changes: dict[str, Any] = {name: stated[name] for name in ("release", "background") if name in stated}
    bands = survey.bands
    if "band" in stated:
        bands = (stated["band"],)
        # A stamp takes its band from [survey.stamps] where neither its cards nor its name have one.
        changes["stamps"] = survey.stamps.model_copy(update={"band": stated["band"]})
    generic = {"image": stated["hdu"]} if "hdu" in stated else {}
    # A mask or weight of the row replaces the one that the config names for all files.
    generic |= {
        name: None
        for role in ("mask", "weight")
        if role in stated or f"{role}_hdu" in stated
        for name in (role, f"{role}_replace")
    }
    if generic:
        changes["generic"] = survey.generic.model_copy(update=generic)
    if "psf_fwhm_arcsec" in stated:
        changes["psf_fwhm_arcsec"] = dict.fromkeys(bands, stated["psf_fwhm_arcsec"])
    if "zero_point_mag" in stated:
        changes["zero_point_mag"] = stated["zero_point_mag"]
    return survey.model_copy(update={"bands": bands, **changes})


def _sources_of(rows: list[TileRow], table: str) -> list[TileSource]:
    """Return the files of a table of tiles, all of which must be there, with those of masks, weights and PSF maps."""
    # All at once: on an object store this is one listing of the folder instead of a request for each file.
    wanted = list(dict.fromkeys(path for row in rows for path in row.paths))
    found = storage.identities(wanted)
    missing = [path for path in wanted if found[path] is None]
    if missing:
        raise TileError(
            f"{table}: {len(missing)} of {len(wanted)} files are not there: {', '.join(missing[:3])}; fetch them, or "
            "take their rows out"
        )
    # A row that says nothing but the path is still a row: its file must hold a tile.
    return [
        TileSource(row.path, identity, row.stated or (("path", row.path),))
        for row in rows
        if (identity := found[row.path]) is not None
    ]
