"""Following a run from another process, by the files that it keeps next to the catalog."""

from __future__ import annotations

from collections.abc import Iterator

from galbatch import storage
from galbatch.dashboard.reporter import STATE_S, progress_path

__all__ = ["follow", "last_news"]

SILENT_S = 30.0
"""Time without news after which a run may be dead: it writes its state every five seconds."""


def last_news(catalog_path: str) -> str:
    """Return a line on the run that writes a catalog, or on the last one that did; "" if there is none."""
    news = storage.read_json(progress_path(catalog_path))
    if news is None:
        return ""
    run = f"process {news.get('pid')} on {news.get('host')}, since {news.get('started')}"
    return f"{news.get('time')} {news.get('state')} ({run}): {news.get('text')}"


def follow(catalog_path: str, *, every_s: float, clock: storage.Clock | None = None) -> Iterator[str]:
    """Yield lines on the run that writes a catalog until it ends.

    Parameters
    ----------
    catalog_path : str
        Local or S3.
    every_s : float
        Least time between two lines of progress, in seconds.
    clock : Clock or None

    Yields
    ------
    str
        Progress; that the run has been silent; how it ended.
    """
    clock = clock or storage.Clock()
    seen, seen_s, told_s, silent = None, clock.now_s(), -every_s, False
    while True:
        news = storage.read_json(progress_path(catalog_path))
        now_s = clock.now_s()
        if news is None:
            yield f"{catalog_path}: no run has written here yet"
            return
        if news.get("count") != seen:
            seen, seen_s, silent = news.get("count"), now_s, False
            is_over = news.get("state") != "running"
            if is_over or now_s - told_s >= every_s:
                told_s = now_s
                yield last_news(catalog_path)
            if is_over:
                return
        elif now_s - seen_s >= SILENT_S and not silent:
            silent = True
            yield f"no news for {now_s - seen_s:.0f} s: the run may have died, or its storage hangs"
        clock.sleep(STATE_S)
