from .checksums import leaf_damage, remove_leaf
from .finishing import finish, model_property, read_properties
from .layout import CATALOG_ENTRIES, checksum_path, damaged_leaf, leaf_path, list_leaves
from .leaves import BUNDLES_KEY, read_footer, write_leaf
from .reading import (
    FoundObject,
    cone,
    find_objects,
    leaf_ids,
    leaves_of,
    parse_ids,
    read_catalog,
    read_objects,
    read_schema,
    require_columns,
)
from .scanning import Cone, RowCondition, RowLimits, scan
from .schema import column_field, leaf_schema
from .verifying import Checked, check, verify

__all__ = [
    "BUNDLES_KEY",
    "CATALOG_ENTRIES",
    "Checked",
    "Cone",
    "FoundObject",
    "RowCondition",
    "RowLimits",
    "check",
    "checksum_path",
    "column_field",
    "cone",
    "damaged_leaf",
    "find_objects",
    "finish",
    "leaf_damage",
    "leaf_ids",
    "leaf_path",
    "leaf_schema",
    "leaves_of",
    "list_leaves",
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
    "write_leaf",
]
