"""Paths and URLs: the one place that tells them apart."""

from __future__ import annotations

__all__ = ["is_absolute", "scheme_of"]


def scheme_of(path: str) -> str:
    """Return the scheme of a URL, such as ``s3`` of ``s3://bucket/key``; "" for a path of the file system."""
    scheme, separator, _ = path.partition("://")
    return scheme if separator else ""


def is_absolute(path: str) -> bool:
    """Return whether the path means the same from every folder: it begins with a slash or is a URL."""
    return path.startswith("/") or bool(scheme_of(path))
