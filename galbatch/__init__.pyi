from .config import read_config

__all__ = ["__version__", "read_config"]

__version__: str
