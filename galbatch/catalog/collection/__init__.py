"""The HATS collection beside a catalog: what other tools need to match and search it, made when it is asked for.

::

    catalog_collection/
    ├── collection.properties        points to ../catalog, whose files stay where they are
    ├── margin_10arcsec/             the objects within 10 arcsec outside of each partition, by hats-import
    └── object_id_index/             the partition of each object id, in HATS's format

Without the margin a crossmatch loses pairs across borders of partitions; with the index an object is found without reading
the ids of all leaves. Each part records the state of the catalog that it was made from: one of an earlier state is stale.
"""

from galbatch.catalog.collection.footprint import write_footprint
from galbatch.catalog.collection.index import INDEX, index_note, make_index
from galbatch.catalog.collection.margin import make_margin
from galbatch.catalog.collection.state import collection_path, collection_problems

__all__ = [
    "INDEX",
    "collection_path",
    "collection_problems",
    "index_note",
    "make_index",
    "make_margin",
    "write_footprint",
]
