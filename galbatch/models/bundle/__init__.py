"""Bundles, which are files with a network and its metadata: reading, checks, writing, model cards and ensembles.

Names are loaded when they are first used (``__init__.pyi`` lists them), as cards and paths do not need torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
