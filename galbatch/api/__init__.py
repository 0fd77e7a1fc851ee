"""Functions for users of a finished catalog, which the command line calls too: objects by name and place, cutouts, joint draws.

The names that users know, `open_catalog`, `open_store`, `plan` and `run`, are those of ``import galbatch``. Names (listed in
``__init__.pyi``) are loaded when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
