"""The networks that galbatch trains and computes with, the dropout inside their scripts, and the keys of its masks.

Names are loaded when they are first used (``__init__.pyi`` lists them): keys do without torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
