"""Partitions -> outputs: tasks, their submission, progress, finish."""
