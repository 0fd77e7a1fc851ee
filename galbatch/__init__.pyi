from .api import Catalog, CatalogObject, RunPlan, Store, open_catalog, open_store, plan, run
from .config import RunConfig, read_config
from .errors import GalbatchError, UsageError
from .execution import RunResult
from .models import Bundle, load_bundle
from .reporting import ComparisonOptions, compare

__all__ = [
    "Bundle",
    "Catalog",
    "CatalogObject",
    "ComparisonOptions",
    "GalbatchError",
    "RunConfig",
    "RunPlan",
    "RunResult",
    "Store",
    "UsageError",
    "__version__",
    "compare",
    "load_bundle",
    "open_catalog",
    "open_store",
    "plan",
    "read_config",
    "run",
]

__version__: str
