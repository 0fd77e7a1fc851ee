"""A catalog in Python: rows narrowed by place, id, flags and expressions, read as a table, and single objects."""

from galbatch.api.catalogs.catalog import Catalog, open_catalog
from galbatch.api.catalogs.densities import DensityColumn, WrittenEnsemble, density_columns, write_qp
from galbatch.api.catalogs.objects import CatalogObject
from galbatch.api.catalogs.similar import find_similar
from galbatch.api.catalogs.tables import as_qtable

__all__ = [
    "Catalog",
    "CatalogObject",
    "DensityColumn",
    "WrittenEnsemble",
    "as_qtable",
    "density_columns",
    "find_similar",
    "open_catalog",
    "write_qp",
]
