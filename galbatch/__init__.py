"""galbatch: survey-scale Bayesian inference on galaxy images.

Public names are loaded when they are first used. A new one is a line in ``__init__.pyi``; none has the name of a folder
of the package, because importing the folder would replace it.
"""

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]


def __getattr__(name: str) -> object:
    if name != "__version__":
        return _load(name)
    # Loaded here: it takes longer than all of the rest.
    from importlib.metadata import version

    globals()[name] = version("galbatch")
    return globals()[name]
