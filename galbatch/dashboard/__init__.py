"""The progress of a running run: a page on the Dask dashboard, Prometheus metrics, bars or lines, a log next to the catalog.

Names (listed in ``__init__.pyi``) are loaded when they are first used: Dask and Bokeh take a second, and reading how far a
run is does without.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
