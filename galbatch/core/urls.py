"""Telling paths of the local file system from URLs."""

from __future__ import annotations

__all__ = ["is_absolute", "scheme_of"]


def scheme_of(path: str) -> str:
    """Return the scheme of a URL, such as "s3" for ``s3://bucket/key``; "" for a local path."""
    scheme, separator, _ = path.partition("://")
    return scheme if separator else ""


def is_absolute(path: str) -> bool:
    """Return whether a path does not depend on the working directory: it begins with a slash or is a URL."""
    return path.startswith("/") or bool(scheme_of(path))
