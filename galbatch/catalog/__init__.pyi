from .finishing import finish, model_property, read_properties
from .layout import CATALOG_ENTRIES, list_leaves
from .leaves import BUNDLES_KEY, read_footer, write_leaf
from .reading import FoundObject, cone, find_objects, leaf_ids, read_catalog
from .schema import leaf_schema
from .verifying import verify

__all__ = [
    "BUNDLES_KEY",
    "CATALOG_ENTRIES",
    "FoundObject",
    "cone",
    "find_objects",
    "finish",
    "leaf_ids",
    "leaf_schema",
    "list_leaves",
    "model_property",
    "read_catalog",
    "read_footer",
    "read_properties",
    "verify",
    "write_leaf",
]
