"""The process that galbatch runs in: signals that stop it, and packages that may not be installed."""

from galbatch.core.process.extras import EXTRAS, OptionalPackage, how_to_install, require
from galbatch.core.process.stopping import STOPPED_EXIT_CODE, deferred_signals, signals_interrupt

__all__ = [
    "EXTRAS",
    "STOPPED_EXIT_CODE",
    "OptionalPackage",
    "deferred_signals",
    "how_to_install",
    "require",
    "signals_interrupt",
]
