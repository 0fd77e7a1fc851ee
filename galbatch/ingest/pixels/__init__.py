"""Windows of pixels from FITS and HDF5 files of any storage, masks in galbatch's bits, and what reading costs."""

from galbatch.ingest.pixels.cost import ExpectedReads, ReadCost, read_cost, tile_read_cost
from galbatch.ingest.pixels.fits_files import (
    FETCH_AGAIN,
    FITS_SUFFIXES,
    first_image,
    hdu_at,
    ignore_astropy,
    n_moved_by_fpack,
    open_fits,
    quiet_astropy,
    require_whole,
    require_whole_file,
    stem_of,
)
from galbatch.ingest.pixels.hdf5 import HDF5_SUFFIXES, Hdf5File, open_hdf5
from galbatch.ingest.pixels.masks import (
    MASK_BIT_OF_PLANE,
    NO_BITS,
    NONZERO,
    ZERO,
    NamedBits,
    decode_mask,
    maskbits,
    named_bits,
    plane_bits,
    require_bits,
)
from galbatch.ingest.pixels.planes import Box, described
from galbatch.ingest.pixels.reader import Pixels, TileReader, fill_plane

__all__ = [
    "FETCH_AGAIN",
    "FITS_SUFFIXES",
    "HDF5_SUFFIXES",
    "MASK_BIT_OF_PLANE",
    "NONZERO",
    "NO_BITS",
    "ZERO",
    "Box",
    "ExpectedReads",
    "Hdf5File",
    "NamedBits",
    "Pixels",
    "ReadCost",
    "TileReader",
    "decode_mask",
    "described",
    "fill_plane",
    "first_image",
    "hdu_at",
    "ignore_astropy",
    "maskbits",
    "n_moved_by_fpack",
    "named_bits",
    "open_fits",
    "open_hdf5",
    "plane_bits",
    "quiet_astropy",
    "read_cost",
    "require_bits",
    "require_whole",
    "require_whole_file",
    "stem_of",
    "tile_read_cost",
]
