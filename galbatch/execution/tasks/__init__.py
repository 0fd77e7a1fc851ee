"""The work on one partition, in plain Python without Dask: cut its objects, measure them, or run the networks and write its leaf.

Tasks are idempotent: each writes only the groups and the leaf of its own partition, and the last step commits the whole.
Running a task twice, or on another worker after the first one died, gives the same output.

Names (listed in ``__init__.pyi``) are loaded when they are first used: a worker that cuts needs few of them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
