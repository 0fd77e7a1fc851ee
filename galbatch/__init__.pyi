from .config import read_config
from .reporting import ComparisonOptions, compare

__all__ = ["ComparisonOptions", "__version__", "compare", "read_config"]

__version__: str
