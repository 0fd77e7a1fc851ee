"""Signals that ask a run to stop: SIGTERM and SIGINT."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["STOPPED_EXIT_CODE", "Interrupted", "deferred_signals", "signals_interrupt"]

STOPPED_EXIT_CODE = 75
"""Exit code of a command that was asked to stop: EX_TEMPFAIL of sysexits.h, as the same command continues later."""

ASKING = (signal.SIGTERM, signal.SIGINT)

AFTER_IMPORT_S = 0.05
"""A signal that comes during an import is looked at again after this time, in seconds."""


@contextmanager
def deferred_signals() -> Iterator[Callable[[], str]]:
    """Note a first SIGTERM or SIGINT inside the context; a second one acts as it does outside.

    Yields
    ------
    callable
        Returns the name of the signal that has come, "" if none has.
    """
    came: list[str] = []
    # Python runs handlers in the main thread only, and lets no other thread set them.
    if threading.current_thread() is not threading.main_thread():
        yield lambda: ""
        return
    before = {number: signal.getsignal(number) for number in ASKING}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def note(number: int, frame: FrameType | None) -> None:
        came.append(signal.Signals(number).name)
        restore()

    for number in ASKING:
        signal.signal(number, note)
    try:
        yield lambda: came[0] if came else ""
    finally:
        restore()


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to stop.

    A class of its own: where a plain KeyboardInterrupt passes through ``exec`` of a text, as while modules are imported, Python ends
    by SIGINT whatever exit code is asked for (CPython's ``unhandled_keyboard_interrupt``).
    """


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Within the context, SIGTERM and SIGINT raise `Interrupted`, so that locks are given back and workers end.

    One that comes during an import waits for its end. An exception between two lines of the import system can leave a lock of it held,
    for which threads that import then wait for ever, or be lost in a callback whose exceptions Python ignores.
    """
    outside = _n_importing(sys._getframe())
    waiting: dict[int, threading.Timer] = {}

    def interrupt(number: int, frame: FrameType | None) -> None:
        if _n_importing(frame) <= outside:
            raise Interrupted(signal.Signals(number).name)
        if number in waiting:
            waiting[number].cancel()
        waiting[number] = threading.Timer(AFTER_IMPORT_S, os.kill, (os.getpid(), number))
        waiting[number].daemon = True
        waiting[number].start()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ASKING}
    for number, handler in before.items():
        # Shells let programs in the background ignore SIGINT.
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for timer in waiting.values():
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _n_importing(frame: FrameType | None) -> int:
    """Return how many frames of a stack are the import system's."""
    found = 0
    while frame is not None:
        found += frame.f_code.co_filename.startswith("<frozen importlib")
        frame = frame.f_back
    return found
