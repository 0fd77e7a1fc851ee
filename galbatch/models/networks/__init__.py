"""The network architectures that galbatch trains, the dropout layers inside their scripts, and the keys of their masks.

Names are loaded when they are first used (``__init__.pyi`` lists them), as keys do not need torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
