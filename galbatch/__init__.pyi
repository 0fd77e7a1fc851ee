from .api import (
    Catalog,
    CatalogObject,
    RunPlan,
    Store,
    Verification,
    open_catalog,
    open_store,
    plan,
    run,
    simulate,
    verify,
)
from .config import RunConfig, read_config
from .errors import GalbatchError, UsageError
from .execution import RunResult
from .models import Bundle, load_bundle
from .reporting import ComparisonOptions, compare, report
from .simulation import SimulatedSurvey

__all__ = [
    "Bundle",
    "Catalog",
    "CatalogObject",
    "ComparisonOptions",
    "GalbatchError",
    "RunConfig",
    "RunPlan",
    "RunResult",
    "SimulatedSurvey",
    "Store",
    "UsageError",
    "Verification",
    "__version__",
    "compare",
    "load_bundle",
    "open_catalog",
    "open_store",
    "plan",
    "read_config",
    "report",
    "run",
    "simulate",
    "verify",
]

__version__: str
