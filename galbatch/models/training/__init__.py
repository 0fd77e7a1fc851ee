"""From images and labels to a network with its metadata. Training takes arrays and knows nothing of where they come from."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
