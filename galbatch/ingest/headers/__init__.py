"""FITS headers -> tiles: what a pixel's number means (calibration), where it lies (wcs, lattice), what makes a tile.

`make_tile` and `add_plane` are what a layout's adapter calls; it finds the number of nJy in one image unit by
`calibrated_njy` and the functions whose results that takes. A WCS is accepted or refused in one place, `accepted_wcs`.
"""

from galbatch.ingest.headers.calibration import (
    NJY_OF_UNIT,
    ZERO_POINT_CARDS,
    calibrated_njy,
    njy_of_fluxmag0,
    njy_of_unit,
    njy_of_zero_point_cards,
    stated_njy,
)
from galbatch.ingest.headers.lattice import (
    TanWCS,
    is_plain_lattice,
    lattice_key,
    plain_key,
    tan_wcs,
    tile_tan,
)
from galbatch.ingest.headers.photocalib import njy_of_photocalib
from galbatch.ingest.headers.tile import Planes, add_plane, combined_identity, make_tile
from galbatch.ingest.headers.wcs import (
    accepted_wcs,
    celestial_header,
    corners_deg,
    parse_wcs,
    pixel_scale_arcsec,
)

__all__ = [
    "NJY_OF_UNIT",
    "ZERO_POINT_CARDS",
    "Planes",
    "TanWCS",
    "accepted_wcs",
    "add_plane",
    "calibrated_njy",
    "celestial_header",
    "combined_identity",
    "corners_deg",
    "is_plain_lattice",
    "lattice_key",
    "make_tile",
    "njy_of_fluxmag0",
    "njy_of_photocalib",
    "njy_of_unit",
    "njy_of_zero_point_cards",
    "parse_wcs",
    "pixel_scale_arcsec",
    "plain_key",
    "stated_njy",
    "tan_wcs",
    "tile_tan",
]
