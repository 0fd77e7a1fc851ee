"""Throughput, while a run lasts."""

from galbatch.dashboard.progress import *  # noqa: F403
