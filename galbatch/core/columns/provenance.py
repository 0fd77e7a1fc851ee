"""Provenance columns: the tiles that an object's cutout was made from, and what was measured in its pixels in each band.

They stand after the column ``flags`` and before those of the networks: ``tile_id``, ``n_tiles``, then seven for each band.
"""

from __future__ import annotations

from collections.abc import Sequence

from galbatch.core.columns.definitions import NO_TEXT, Column

__all__ = ["N_TILES", "TILE_ID", "band_columns", "provenance_columns", "provenance_names"]

UNKNOWN = "null: unknown"

SKY_SOURCE = "sky_source"
"""The array of `galbatch.core.flags.SkySource`."""

PSF_OF_STARS = "psf_fwhm_stars_arcsec"
"""The array of the PSF's width by stars."""

SKY_LEVEL, SKY_LEVEL_ERR = "sky_level_njy", "sky_level_err_njy"
"""The arrays of the level of the tile's sky and of its error."""

TILE_ID = Column(
    "tile_id",
    "string",
    "",
    "tile that covers the center, as the survey names it: tract and patch, or brick; empty: none",
    "meta.id;obs.image",
    NO_TEXT,
)
N_TILES = Column(
    "n_tiles",
    "int16",
    "",
    "number of tiles that the cutout was made from, each counted once however many bands it has; 0: none",
    "meta.number;obs.image",
    0,
)

OF_BAND = {
    "coverage": (
        "",
        f"share of the cutout's pixels that have data in band {{band}}; {UNKNOWN}",
        "stat.probability",
    ),
    "psf_fwhm_arcsec": (
        "arcsec",
        f"full width at half maximum of the PSF at the object in band {{band}}; {UNKNOWN}",
        "instr.obsty.seeing",
    ),
    "sky_sigma_njy": (
        "nJy",
        f"scatter of the sky from pixel to pixel in the cutout in band {{band}}; {UNKNOWN}",
        "stat.stdev;instr.skyLevel",
    ),
    "sky_source": (
        "",
        "where the scatter of the sky comes from in band {band}: 1 pixels along the cutout's edges in which nothing was detected, 2 "
        "windows of the tile, 3 the variance that the survey states; 0: unknown",
        "meta.code",
    ),
    PSF_OF_STARS: (
        "arcsec",
        "full width at half maximum of the PSF at the object in band {band} by stars of its tile; null: too few of them, or a store from before "
        "they were looked for",
        "instr.obsty.seeing",
    ),
    SKY_LEVEL: (
        "nJy",
        "level of the sky in band {band} a pixel of the cutout, the median of nine parts of strips of its tile, of the pixels in which nothing "
        "was detected; null: a small tile, or too little sky in it",
        "instr.skyLevel",
    ),
    SKY_LEVEL_ERR: (
        "nJy",
        "error of the level of the sky in band {band}, by the scatter from part to part and the light of undetected sources; null as the level",
        "stat.error;instr.skyLevel",
    ),
}
"""Unit, description and UCD of the columns of a band, by the first part of their names, which are those of the store's arrays."""


def band_columns(band: str) -> dict[str, Column]:
    """Return the columns of a band, by the names of the arrays of `galbatch.core.types.CutoutBlock` that they hold."""
    return {
        name: Column(f"{name}_{band}", "int16", unit, text.format(band=band), ucd, 0)
        if name == SKY_SOURCE
        else Column(f"{name}_{band}", "float32", unit, text.format(band=band), ucd)
        for name, (unit, text, ucd) in OF_BAND.items()
    }


def provenance_columns(bands: Sequence[str]) -> list[Column]:
    """Return the provenance columns of a catalog whose cutouts have `bands`, in the order of the leaf."""
    return [TILE_ID, N_TILES, *(column for band in bands for column in band_columns(band).values())]


def provenance_names(names: Sequence[str]) -> list[str]:
    """Return the provenance columns that a list of result columns begins with; none in catalogs that lack them.

    The columns of a band come together, so that a network called ``coverage`` is not taken for one of them.
    """
    fixed = [TILE_ID.name, N_TILES.name]
    if list(names[: len(fixed)]) != fixed:
        return []
    stop = len(fixed)
    while stop < len(names):
        _, _, band = names[stop].partition("_")
        expected = [column.name for column in band_columns(band).values()]
        # Older catalogs lack the level of the sky, still older ones the width of stars, and those of INGEST_VERSION 6 also where the sky noise comes from.
        ends = [len(expected), *(list(OF_BAND).index(name) for name in (SKY_LEVEL, PSF_OF_STARS, SKY_SOURCE))]
        there = (expected[:end] for end in ends)
        found = next((one for one in there if one == list(names[stop : stop + len(one)])), None)
        if found is None:
            break
        stop += len(found)
    return list(names[:stop])
