"""The HATS catalog: writing its leaves, finishing, reading and verifying it.

::

    catalog/
    ├── dataset/Norder=k/Dir=d/Npix=n.parquet    leaves: one Parquet file per partition
    ├── dataset/_common_metadata, _metadata      written by `finish`, as all files below
    ├── partition_info.csv, skymap.fits, point_map.fits
    ├── properties, hats.properties              written last: without them no reader opens the catalog
    └── .staging/                                temporary files; outside dataset/, which readers list

pandas reads ``catalog/dataset``; LSDB and hats open ``catalog``; astropy reads a leaf, with units and UCDs. Those stand
in its footer, also as a VOTable (VOParquet) for tools of the Virtual Observatory.

Names (listed in ``__init__.pyi``) are imported at first use, because importing hats takes half a second.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
