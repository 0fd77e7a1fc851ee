"""Planning of a run: the sky is divided into partitions, whose bytes, requests and memory are projected.

Names (listed in ``__init__.pyi``) are loaded when they are first used: a worker that cuts needs few of them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
