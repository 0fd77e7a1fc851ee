"""How a network is executed: its own script, or the native engine made of its weights, in which precision and on which device."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
