from .checksums import leaf_damage, remove_leaf
from .collection import (
    collection_path,
    collection_problems,
    index_note,
    make_index,
    make_margin,
    write_footprint,
)
from .finishing import doubts, finish, model_property, read_properties
from .growth import BaseRows
from .layout import CATALOG_ENTRIES, checksum_path, damaged_leaf, leaf_path, leaves_of, list_leaves
from .leaves import BUNDLES_KEY, read_footer, write_leaf
from .reading import (
    FoundObject,
    cone,
    find_objects,
    leaf_ids,
    listed_columns,
    parse_ids,
    read_catalog,
    read_objects,
    read_schema,
    require_columns,
)
from .scanning import AtIndices, Cone, InPixel, RowCondition, RowLimits, scan
from .schema import column_field, leaf_schema
from .verifying import Checked, check, verify

__all__ = [
    "BUNDLES_KEY",
    "CATALOG_ENTRIES",
    "AtIndices",
    "BaseRows",
    "Checked",
    "Cone",
    "FoundObject",
    "InPixel",
    "RowCondition",
    "RowLimits",
    "check",
    "checksum_path",
    "collection_path",
    "collection_problems",
    "column_field",
    "cone",
    "damaged_leaf",
    "doubts",
    "find_objects",
    "finish",
    "index_note",
    "leaf_damage",
    "leaf_ids",
    "leaf_path",
    "leaf_schema",
    "leaves_of",
    "list_leaves",
    "listed_columns",
    "make_index",
    "make_margin",
    "model_property",
    "parse_ids",
    "read_catalog",
    "read_footer",
    "read_objects",
    "read_properties",
    "read_schema",
    "remove_leaf",
    "require_columns",
    "scan",
    "verify",
    "write_footprint",
    "write_leaf",
]
