"""From partitions to outputs: tasks, their submission, progress, finish.

A run is prepared (`prepare`: inputs to plan), executed (`execute`: partitions to cutouts and leaves, then the catalog's
metadata), read (`read_progress`), verified (`verify_against`) and cleaned (`clean`).

Names are loaded when they are first used (``__init__.pyi`` lists them): Dask's scheduler takes half a second, and
reading a catalog does without.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

CODE_OF_TASKS = f"{__name__}.submission"
"""The module that workers import, and with it all that cutting needs, while the run is planned. A first inference loads the rest."""
