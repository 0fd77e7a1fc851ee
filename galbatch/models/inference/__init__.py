"""Inference: from a block of cutouts to result columns, with as many passes of the network as each object needs."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
