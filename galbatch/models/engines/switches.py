"""Process-wide switches of torch, each changed inside a ``with`` block only and restored behind it.

A process that computes with galbatch also computes with other libraries: none of them may find TF32 off, or denormal
numbers flushed, because a catalog was made before.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import torch

__all__ = ["denormals_flushed", "in_repeatable_float32", "repeatable_float32", "tf32_allowed"]

Method = TypeVar("Method", bound=Callable[..., Any])


@contextlib.contextmanager
def tf32_allowed(allowed: bool) -> Iterator[None]:
    """Let a GPU round the factors of float32 products to TF32 inside the block, or forbid it.

    TF32 has 10 bits of mantissa: its products are off by 0.05 %, in exchange for up to eight times the speed.
    """
    backends: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn]
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = allowed
    try:
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


@contextlib.contextmanager
def denormals_flushed() -> Iterator[None]:
    """Flush denormal numbers to 0 in this thread: weights of dead channels decay into them, and each slows a CPU a hundredfold."""
    # Torch has no question for the state of this switch, so the processor is asked: half of the smallest normal number is
    # denormal. The smallest one is read at run time, as a constant would be folded by the compiler.
    was_on = sys.float_info.min / 2.0 == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_on)


class _Repeatable:
    """Keeps GPUs exact and repeatable as long as any thread asks for it; the last one to leave restores what was there.

    Two threads of one process may run passes at a time. If each restored what it had found, the first to leave would
    switch TF32 on under the other, or the last would restore what the first had set.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._held = contextlib.ExitStack()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Hold the switches inside the block."""
        with self._lock:
            if self._users == 0:
                self._held.enter_context(tf32_allowed(False))
                self._held.callback(_set_deterministic, torch.backends.cudnn.deterministic)
                _set_deterministic(True)
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._held.close()


def _set_deterministic(value: bool) -> None:
    torch.backends.cudnn.deterministic = value


_repeatable = _Repeatable()


@contextlib.contextmanager
def repeatable_float32(device: torch.device) -> Iterator[None]:
    """Inside the block float32 means float32 on a GPU, and the same inputs give the same bits; a CPU needs no switch."""
    if device.type == "cpu":
        yield
    else:
        with _repeatable():
            yield


def in_repeatable_float32(method: Method) -> Method:
    """Make a method of an object that computes on its `device` run inside `repeatable_float32`."""

    @functools.wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        with repeatable_float32(self.device):
            return method(self, *args, **kwargs)

    return cast("Method", run)
