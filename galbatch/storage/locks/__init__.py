"""Locks, by which one run at a time holds an output, and the check of them before each commit."""

from galbatch.storage.locks.commits import committing, end_commits, guarded, require_held
from galbatch.storage.locks.lock import Clock, Lock, LockHandle

__all__ = ["Clock", "Lock", "LockHandle", "committing", "end_commits", "guarded", "require_held"]
