"""Whether posteriors cover the truth as often as they say, and the dropout rate and inflation factors that make them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
