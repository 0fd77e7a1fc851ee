"""FITS headers -> tiles: what a pixel's number means (calibration), where it lies (wcs, frames, lattice), what makes a tile.

`make_tile` and `add_plane` are what a layout's adapter calls; it finds the number of nJy in one image unit by
`image_scale`, which has one precedence for all layouts. A WCS is accepted or refused in one place, `accepted_wcs`.
"""

from galbatch.ingest.headers.calibration import PixelScale, StatedScale, image_scale, scale_of_attribute
from galbatch.ingest.headers.cell_psf import with_cell_psf
from galbatch.ingest.headers.lattice import (
    SCALE_TOLERANCE_PX,
    TanWCS,
    is_plain_lattice,
    lattice_key,
    pixels_coincide,
    plain_key,
    tan_wcs,
    tile_tan,
)
from galbatch.ingest.headers.tile import Planes, add_plane, combined_identity, make_tile, with_bits
from galbatch.ingest.headers.wcs import (
    SkyWCS,
    accepted_wcs,
    corners_deg,
    north_up_corners_deg,
    parse_wcs,
    pixel_scale_arcsec,
    wcs_cards,
)

__all__ = [
    "SCALE_TOLERANCE_PX",
    "PixelScale",
    "Planes",
    "SkyWCS",
    "StatedScale",
    "TanWCS",
    "accepted_wcs",
    "add_plane",
    "combined_identity",
    "corners_deg",
    "image_scale",
    "is_plain_lattice",
    "lattice_key",
    "make_tile",
    "north_up_corners_deg",
    "parse_wcs",
    "pixel_scale_arcsec",
    "pixels_coincide",
    "plain_key",
    "scale_of_attribute",
    "tan_wcs",
    "tile_tan",
    "wcs_cards",
    "with_bits",
    "with_cell_psf",
]
