"""galbatch: survey-scale Bayesian inference on galaxy images.

Public names are loaded when they are first used. A new one is a line in ``__init__.pyi``; none has the name of a folder
of the package, because importing the folder would replace it.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("galbatch")
__all__ += ["__version__"]
