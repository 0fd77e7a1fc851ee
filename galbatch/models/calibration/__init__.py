"""Calibration: how often posteriors cover the truth, and the dropout rate and inflation factors with which they cover it as often as stated."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
