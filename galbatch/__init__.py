"""galbatch: survey-scale Bayesian inference on galaxy images."""

from importlib.metadata import version

__version__ = version("galbatch")
__all__ = ["__version__"]
