"""Process-wide switches of torch, each changed inside a ``with`` block only and restored at its end.

Other libraries compute in the same process: none of them should find TF32 off, or denormal numbers flushed, because galbatch
ran before.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import torch

__all__ = [
    "denormals_flushed",
    "full_precision_sums",
    "in_repeatable_float32",
    "repeatable_float32",
    "tf32_allowed",
]

Method = TypeVar("Method", bound=Callable[..., Any])


@contextlib.contextmanager
def tf32_allowed(allowed: bool) -> Iterator[None]:
    """Allow or forbid inside the block that a GPU rounds the factors of float32 products to TF32.

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
def full_precision_sums() -> Iterator[None]:
    """Let a GPU sum the products of float16 and bfloat16 numbers in float32 inside the block.

    Where it may sum in the short type, sums of some thousand products lose up to two digits, and depend on how they are split.
    """
    products = torch.backends.cuda.matmul
    names = (
        "allow_fp16_reduced_precision_reduction",
        "allow_bf16_reduced_precision_reduction",
        "allow_fp16_accumulation",
    )
    before = [getattr(products, name) for name in names]
    for name in names:
        setattr(products, name, False)
    try:
        yield
    finally:
        for name, value in zip(names, before, strict=True):
            setattr(products, name, value)


@contextlib.contextmanager
def denormals_flushed() -> Iterator[None]:
    """Flush denormal numbers to 0 in this thread inside the block.

    The weights of dead channels decay to denormal numbers, with which a CPU computes a hundred times as slowly.
    """
    # Torch cannot be asked for the state of this switch, so it is tested: half of the smallest normal number is denormal.
    # The smallest one is read at run time, as Python would compute an expression of constants when it compiles the file.
    was_on = sys.float_info.min / 2.0 == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_on)


class _Repeatable:
    """A context manager, shared by all threads, that keeps sums on GPUs exact and repeatable while any thread is inside.

    Two threads of a process may run passes at the same time. If each restored the state that it had found, the first to
    leave would allow TF32 for the other, or the last would restore what the first had set. So the first thread that enters
    saves the state, and the last that leaves restores it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._held = contextlib.ExitStack()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Keep the switches set inside the block."""
        with self._lock:
            if self._users == 0:
                self._held.enter_context(tf32_allowed(False))
                self._held.enter_context(full_precision_sums())
                # On a GPU TorchScript fuses operations after it has seen some calls: the first calls have other bits then.
                self._held.enter_context(torch.jit.fuser("none"))  # type: ignore[attr-defined]  # public, not in its list
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
    """Make sums on a GPU exact and repeatable inside the block: no TF32, and the same inputs give the same bits.

    On a CPU both hold without any switch.
    """
    if device.type == "cpu":
        yield
    else:
        with _repeatable():
            yield


def in_repeatable_float32(method: Method) -> Method:
    """Decorate a method to run inside `repeatable_float32` of its object's attribute `device`."""

    @functools.wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        with repeatable_float32(self.device):
            return method(self, *args, **kwargs)

    return cast("Method", run)
