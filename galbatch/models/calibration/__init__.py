"""Calibration: the coverage of posteriors, and the dropout rate and inflation factors with which it is nominal."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
