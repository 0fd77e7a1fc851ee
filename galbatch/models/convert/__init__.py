"""Conversion of published weights, and of foreign TorchScript networks, to bundles."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
