"""Engines, which run a network: the bundle's own script, or faster modules made from its weights.

They run on a CPU or a GPU, and in several precisions.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
