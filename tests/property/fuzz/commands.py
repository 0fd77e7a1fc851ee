"""The command line in this process, under limits of time and memory, and what every outcome must be."""

from __future__ import annotations

import contextlib
import io
import re
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from unittest import mock

from galbatch.cli import main

LIMIT_S = 300
"""Seconds after which a command hangs: the slowest that are right take 3, and 50 on two cores that fifteen processes share."""

LIMIT_BYTES = 4 * 2**30
"""Memory that a command may take beyond what the process holds: a header's word must not be believed."""


@dataclass(frozen=True)
class Outcome:
    """Exit code, stdout and stderr of a command; `raw` is the traceback of what left `main`, "" if nothing did."""

    arguments: tuple[str, ...]
    code: int
    stdout: str
    stderr: str
    raw: str = ""


class TooSlow(BaseException):
    """Raised by the alarm; no library catches it."""


def run(arguments: Sequence[str], *, limit_s: float = LIMIT_S) -> Outcome:
    """Run ``galbatch`` with arguments as its entry point does."""
    stdout, stderr, code, raw = io.StringIO(), io.StringIO(), 0, ""
    with (
        mock.patch.object(sys, "argv", ["galbatch", *arguments]),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        warnings.catch_warnings(),
        _limited_memory(),
    ):
        warnings.simplefilter("ignore")
        try:
            with _limited_time(limit_s):
                main()
        except SystemExit as error:
            code = int(error.code or 0)
        except BaseException:
            raw = traceback.format_exc()
    return Outcome(tuple(arguments), code, stdout.getvalue(), stderr.getvalue(), raw)


@contextlib.contextmanager
def _limited_time(limit_s: float) -> Iterator[None]:
    def ring(number: int, frame: object) -> None:
        raise TooSlow(f"took more than {limit_s} s")

    # pytest's own limit uses the same alarm.
    before, (left_s, _) = signal.signal(signal.SIGALRM, ring), signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left_s)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _limited_memory() -> Iterator[None]:
    with open("/proc/self/statm") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (held + LIMIT_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def problems(outcome: Outcome, *, names: Sequence[str]) -> list[str]:
    """Return what is wrong with an outcome; a message must name one of the files `names`, or a section of run.toml."""
    found = []
    command, said = outcome.arguments[0], outcome.stdout + outcome.stderr
    if outcome.raw or "Traceback (most recent call last)" in said:
        return ["a raw traceback"]
    # 1: some rows would be refused, or some partitions failed.
    codes = (0, 2) if command in ("plan", "models") else (0, 1, 2)
    if outcome.code not in codes:
        found.append(f"exit code {outcome.code}")
    if outcome.code == 2 and not outcome.stderr.strip():
        found.append("no message")
    is_named = any(name in outcome.stderr for name in names) or re.search(r"\[(\[?\w+)+\]", outcome.stderr)
    if outcome.code == 2 and not is_named:
        found.append(f"no message that names one of {', '.join(names)}")
    if outcome.code == 0 and re.search(r"\b(nan|inf)\b", outcome.stdout):
        found.append("a number that is none")
    # Of failed partitions the reason stands behind their name; an exception's name is none.
    reasons = re.findall(r"^failed: [^:]*: (.*)", outcome.stderr, re.MULTILINE)
    found += [f"a raw reason: {reason}" for reason in reasons if re.match(r"\w+(Error|Exception)\b", reason)]
    return found
