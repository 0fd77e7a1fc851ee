"""What workers of this process leave unsaid."""

import logging

from distributed import worker as dask_worker

from galbatch.cluster.kinds.worker_plugins import NoHeartbeatErrors


def test_only_lost_heartbeats_are_left_out():
    logger = logging.getLogger("distributed.worker")
    before = list(logger.filters)
    try:
        NoHeartbeatErrors().setup(worker=None)
        assert not logger.filter(logged(NoHeartbeatErrors.MESSAGE + "."))
        assert logger.filter(logged("Compute Failed"))
    finally:
        logger.filters[:] = before


def logged(text):
    return logging.LogRecord("distributed.worker", logging.ERROR, __file__, 1, text, None, None)


def test_dask_still_says_it_so():
    with open(dask_worker.__file__, encoding="utf-8") as file:
        assert NoHeartbeatErrors.MESSAGE in file.read()
