"""Bytes on a disk or an object store."""

from galbatch.storage.access_log import FileAccessLog as FileAccessLog
from galbatch.storage.files import *  # noqa: F403
