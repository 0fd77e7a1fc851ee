"""From cutouts to posteriors: bundles, network architectures, engines, inference, training and calibration.

This is the only part of galbatch that imports torch. A bundle is a TorchScript file with its metadata inside; `infer_block` runs
it on a block of cutouts and returns the result columns. Training takes arrays from any source.

Names are loaded when they are first used (``__init__.pyi`` lists them), as torch takes a second and 200 MB, and workers that
only make cutouts do not need it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
