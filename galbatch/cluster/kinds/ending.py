"""The end of the workers that this process started: they are asked, and those that do not answer soon are killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import Any

from distributed import Nanny

__all__ = ["end_workers"]

ASK_S = 4.0
"""The time that workers have to end by themselves, in seconds; one that computes does not see that it is asked."""

NOTICE_S = 30.0
"""The longest time, in seconds, that nannies have to notice that their workers were killed."""


def end_workers(cluster: Any) -> None:
    """End the worker processes of a cluster of this process.

    Dask's own end of a cluster gives each nanny five seconds in all: where a busy machine takes longer to notice that a worker is
    gone, it fails. And a nanny that is starting its worker waits until it has started, however long that takes.

    Parameters
    ----------
    cluster : distributed.LocalCluster, or another with nannies in this process
    """
    nannies = [one for one in cluster.workers.values() if isinstance(one, Nanny)]

    async def end() -> None:
        closing = [asyncio.ensure_future(one.close(timeout=NOTICE_S)) for one in nannies]
        await asyncio.wait(closing, timeout=ASK_S)
        for nanny in nannies:
            if nanny.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(nanny.pid, signal.SIGKILL)
        ended, _ = await asyncio.wait(closing, timeout=NOTICE_S)
        for one in ended:
            # Whatever a nanny met, its worker is gone; Dask would print an error that nobody has asked for.
            one.exception()

    if nannies:
        cluster.sync(end)
