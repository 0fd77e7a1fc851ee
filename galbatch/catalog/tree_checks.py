"""Checks of a catalog's files: that they agree with the metadata, and pass the validation of hats."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pyarrow as pa

from galbatch import storage
from galbatch.catalog import layout
from galbatch.core.pixels import HealpixPixel

__all__ = ["hats_problems", "tree_problems"]


def tree_problems(catalog_path: str, leaves: Sequence[HealpixPixel]) -> Iterator[str]:
    """Yield a message for each problem: unexpected files, overlapping leaves, and leaves that are missing or not listed.

    Parameters
    ----------
    catalog_path : str
    leaves : sequence of HealpixPixel
        All leaves of the catalog, sorted by `HealpixPixel.index_range`.
    """
    if stray := layout.stray_files(catalog_path):
        yield f"{len(stray)} files below dataset/ do not belong to the catalog, the first {stray[0]}; remove them"
    # Sorted by their ranges: if any two leaves overlap, two neighbors in the list do.
    for leaf, following in pairwise(leaves):
        if following.index_range[0] < leaf.index_range[1]:
            yield f"leaf {following.name} lies inside leaf {leaf.name}"
    try:
        text = storage.read_bytes(storage.join(catalog_path, layout.PARTITION_INFO)).decode()
        rows = [line.split(",") for line in text.splitlines()[1:]]
        listed = {HealpixPixel(int(row[0]), int(row[1])) for row in rows}
    except (FileNotFoundError, ValueError, IndexError):
        listed = set()  # A file that is missing or broken lists nothing, so all leaves are reported.
    if missing := sorted(listed - set(leaves)):
        yield f"{len(missing)} leaves are missing, the first {missing[0].name}; galbatch run does them again"
    if extra := sorted(set(leaves) - listed):
        yield f"{len(extra)} leaves are not in partition_info.csv, the first {extra[0].name}; finish again"
    yield from hats_problems(catalog_path)


class _CollectingHandler(logging.Handler):
    """A logging handler that collects messages in a list."""

    def __init__(self) -> None:
        super().__init__(level=logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def hats_problems(catalog_path: str) -> Iterator[str]:
    """Yield the problem that the strict validation of hats finds in a catalog, a margin or an index.

    hats returns only True or False and logs the reasons to the root logger, from where a handler collects them.
    """
    from hats.io.validation import is_valid_catalog

    handler = _CollectingHandler()
    logging.getLogger().addHandler(handler)
    try:
        with warnings.catch_warnings():
            # hats logs its reasons; its warnings would reach the user outside the list of problems.
            warnings.simplefilter("ignore")
            valid = is_valid_catalog(layout.hats_path(catalog_path), strict=True)
    # These exceptions come from reading broken files; hats does not catch them.
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        yield f"hats cannot read it: {type(error).__name__}: {error}"
        return
    finally:
        logging.getLogger().removeHandler(handler)
    if not valid:
        yield f"hats' strict validation fails: {'; '.join(handler.messages) or 'no reason given'}"
