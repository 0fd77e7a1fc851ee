"""The catalog of a folder of stamps: one row per stamp with its file name and position."""

from __future__ import annotations

import functools
import math
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from galbatch import storage
from galbatch.config import StampsConfig
from galbatch.core.types import FileIdentity, Tile
from galbatch.errors import TileError
from galbatch.ingest.headers import parse_wcs
from galbatch.ingest.pixels import stem_of
from galbatch.objects import degrees_of, read_table
from galbatch.storage import FileAccessLog

__all__ = ["north_up_wcs", "position_in_catalog", "require_inside"]

CATALOG_NAME = "info.csv"  # GaMPEN's


def position_in_catalog(
    path: str, config: StampsConfig, files: FileAccessLog, *, where: str
) -> tuple[str, tuple[float, float]] | None:
    """Return the catalog's path, and (ra, dec) of the stamp by it, deg.

    The catalog is the one that the config names, or info.csv in the stamp's folder or the one above. None if there is
    none, or if one that the config does not name has no positions.

    Raises
    ------
    TileError
        The catalog lacks the stamp.
    """
    catalog = config.catalog
    folder = path.rpartition("/")[0]
    for place in () if catalog else (folder, folder.rpartition("/")[0]):
        if place and files.exists(storage.join(place, CATALOG_NAME)):
            catalog = storage.join(place, CATALOG_NAME)
            break
    if not catalog:
        return None
    columns = (config.file, config.ra, config.dec)
    # A catalog that the config does not name may be about something else, and is then done without.
    known = _positions(catalog, columns, files.identity(catalog), bool(config.catalog))
    if not known:
        return None
    # A stamp that was packed or renamed since keeps its row.
    stems = {stem_of(file): file for file in known}
    name = PurePosixPath(path).name
    name = name if name in known else stems.get(stem_of(path), name)
    if name not in known:
        raise TileError(
            f"{where}: {catalog} has no row with {config.file} = {name} and a position; add it, or exclude the stamp"
        )
    return catalog, known[name]


# Stamps are read one by one, and each asks for the same catalog; a task rarely sees more than one.
@functools.lru_cache(maxsize=8)
def _positions(
    catalog: str, columns: tuple[str, str, str], identity: FileIdentity, required: bool
) -> dict[str, tuple[float, float]]:
    """Return (ra, dec) in deg by file name; `identity` is there so that a changed catalog is read again."""
    if not required and not set(columns) <= set(read_table(catalog).column_names):
        return {}
    table = read_table(catalog, columns=columns)
    files = table[columns[0]].to_pylist()
    ra, dec = (_degrees(catalog, table, name) for name in columns[1:])
    return {
        # Catalogs name the file in the folder of whoever wrote them: only the last part is compared.
        PurePosixPath(str(file)).name: _position(a, d, f"{catalog}: row of {file}")
        for file, a, d in zip(files, ra, dec, strict=True)
        # NaN is what many tables have for none.
        if file is not None and None not in (a, d) and a == a and d == d
    }


def _degrees(catalog: str, table: pa.Table, name: str) -> list[Any]:
    """Return a column of positions: numbers in degrees, whatever angle their unit is; text as it is."""
    kind = table.schema.field(name).type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        return degrees_of(catalog, table, name).tolist()
    values: list[Any] = table[name].to_pylist()
    return values


def _position(ra: Any, dec: Any, where: str) -> tuple[float, float]:
    """Return a row's position as numbers."""
    try:
        position = float(ra), float(dec)
    except (TypeError, ValueError):
        position = math.inf, math.inf
    if math.isinf(position[0]) or abs(position[1]) > 90.0:
        raise TileError(f"{where}: {ra!r}, {dec!r} is no position in deg; correct it, or take the row out")
    return position


def north_up_wcs(
    position: tuple[float, float], shape: tuple[int, ...], pixel_scale_arcsec: float | None, *, where: str
) -> dict[str, Any]:
    """Return the cards of a TAN projection, north up, with the position on the central pixel.

    Raises
    ------
    TileError
        The config has no pixel scale.
    """
    if pixel_scale_arcsec is None:
        raise TileError(
            f"{where}: no celestial WCS in the header; the catalog has the position, but the pixel scale is needed: "
            "[survey.stamps] pixel_scale_arcsec = .. (0.168 for HSC)"
        )
    scale_deg = pixel_scale_arcsec / 3600.0
    return {
        # Catalogs are ICRS. An EQUINOX without a WCS was that of the telescope's pointing.
        "RADESYS": "ICRS",
        "RADECSYS": "ICRS",
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": position[0],
        "CRVAL2": position[1],
        # FITS counts pixels from 1: the 0-based central pixel is size // 2.
        "CRPIX1": shape[-1] // 2 + 1.0,
        "CRPIX2": shape[-2] // 2 + 1.0,
        "CD1_1": -scale_deg,
        "CD1_2": 0.0,
        "CD2_1": 0.0,
        "CD2_2": scale_deg,
    }


def require_inside(tile: Tile, position: tuple[float, float], catalog: str) -> None:
    """Raise unless the tile's own WCS places the catalog's position, (ra, dec) in deg, on the stamp.

    Raises
    ------
    TileError
        The position is elsewhere: stamps and catalog were mixed up.
    """
    x, y = parse_wcs(tile.wcs_header).to_pixels(*position)
    ny, nx = tile.shape_px
    if not (-0.5 <= x <= nx - 0.5 and -0.5 <= y <= ny - 0.5):
        raise TileError(
            f"{tile.where}: its position in {catalog}, {position[0]:.6f} {position[1]:.6f}, is at pixel "
            f"({x:.1f}, {y:.1f}) of a stamp of {nx} x {ny} px; stamps and catalog do not belong together: correct "
            "[survey.stamps] file, ra, dec"
        )
