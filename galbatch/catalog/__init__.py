"""Posteriors and flags -> the leaves of a HATS catalog; finishing, reading and verifying the catalog.

::

    catalog/
    ├── dataset/Norder=k/Dir=d/Npix=n.parquet    leaves, one a partition: each whole or not there
    ├── dataset/_common_metadata, _metadata      written by `finish`, as are all below
    ├── partition_info.csv, skymap.fits, point_map.fits
    ├── properties, hats.properties              last: with them the catalog opens
    └── .staging/                                files on their way; outside dataset/, which readers list

pandas reads ``catalog/dataset``; LSDB and hats open ``catalog``; TOPCAT opens a leaf, with units and UCDs
from the VOTable in its footer (VOParquet).

Names are loaded when they are first used (``__init__.pyi`` lists them): hats takes half a second.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
