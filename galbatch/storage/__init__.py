"""Bytes on a disk or an object store."""

from galbatch.storage.files import *  # noqa: F403
