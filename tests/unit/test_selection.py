"""What is known of objects before any pixel."""

import numpy as np
import pyarrow as pa

from galbatch import sky
from galbatch.config import FlagsConfig
from galbatch.selection import object_flags
from galbatch.types import ObjectTable, PixelFlag


def test_neighbor_flags_come_from_the_whole_list():
    ra = np.array([10.0, 10.0 + 2 / 3600, 20.0, 359.99999, 0.00001])
    dec = np.zeros(5)
    table = ObjectTable(np.arange(5), ra, dec, sky.healpix_29(ra, dec), pa.table({"n": range(5)}))
    flags = object_flags(table, FlagsConfig(neighbor_radius_arcsec=3.0, duplicate_radius_arcsec=0.2))
    assert ((flags & PixelFlag.NEIGHBOR) != 0).tolist() == [True, True, False, True, True]
    assert ((flags & PixelFlag.DUPLICATE_POSITION) != 0).tolist() == [False, False, False, True, True]
    assert (
        object_flags(table, FlagsConfig(neighbor_radius_arcsec=0, duplicate_radius_arcsec=0)).tolist()
        == [0] * 5
    )
