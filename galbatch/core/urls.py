"""Telling paths of the local file system from URLs, and finding credentials in URLs."""

from __future__ import annotations

import re

__all__ = ["HIDDEN", "is_absolute", "scheme_of", "without_secrets"]

HIDDEN = "***"
"""Stands in messages for what was a password or a signature."""

# user:password@ before the host, and the parameters by which the large object stores and their peers sign URLs.
PASSWORD = re.compile(r"(?<=://)([^/?#@]*):[^/?#]*@")
SIGNATURE = re.compile(
    r"([?&](?:x-(?:amz|goog)-(?:signature|credential|security-token)|signature|sig|awsaccesskeyid|(?:access_?)?token|api_?key|password)=)[^&#]+",
    re.IGNORECASE,
)


def scheme_of(path: str) -> str:
    """Return the scheme of a URL, such as "s3" for ``s3://bucket/key``; "" for a local path."""
    scheme, separator, _ = path.partition("://")
    return scheme if separator else ""


def is_absolute(path: str) -> bool:
    """Return whether a path does not depend on the working directory: it begins with a slash or is a URL."""
    return path.startswith("/") or bool(scheme_of(path))


def without_secrets(text: str) -> str:
    """Return a text with `HIDDEN` in place of passwords and signatures in URLs; the same text if there are none."""
    if "://" not in text:
        return text
    return SIGNATURE.sub(rf"\1{HIDDEN}", PASSWORD.sub(rf"\1:{HIDDEN}@", text))
