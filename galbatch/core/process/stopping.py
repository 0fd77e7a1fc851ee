"""Signals that ask a run to stop: SIGTERM and SIGINT."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["STOPPED_EXIT_CODE", "Interrupted", "deferred_signals", "signals_interrupt"]

STOPPED_EXIT_CODE = 75
"""Exit code of a command that was asked to stop: EX_TEMPFAIL of sysexits.h, as the same command continues later."""

ASKING = (signal.SIGTERM, signal.SIGINT)

FINISH = ("importlib", "pydantic")
"""Packages whose calls a signal does not interrupt.

Between two lines of the import system an exception can leave a lock of it held, for which threads that import then wait for ever.
What compiles pydantic's models makes a SchemaError of any exception."""

AGAIN_S = 0.05
"""A signal that meets a call of `FINISH` is looked at again after this time, in seconds."""


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


class _Interrupting:
    """Handlers of signals and of exceptions within `signals_interrupt`."""

    def __init__(self, outside: int, answers: tuple[type[Exception], ...]) -> None:
        self.outside, self.answers = outside, answers
        self.raised = ""
        self.waiting: dict[int, threading.Timer] = {}
        self.hook_before = sys.unraisablehook

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        if _n_finishing(frame) > self.outside:
            self.send_again(number)
        else:
            self.raised = signal.Signals(number).name
            raise Interrupted(self.raised)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.raised and isinstance(error, Exception) and not isinstance(error, self.answers):
            raise Interrupted(self.raised) from error

    def see_ignored(self, ignored: Any) -> None:
        if isinstance(ignored.exc_value, Interrupted):
            self.send_again(signal.Signals[str(ignored.exc_value)])
        else:
            self.hook_before(ignored)

    def send_again(self, number: int) -> None:
        if number in self.waiting:
            self.waiting[number].cancel()
        self.waiting[number] = threading.Timer(AGAIN_S, os.kill, (os.getpid(), number))
        self.waiting[number].daemon = True
        self.waiting[number].start()


@contextmanager
def signals_interrupt(*answers: type[Exception]) -> Iterator[None]:
    """Within the context, SIGTERM and SIGINT raise `Interrupted`, so that locks are given back and workers end.

    One that comes during an import, or while pydantic makes a model, waits for its end. An `Interrupted` that is raised where Python
    ignores exceptions, as in ``__del__``, is raised again. An exception that follows one is what a library made of it, and leaves the
    context as `Interrupted`, unless it is among `answers`: those by which a command says itself how it ends.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    within = _Interrupting(_n_finishing(sys._getframe()), answers)
    before = {number: signal.getsignal(number) for number in ASKING}
    sys.unraisablehook = within.see_ignored
    for number, handler in before.items():
        # Shells let programs in the background ignore SIGINT.
        if handler is not signal.SIG_IGN:
            signal.signal(number, within.interrupt)
    try:
        with within:
            yield
    finally:
        for timer in within.waiting.values():
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        sys.unraisablehook = within.hook_before


def _n_finishing(frame: FrameType | None) -> int:
    """Return how many frames of a stack are of packages in `FINISH`."""
    found = 0
    while frame is not None:
        found += frame.f_globals.get("__name__", "").partition(".")[0] in FINISH
        frame = frame.f_back
    return found
