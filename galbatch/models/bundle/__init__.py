"""Bundle files: their metadata and script, loaded, checked, written; several as one network; their cards.

Names are loaded when they are first used (``__init__.pyi`` lists them): cards and paths do without torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
