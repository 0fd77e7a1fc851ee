"""Checks of a catalog's files: those that are there, those that the metadata names, and hats' own validation."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pyarrow as pa

from galbatch import storage
from galbatch.catalog import layout
from galbatch.core.pixels import HealpixPixel

__all__ = ["tree_problems"]


def tree_problems(catalog_path: str, leaves: Sequence[HealpixPixel]) -> Iterator[str]:
    """Find files that do not belong, leaves within leaves, and leaves that are missing or not listed.

    Parameters
    ----------
    leaves : those that are there, in the order of the sky
    """
    if stray := layout.stray_files(catalog_path):
        yield f"{len(stray)} files below dataset/ are none of the catalog's, the first {stray[0]}; remove them"
    for leaf, following in pairwise(leaves):
        if following.index_range[0] < leaf.index_range[1]:
            yield f"leaf {following.name} lies inside leaf {leaf.name}"
    try:
        text = storage.read_bytes(storage.join(catalog_path, layout.PARTITION_INFO)).decode()
        rows = [line.split(",") for line in text.splitlines()[1:]]
        listed = {HealpixPixel(int(row[0]), int(row[1])) for row in rows}
    except (FileNotFoundError, ValueError, IndexError):
        listed = set()
    if missing := sorted(listed - set(leaves)):
        yield f"{len(missing)} leaves are missing, the first {missing[0].name}; galbatch run does them again"
    if extra := sorted(set(leaves) - listed):
        yield f"{len(extra)} leaves are not in partition_info.csv, the first {extra[0].name}; finish again"
    yield from _hats_problems(catalog_path)


class _Messages(logging.Handler):
    """A handler that keeps the messages."""

    def __init__(self) -> None:
        super().__init__(level=logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def _hats_problems(catalog_path: str) -> Iterator[str]:
    """Find what hats' strict validation finds; it logs the reasons to the root logger and returns only yes or no."""
    from hats.io.validation import is_valid_catalog

    messages = _Messages()
    logging.getLogger().addHandler(messages)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            valid = is_valid_catalog(layout.hats_path(catalog_path), strict=True)
    # What reading broken files raises: hats does not catch it.
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        yield f"hats cannot read it: {type(error).__name__}: {error}"
        return
    finally:
        logging.getLogger().removeHandler(messages)
    if not valid:
        yield f"hats' strict validation fails: {'; '.join(messages.said) or 'no reason given'}"
