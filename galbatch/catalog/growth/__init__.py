"""Growth: rows of an older catalog that a new one takes, and catalogs that are merged."""

from galbatch.catalog.growth.base import BaseRows

__all__ = ["BaseRows"]
