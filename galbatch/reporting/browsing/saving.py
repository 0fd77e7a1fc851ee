"""Selections as files: lists of ids with their positions, none of which replaces an older one."""

from __future__ import annotations

import pyarrow as pa

from galbatch import storage
from galbatch.objects import write_table

__all__ = ["save_selection"]


def save_selection(path: str, table: pa.Table) -> str:
    """Write a list of objects, and return the name of its file.

    Parameters
    ----------
    path : str
        ``selection.csv`` for example; the suffix says the format. Where the file is there already, a number is added:
        ``selection-2.csv``.
    table : pyarrow.Table
        The list, with its ids in ``object_id``.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    stem, dot, suffix = path.rpartition(".")
    names = (path if number == 1 else f"{stem}-{number}{dot}{suffix}" for number in range(1, 10**6))
    free = next(name for name in names if not storage.exists(name))
    write_table(free, table)
    return free
