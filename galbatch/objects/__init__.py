"""Object lists: tables in and out, what a list's rows mean, selections, neighbors, and the check of a new list.

`read_table` and `write_table` are for tables of any kind; `open_objects` gives the objects of a run in chunks that fit
in memory, and `SelectedObjects` adds to them what is known before any pixel: flags and each model's selection.

Names (listed in ``__init__.pyi``) are loaded when they are first used: a worker that cuts needs few of them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
