"""Training: from images and labels to a network with its metadata. It takes arrays, from any source."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
