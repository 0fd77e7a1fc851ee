"""Cutouts to posteriors: bundles, architectures, sampling, posterior, training.

The only door to torch. A bundle is a TorchScript file with its metadata inside; `infer_block` runs it on a
block of cutouts and gives the result columns. Training takes arrays and knows nothing of where they come from.

Names are loaded when they are first used (``__init__.pyi`` lists them): torch takes a second and 200 MB, and
workers that only cut do without.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
