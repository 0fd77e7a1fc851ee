"""galbatch: survey-scale Bayesian inference on galaxy images.

Public names are loaded when they are first used. A new one is a line in ``__init__.pyi``; none has the name of a folder
of the package, because importing the folder would replace it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
# The number stands here, as a checkout without an installation has no other, and asking for an installed one takes longer
# than all of the rest of this file.
__version__ = "0.1.0"
__all__ += ["__version__"]
