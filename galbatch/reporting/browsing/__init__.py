"""A local page to look through a catalog: map of the sky, scatter of two columns, flags as filters, one object at a click."""

from galbatch.reporting.browsing.serving import PageServer, serve_catalog

__all__ = ["PageServer", "serve_catalog"]
