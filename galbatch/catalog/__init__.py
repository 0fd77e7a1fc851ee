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
"""

from galbatch.catalog.finishing import finish, read_properties
from galbatch.catalog.layout import CATALOG_ENTRIES, list_leaves
from galbatch.catalog.leaves import read_footer, write_leaf
from galbatch.catalog.reading import cone, leaf_ids, read_catalog
from galbatch.catalog.schema import leaf_schema
from galbatch.catalog.verifying import verify

__all__ = [
    "CATALOG_ENTRIES",
    "cone",
    "finish",
    "leaf_ids",
    "leaf_schema",
    "list_leaves",
    "read_catalog",
    "read_footer",
    "read_properties",
    "verify",
    "write_leaf",
]
